"""An index on real PostgreSQL servers: loads that break off, writers and readers at once, rights, and several servers."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest

import hierderm.search.postgres.loading as loading
import hierderm.search.postgres.place as place_module
from hierderm.data.look import N_LOOK
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import DatabaseError, IndexFolderError, MissingExtraError, OutputError, SearchError
from hierderm.search.case_index import About, CaseIndex
from hierderm.search.finder import CaseFinder
from hierderm.search.places import place_of
from hierderm.search.postgres.address import Address
from hierderm.search.postgres.gallery import PostgresGallery
from hierderm.search.postgres.loading import Source
from hierderm.search.postgres.place import PostgresPlace, kind_for
from hierderm.search.postgres.servers import Session
from hierderm.search.postgres.statements import Asks, intervals
from hierderm.search.proof import remove_and_prove
from tests.postgres import Server
from tests.search.test_gallery import PLAIN, gallery_table, same_calibration
from tests.search.toy import MADE_BY, TREE, random_table

SECRET = "pa%ss w@rd"
WRITTEN = "pa%25ss%20w%40rd"


@pytest.fixture
def database(server: Server) -> str:
    return server.new_database()


@pytest.fixture
def place(database: str) -> PostgresPlace:
    """The plain index in a database of its own."""
    PLAIN.save(database)
    return PostgresPlace(database)


def image_ids(index: CaseIndex, k: int = 5) -> list[list[str]]:
    return [[hit.image_id for hit in hits] for hits in index.search(PLAIN.vectors[:6], k=k).to_list()]


# --- what must not be seen ---------------------------------------------------------------------------------------


def test_a_password_is_nowhere(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.DEBUG)
    for address in (
        f"postgresql://me:{WRITTEN}@/gallery?host={tmp_path}",
        f"postgresql://me@/gallery?host={tmp_path}&password={WRITTEN}",
        f"postgresql://me:{WRITTEN}@127.0.0.1:1/gallery",
    ):
        place = place_of(address)
        with pytest.raises(DatabaseError, match="connecting failed: .*Check that the server runs") as refused:
            place.opened()
        texts = [str(place), repr(place), str(refused.value), repr(refused.value), caplog.text]
        texts.append(str(refused.value.__cause__))
        assert refused.value.__cause__ is None and refused.value.__suppress_context__
        assert not any(secret in text for secret in (SECRET, WRITTEN, "w@rd") for text in texts)
    for wrong in (
        f"postgresql://me:{SECRET}@host:port/x",
        f"postgresql://me:{WRITTEN}@h/x?unknown=1",
        f"postgresq://me:{WRITTEN}@h/x",
        Path(f"postgresql://me:{WRITTEN}@h/x"),
        f"host=h password={WRITTEN} dbname=x",
        f"postgresql://me@h/x,postgresql://me:{WRITTEN}@h/y",
    ):
        with pytest.raises(DatabaseError, match="libpq can't read the one given") as refused:
            place_of(wrong)
        assert "w@rd" not in str(refused.value) and WRITTEN not in str(refused.value)
    with pytest.raises(
        DatabaseError, match=r"each database must be given once, got postgresql://h/x postgresql://h/x\.$"
    ):
        place_of(f"postgresql://me:{WRITTEN}@h/x postgresql://h/x")


@pytest.mark.parametrize(("said", "shown"), [("is it there?", "is it there?"), ("gone.", "gone."), ("gone", "gone.")])
def test_a_reason_ends_as_a_sentence(said: str, shown: str) -> None:
    address = Address.parse("postgresql://host/gallery")
    with pytest.raises(DatabaseError) as refused, address.faults("asking"):
        raise psycopg.OperationalError(said)
    assert str(refused.value).startswith(f"postgresql://host/gallery: asking failed: {shown} Check that the server")


def test_a_server_that_repeats_the_password_is_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "of the environment")
    address = Address.parse(f"postgresql://me:{WRITTEN}@host/gallery?sslpassword=k%C3%A9y")
    for text in (SECRET, WRITTEN, "of the environment", "kéy"):
        with pytest.raises(DatabaseError) as refused, address.faults("a test"):
            raise psycopg.OperationalError(f"can't log in as me with {text}")
        assert str(refused.value).startswith("postgresql://host/gallery: a test failed: can't log in as me with ***.")


def test_what_an_address_lacks_comes_from_the_environment(
    database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = psycopg.conninfo.conninfo_to_dict(database)
    (tmp_path / "services").write_text(f"[gallery]\nhost={known['host']}\nuser=postgres\ndbname={known['dbname']}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    PLAIN.save("postgresql:///?service=gallery")
    assert len(CaseIndex.open("postgresql:///?service=gallery")) == 300
    assert str(place_of("postgresql:///?service=gallery")) == "postgresql:///?service=gallery"
    monkeypatch.setenv("PGHOST", str(known["host"]))
    monkeypatch.setenv("PGUSER", "postgres")
    assert len(CaseIndex.open(f"postgresql:///{known['dbname']}")) == 300


def test_roles(server: Server, database: str) -> None:
    """As docs/scale.md grants them: the writer loads and changes, the reader searches, and neither does more."""
    name = str(psycopg.conninfo.conninfo_to_dict(database)["dbname"])
    text = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    grants = text.partition("```sql\n")[2].partition("```")[0].replace("gallery_", f"{name}_")
    for statement in grants.strip().split("\n"):
        server.run(database, statement)
    writer, reader = (server.address(name, user=f"{name}_{role}") for role in ("writer", "reader"))
    PLAIN.save(writer)
    finder = CaseFinder.open(reader)
    assert image_ids(finder.index) == image_ids(PLAIN)
    assert finder.search_image_id("i8").answer is not None and place_of(reader).check()
    with (
        pytest.raises(DatabaseError, match="permission denied.*docs/scale.md lists"),
        CaseIndex.updating(reader) as index,
    ):
        index.remove(["s0c1"])
    with pytest.raises(DatabaseError, match="permission denied"):
        PLAIN.save(reader, replace=True)
    with CaseIndex.updating(writer) as index:
        index.remove(["s0c1"])
    assert remove_and_prove(place_of(writer), ["s0c1"])
    PLAIN.save(writer, replace=True)  # a new partition can be read, too
    assert len(CaseIndex.open(reader)) == 300


# --- loads -------------------------------------------------------------------------------------------------------


def breaking(table: EmbeddingTable, happens: Callable[[], object]) -> Source:
    """A source after whose second part something happens."""
    whole = Source.of_table(table)

    def frames() -> Iterator[pd.DataFrame]:
        for number, frame in enumerate(whole.frames()):
            if number == 2:
                happens()
            yield frame

    return replace(whole, frames=frames)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PART", 60)


def load(place: PostgresPlace, source: Any, **options: Any) -> None:
    with place.building(source, TREE, PLAIN.about, **options) as index:
        index.calibration = PLAIN.calibration


@pytest.mark.usefixtures("small_parts")
def test_a_load_goes_on_after_a_restart_of_the_server(
    server: Server, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    place, table = PostgresPlace(database), gallery_table()
    with pytest.raises(DatabaseError, match="the query failed|loading failed"):
        load(place, breaking(table, server.restart))
    with pytest.raises(DatabaseError, match="has no index, or one that is not loaded yet"):
        place.opened()
    with pytest.raises(
        OutputError, match="an unfinished load of other images, of which 120 came. Go on with it, or give"
    ):
        load(place, Source.of_table(gallery_table(20)))
    load(place, Source.of_table(table))
    assert "The load goes on after 120 of 300 images." in caplog.text
    assert image_ids(place.opened()) == image_ids(PLAIN) and place.check()


@pytest.mark.usefixtures("small_parts")
def test_a_load_that_goes_on_follows_the_command_that_goes_on(server: Server, database: str) -> None:
    """Which may ask for another kind, and know where images and model are now."""
    place, source = PostgresPlace(database), breaking(gallery_table(), lambda: 1 / 0)
    first = About("hnsw", model="there", image_root="/there")
    with pytest.raises(ZeroDivisionError), place.building(source, TREE, first):
        raise AssertionError
    with (
        pytest.raises(ZeroDivisionError),
        place.building(Source.of_table(gallery_table()), TREE, first) as index,
    ):
        assert index.gallery.approximate
        raise ZeroDivisionError  # after the graph was built
    load(place, Source.of_table(gallery_table()))
    opened = place.opened()
    assert opened.about == PLAIN.about and not opened.gallery.approximate
    assert server.run(database, "select to_regclass('hierderm.graph_1'), to_regclass('hierderm.nodes_1')::text") == [
        (None, "hierderm.nodes_1")
    ]


@pytest.mark.usefixtures("small_parts")
def test_a_full_disk_is_named_and_a_load_goes_on(server: Server, database: str) -> None:
    place, table = PostgresPlace(database), gallery_table()

    def fill_disk() -> None:
        server.run(
            database,
            "create function full_disk() returns trigger language plpgsql as "
            "$$ begin raise exception 'could not extend file' using errcode = 'disk_full'; end $$; "
            "create trigger full_disk before insert on hierderm.vectors_1 execute function full_disk()",
        )

    with pytest.raises(
        OutputError, match="loading failed, for the server has no space left: could not extend file.*Free space"
    ):
        load(place, breaking(table, fill_disk))
    server.run(database, "drop trigger full_disk on hierderm.vectors_1")
    load(place, Source.of_table(table))
    assert len(place.opened()) == 300 and place.check()


@pytest.mark.usefixtures("small_parts")
def test_an_unfinished_load_may_be_given_up(server: Server, database: str) -> None:
    place = PostgresPlace(database)
    with pytest.raises(ZeroDivisionError):
        load(place, breaking(gallery_table(), lambda: 1 / 0))
    load(place, Source.of_table(gallery_table(20)), replace=True)
    assert len(place.opened()) == 20 and place.check()
    assert server.run(database, "select count(*) from hierderm.models") == [(1,)]


@pytest.mark.usefixtures("small_parts")
def test_a_removed_case_does_not_come_back_with_an_unfinished_load(
    server: Server, place: PostgresPlace, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ZeroDivisionError):
        load(place, breaking(replace(gallery_table(), provenance=MADE_BY), lambda: 1 / 0), replace=True)
    remove_and_prove(place, ["s0c3"])
    assert "A load that was not ended is given up" in caplog.text
    for name in ("cases", "images", "vectors"):
        assert server.run(str(database_of(place)), f"select count(distinct model) from hierderm.{name}") == [(1,)]


def database_of(place: PostgresPlace) -> str:
    return place.servers.addresses[0].conninfo


def test_a_folder_is_streamed(place: PostgresPlace, database: str, tmp_path: Path, small_parts: None) -> None:
    gallery_table().save(tmp_path / "embeddings")
    index = place.load(tmp_path / "embeddings", TREE, image_root="/root", accuracy=0.5, k=5, replace=True)
    assert image_ids(index) == image_ids(PLAIN)
    same_calibration(index, PLAIN)
    assert index.gallery.values("patient") == PLAIN.gallery.values("patient")
    assert replace(index.about, model="m") == PLAIN.about
    trained = replace(gallery_table(), provenance=replace(MADE_BY, split_hash="0" * 12))
    trained.save(tmp_path / "trained")
    index = place.load(tmp_path / "trained", TREE, replace=True)
    assert index.calibration is None and "trained on another split" in index.about.not_calibrated
    with pytest.raises(SearchError, match="made with another taxonomy"):
        replace(trained, provenance=replace(MADE_BY, taxonomy_hash="x")).save(tmp_path / "foreign")
        place.load(tmp_path / "foreign", TREE, replace=True)
    with pytest.raises(SearchError, match="must be of kind 'auto', 'flat' or 'hnsw', got 'ivf'"):
        place.load(tmp_path / "trained", TREE, kind="ivf", replace=True)


def test_embeddings_of_another_model_are_not_loaded(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery_table(20).save(tmp_path / "embeddings")
    made_by = {"one": MADE_BY, "other": replace(MADE_BY, preprocessing_hash="q" * 12)}
    monkeypatch.setattr(place_module, "provenance_of_model", made_by.__getitem__)
    place = PostgresPlace(database)
    with pytest.raises(SearchError, match="its preprocessing is pppppppppppp, theirs qqqqqqqqqqqq"):
        place.load(tmp_path / "embeddings", TREE, model="other")
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path)
    assert place.load(tmp_path / "embeddings", TREE, model="one").about.model == str(tmp_path / "one")


def test_what_postgres_can_not_hold_is_named(database: str) -> None:
    table = gallery_table(6)
    odd = table.frame.assign(
        lot=["a\0b", *"12345"],
        body_site=pd.Series([*"12345", "a\ud800"], dtype=object),
        image_id=["i" * 3000, *"12345"],
    )
    with pytest.raises(SearchError) as refused:
        load(PostgresPlace(database), Source.of_table(replace(table, frame=odd.assign(**{"x\0": 1}))))
    message = (
        "PostgreSQL holds no NUL, no halves of characters and no very long ids: the column 'x\\x00' is called so; column "
        f"'lot' has 'a\\x00b'; column 'body_site' has 'a\\ud800'; 1 image_id(s) are longer than 2000 bytes, such as '{'i' * 40}"
        "...'. Change them."
    )
    assert str(refused.value) == message


def test_vectors_that_are_too_long_for_a_graph_or_a_table() -> None:
    source = replace(Source.of_table(gallery_table(4)), vectors=np.zeros((60_000, 4001), dtype=np.int8))
    assert (
        kind_for("auto", source) == "flat"
        and kind_for("auto", replace(source, vectors=source.vectors[:, 1:])) == "hnsw"
    )
    with pytest.raises(SearchError, match="a graph of pgvector holds vectors of up to 4000 numbers, these have 4001"):
        kind_for("hnsw", source)
    with pytest.raises(SearchError, match="pgvector holds vectors of up to 16000 numbers, these have 16001"):
        loading.require_fit(replace(source, vectors=np.zeros((4, 16_001), dtype=np.int8)), TREE)


def test_a_new_model_is_filled_beside_the_old(server: Server, place: PostgresPlace) -> None:
    old = place.opened()
    other = replace(gallery_table(40), provenance=replace(MADE_BY, weights_hash="x" * 12))
    with place.building(Source.of_table(other), TREE, PLAIN.about, replace=True):
        assert len(place.opened()) == 300 and image_ids(old) == image_ids(PLAIN)
    new = place.opened()
    assert len(new) == 40 and new.provenance.weights_hash == "x" * 12
    assert image_ids(old) == image_ids(PLAIN)  # what was open still is, until the next change
    with place.updating() as index:
        index.remove(["s0c1"])
    with pytest.raises(DatabaseError, match="image.s. are not there|replaced or deleted since it was opened"):
        old.gallery.vectors_at(np.array([200]))
    with (
        pytest.raises(SearchError, match="its weights is xxxxxxxxxxxx, theirs wwwwwwwwwwww"),
        place.updating() as index,
    ):
        index.add(gallery_table(4, start=900))


# --- writers and readers -----------------------------------------------------------------------------------------


def test_two_writers_at_once(place: PostgresPlace, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    second = PostgresPlace(database)
    with place.updating() as index:
        index.remove(["s0c1"])
        assert len(second.opened()) == 300  # a reader sees nothing of it yet
        monkeypatch.setattr(place_module, "PATIENCE", 0.1)
        with pytest.raises(DatabaseError, match="Another process writes this index. Try again"), second.updating():
            raise AssertionError("two writers")
    assert len(second.opened()) == 298
    with second.updating() as index:
        index.remove(["s0c2"])


def test_neither_a_writer_nor_other_readers_wait_for_a_long_reader(
    place: PostgresPlace, database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(place_module, "DROP_PATIENCE", 0.1)
    old, begun = place.opened(), time.monotonic()
    with old.reading():
        assert image_ids(old) == image_ids(PLAIN)  # from now on its tables are held
        load(PostgresPlace(database), Source.of_table(gallery_table(40)), replace=True)
        with PostgresPlace(database).updating() as index:
            index.remove(["s0c1"])
        assert "Model 1, which was replaced, is still read: the next change drops it." in caplog.text
        assert len(PostgresPlace(database).opened()) == 38 and image_ids(old) == image_ids(PLAIN)
    assert time.monotonic() - begun < 20
    place.forget([])
    with pytest.raises(DatabaseError, match="replaced or deleted since it was opened"):  # and not nothing
        old.search(PLAIN.vectors[:1])


def test_what_all_searches_need_is_read_once(place: PostgresPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    finder, seen = CaseFinder(place.opened()), list[str]()

    def watched(name: str) -> Callable[[PostgresGallery], Any]:
        real = getattr(PostgresGallery, name)

        def read(gallery: PostgresGallery) -> Any:
            seen.append(name)
            return real(gallery)

        return read

    for name in ("_known_looks", "_pair_similarities"):
        monkeypatch.setattr(PostgresGallery, name, watched(name))
    looks = np.ones((1, N_LOOK), dtype=np.float32)
    for row in range(3):
        finder.search_vectors(PLAIN.vectors[[row]], looks=looks).to_dict(paths=False)
    assert sorted(seen) == ["_known_looks", "_pair_similarities"]


def test_a_lost_connection(server: Server, place: PostgresPlace, database: str) -> None:
    index = place.opened()
    gallery = index.gallery
    assert isinstance(gallery, PostgresGallery)
    with pytest.raises(DatabaseError, match="the query failed: .*Check that the server runs"), index.reading():
        ((pid,),) = gallery._rows(Asks("select pg_backend_pid()"))
        server.run(database, "select pg_terminate_backend(%s)", pid)
        index.search(PLAIN.vectors[:1])
    assert image_ids(index) == image_ids(PLAIN)
    server.restart()
    assert image_ids(index) == image_ids(PLAIN)


def test_another_version_of_the_tables(server: Server, place: PostgresPlace, database: str) -> None:
    server.run(database, "update hierderm.version set version = 99")
    for attempt in (place.opened, place.generation, lambda: PLAIN.save(database, replace=True)):
        with pytest.raises(DatabaseError, match=r"must be of version 1, got \[99\]: another hierderm made it"):
            attempt()


def test_what_is_no_index(server: Server, database: str, place: PostgresPlace) -> None:
    empty = server.new_database()
    with pytest.raises(DatabaseError, match="CREATE EXTENSION vector"):
        CaseIndex.open(empty)
    place_of(empty).require_free(replace=False)
    with pytest.raises(DatabaseError, match="has no index, or one that is not loaded yet"):
        CaseIndex.open(empty)
    for damage, message in (
        (
            "delete from hierderm.vectors where image = 3",
            "1 of the images have nothing in vectors, 299 vectors instead of 300",
        ),
        ("update hierderm.vectors set node = 77 where image = 4", "1 vectors under no node of the tree"),
        (
            "update hierderm.models set calibration = jsonb_set(calibration, '{rule,levels}', '[]')",
            "the table of models is damaged: its calibration must have a rule for each of 2 levels",
        ),
        (
            "update hierderm.models set columns = '[[1]]'",
            "the table of models is damaged: '0.0' must be a valid string",
        ),
        ("update hierderm.models set about = '{}'", "the table of models is damaged: 'kind' is missing"),
    ):
        server.run(database, damage)
        with pytest.raises(DatabaseError, match=message):
            place.check()
    with pytest.raises(psycopg.errors.CheckViolation):  # a vector of another length can't come in
        server.run(database, "update hierderm.vectors set vector = '[1,0]' where image = 5")


def test_what_it_does_not_do(place: PostgresPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = place.opened()
    with pytest.raises(IndexFolderError, match="an index in PostgreSQL is not copied into a folder"):
        index.save(tmp_path / "index")
    message = r"changed in a transaction: with CaseIndex.updating\(address\) as index"
    with pytest.raises(SearchError, match=message):
        index.add(gallery_table(4, start=900))
    with pytest.raises(SearchError, match=message):
        index.remove(["s0c1"])
    monkeypatch.setitem(sys.modules, "hierderm.search.postgres.place", None)
    message = r"an index in PostgreSQL needs an optional package. Install it with: pip install 'hierderm\[postgres\]'"
    with pytest.raises(MissingExtraError, match=message):
        CaseIndex.open("postgresql://host/gallery")


def test_a_proof_waits_for_older_transactions(server: Server, place: PostgresPlace, database: str) -> None:
    with psycopg.connect(database) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("select count(*) from hierderm.cases")
        with pytest.raises(
            DatabaseError, match="1 removed row.s. of hierderm.cases_1 can't be given up while an older tr"
        ):
            remove_and_prove(place, ["s0c3"])
    assert remove_and_prove(place, ["s0c3"])


def test_intervals() -> None:
    assert intervals(np.array([1, 1, 0, 0, 1, 0, 1], dtype=bool)) == [(0, 1), (4, 4), (6, 6)]
    assert intervals(np.zeros(3, dtype=bool)) == []


# --- several servers ---------------------------------------------------------------------------------------------


def test_one_of_two_servers_down(two_servers: tuple[Server, Server]) -> None:
    addresses = " ".join(server.new_database() for server in two_servers)
    PLAIN.save(addresses)
    whole, partial = CaseFinder.open(addresses), CaseFinder.open(addresses, partial=True)
    assert image_ids(whole.index) == image_ids(partial.index) == image_ids(PLAIN)
    assert partial.search_vectors(PLAIN.vectors[:1]).to_dict(paths=False)["missing"] == 0
    there = {server: f"i{2 * row}" for row in range(20) for server in [loading.server_of(f"s0c{row}", 2)]}
    two_servers[1].stop()
    try:
        gallery = partial.index.gallery
        with pytest.raises(SearchError, match=f"no image '{there[1]}', or it is on a server that is down"):
            gallery.image_row(there[1])
        assert gallery.image_row(there[0]) == int(there[0][1:])
        assert not partial.index.search(PLAIN.vectors[:1], where={"image_id": there[1]}).to_list()[0]
        assert len(gallery.values("image_id")) < 300
        with pytest.raises(DatabaseError, match="connecting failed: .*Check that the server runs"):
            whole.search_vectors(PLAIN.vectors[:1])
        found = partial.search_vectors(PLAIN.vectors[:1])
        content = found.to_dict(paths=False)
        assert content["missing"] == 1 and content["answer"]["confidence"] is None and content["answer"]["node"] == ""
        assert "1 server(s) of the index are down, and their cases are missing" in content["answer"]["reason"]
        assert all(loading.server_of(hit.case_id, 2) == 0 for hit in found.hits) and len(found.hits) == 10
        with pytest.raises(DatabaseError, match="connecting failed"), CaseIndex.updating(addresses) as index:
            index.remove(["s0c1"])
    finally:
        two_servers[1].start()
    assert len(gallery.values("image_id")) == 300 and gallery.image_row(there[1]) == int(there[1][1:])
    assert image_ids(whole.index) == image_ids(partial.index) == image_ids(PLAIN)
    assert partial.search_vectors(PLAIN.vectors[:1]).to_dict(paths=False)["missing"] == 0


def test_an_index_on_two_servers_without_any(two_servers: tuple[Server, Server]) -> None:
    place = place_of(" ".join(server.new_database() for server in two_servers))
    place.require_free(replace=False)
    assert place.generation() == ""
    with pytest.raises(DatabaseError, match="has no index, or one that is not loaded yet"):
        place.opened()
    single = random_table(2)  # of one case: the other server has nothing
    place.save(CaseIndex.from_embeddings(single, TREE), replace=False)
    opened = place.opened()
    assert opened.search(single.embeddings[:1], k=3).rows.tolist() == [[0, -1, -1]]
    assert opened.measure_recall() == 1 and place.check() and np.isnan(opened.gallery.closer_than(0.5))


def test_all_servers_in_their_order(two_servers: tuple[Server, Server]) -> None:
    first, second = (server.new_database() for server in two_servers)
    PLAIN.save(f"{first} {second}")
    for wrong in (first, f"{second} {first}"):
        with pytest.raises(
            DatabaseError, match=r"the index is on 2 server\(s\), which must all be given, in their order"
        ):
            CaseIndex.open(wrong)


def test_a_load_is_begun_on_all_servers_or_on_none(two_servers: tuple[Server, Server]) -> None:
    """A loader that is killed when the first of them has begun."""
    addresses = " ".join(server.new_database() for server in two_servers)
    ended, killed = Session.each, list[str]()

    def killing(self: Session, act: Any, doing: str) -> Any:
        if doing == "committing" and not killed and len(self.connections) == 2:
            found = self.rows("select gid from pg_prepared_xacts where database = current_database()")
            if found:
                killed.append(found[0][0])
                act(self.connections[0])
                raise KeyboardInterrupt
        return ended(self, act, doing)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "each", killing)
        with pytest.raises(KeyboardInterrupt):
            PLAIN.save(addresses)
    assert killed
    PLAIN.save(addresses)
    assert image_ids(CaseIndex.open(addresses)) == image_ids(PLAIN)


def test_a_change_is_on_all_servers_or_on_none(two_servers: tuple[Server, Server]) -> None:
    """A writer that is killed between the two commits: its change is ended by the next writer."""
    addresses = [server.new_database() for server in two_servers]
    place = PostgresPlace(" ".join(addresses))
    PLAIN.save(" ".join(addresses))
    for committed in (True, False):
        name, n_before = f"hierderm-{'ab' if committed else 'cd'}", len(place.opened())
        for number, address in enumerate(addresses):
            with psycopg.connect(address, autocommit=True) as connection:
                connection.execute("begin")
                connection.execute("update hierderm.models set generation = %s", (name.removeprefix("hierderm-"),))
                connection.execute(f"prepare transaction '{name}'")
                if number == 0 and committed:
                    connection.execute(f"commit prepared '{name}'")
        if committed:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("hierderm.search.postgres.servers.TRIES", 2)
                with pytest.raises(
                    DatabaseError, match="the servers are at different generations. A writer was killed"
                ):
                    place.opened()
        place.forget([])
        assert place.generation() == ("ab" if committed else place.generation()) != "cd"
        assert len(place.opened()) == n_before
