"""An index in a database, or in several: opened, changed and built, as `search.persistence` does it in a folder."""

from __future__ import annotations

import dataclasses
import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg.types.json import Jsonb

from hierderm.embeddings import EmbeddingTable, Provenance
from hierderm.engines import FLAT_UP_TO, Kind
from hierderm.errors import DatabaseError, OutputError, SearchError
from hierderm.files import PATIENCE, text_hash
from hierderm.json_files import checked
from hierderm.progress import Progress
from hierderm.search.answer import Calibration
from hierderm.search.building import learn, provenance_of_model, recorded_name
from hierderm.search.case_index import About, CaseIndex
from hierderm.search.checks import require_same_model
from hierderm.search.postgres.address import Address, Connection, LockedError
from hierderm.search.postgres.gallery import FIRST_EFFORT, PostgresGallery, Stored
from hierderm.search.postgres.loading import Filling, Source, require_fit
from hierderm.search.postgres.schema import (
    MODELS,
    WRITER,
    Precision,
    add_partitions,
    create,
    drop_model,
    generation,
    give_up_after,
    index_partitions,
    there,
)
from hierderm.search.postgres.servers import Servers, Session
from hierderm.search.postgres.upkeep import check, forget
from hierderm.taxonomy.file import format_taxonomy, parse_taxonomy
from hierderm.taxonomy.tree import Taxonomy

State = Literal["current", "loading"]
LONGEST_IN_GRAPH = 4000  # numbers of a vector of half precision
DROP_PATIENCE = 1.0  # seconds
logger = logging.getLogger(__name__)
_COLUMNS = (
    "model", "server", "n_servers", "generation", "precision", "dim", "columns", "n_images", "n_cases", "next_image",
    "next_case", "about", "provenance", "calibration", "has_looks", "taxonomy", "key", "source",
)  # fmt: skip


class PostgresPlace:
    """The index of a database, or of one on each of several servers.

    Args:
        addresses: Of the databases, with spaces between them, in the order in which the index was built on them.
        partial: Search the servers that answer where one is down; else that is an error.
    """

    def __init__(self, addresses: str, *, partial: bool = False) -> None:
        parsed = [Address.parse(text) for text in addresses.split()]
        if len(set(map(str, parsed))) < len(parsed):
            raise DatabaseError(f"each database must be given once, got {' '.join(map(str, parsed))}.")
        self.servers = Servers(parsed, partial=partial)

    def __str__(self) -> str:
        return str(self.servers)

    def opened(self) -> CaseIndex:
        """The index as it is now; DatabaseError where there is none."""
        with self.servers.reading() as session:
            return self._index(session)

    def generation(self) -> str:
        """What tells one state of the index from another; '' where there is no index."""
        with self.servers.reading() as session:
            return session.each(generation, "opening the index")[0]

    def require_free(self, *, replace: bool) -> None:
        """OutputError where there is an index that is not to be replaced; makes the tables where they are missing."""
        self._prepare()
        with self.servers.reading() as session:
            self._require_free(session, replace)

    def save(
        self,
        index: CaseIndex,
        *,
        replace: bool,
        kind: Kind | Literal["auto"] = "auto",
        precision: Precision = "single",
    ) -> None:
        """Copy an index, with what was learnt from it."""
        with index.reading():
            table = EmbeddingTable(index.vectors, index.frame, index.provenance, looks=index.looks)
            source, tree = Source.of_table(table), index.taxonomy
            about = dataclasses.replace(index.about, kind=kind_for(kind, source), effort=0, recall_at_10=1.0)
            with self.building(source, tree, about, precision=precision, replace=replace) as new:
                new.calibration = index.calibration

    def load(
        self,
        folder: Path,
        taxonomy: Taxonomy,
        *,
        model: str = "",
        image_root: Path | str = "",
        kind: Kind | Literal["auto"] = "auto",
        precision: Precision = "single",
        accuracy: float = 0.8,
        k: int = 10,
        replace: bool = False,
    ) -> CaseIndex:
        """Stream a folder of embeddings into the database, index it, and calibrate answers on its validation cases.

        A load that was broken off goes on where it stopped, when it is begun again with the same folder.

        Args:
            folder: What `EmbeddingTable.save` or `hierderm embed` wrote; it need not fit into memory.
            taxonomy: The tree of the conditions.
            model: Folder or name of the model that made the embeddings; '' where queries will be vectors.
            image_root: Folder that relative image paths start at.
            kind: 'flat' is exact, 'hnsw' a graph; 'auto' chooses by size.
            precision: Of the vectors: 'single' has 4 bytes a number, 'half' 2, and similarities that are exact to 1e-3.
            accuracy: The accuracy that answers must keep to on validation cases, in (0, 1).
            k: Nearest cases that an answer is read from, >= 1.
            replace: Replace the index that is there.

        Returns:
            The index.

        Raises:
            EmbeddingError: The folder is damaged.
            SearchError: Its rows do not fit the tree, or its vectors come from another model.
            DatabaseError: The server can't be reached, or refuses.
            OutputError: The database has an index, an unfinished load of other images, or no space left.
        """
        source = Source.of_folder(folder)
        trained_on = source.provenance.split_hash
        about = About(kind_for(kind, source), image_root=str(image_root), trained=bool(trained_on))
        if model:
            require_same_model(provenance_of_model(model), source.provenance)  # else no query could be compared with it
            about = dataclasses.replace(about, model=recorded_name(model))
        with self.building(source, taxonomy, about, precision=precision, replace=replace) as index:
            learn(index, learns=not trained_on or trained_on == source.split_hash, accuracy=accuracy, k=k)
        return self.opened()

    def check(self) -> str:
        """What was found whole, in words."""
        with self.servers.reading() as session:
            gallery = self._index(session).gallery
            assert isinstance(gallery, PostgresGallery)
            return check(session, gallery)

    def forget(self, case_ids: Sequence[str]) -> list[str]:
        """Give up the space of removed rows, and say of each table that none is of these cases."""
        with self._writing() as session:
            return forget(session, case_ids)

    @contextmanager
    def updating(self) -> Iterator[CaseIndex]:
        """Change the index in the block: one transaction, which is committed when the block ends well."""
        with self._writing() as session:
            index = self._index(session, writes=True)
            yield index
            self._record(session, index, "current")

    @contextmanager
    def building(
        self,
        source: Source,
        taxonomy: Taxonomy,
        about: About,
        *,
        precision: Precision = "single",
        replace: bool = False,
    ) -> Iterator[CaseIndex]:
        """Fill a new model beside the one that is searched, which it replaces in one step when the block ends well.

        A load that was broken off goes on after the images that have come.
        """
        require_fit(source, taxonomy)
        self._prepare()
        with self._writing() as session:
            self._require_free(session, replace)
            row = self._begun(session, source, taxonomy, about, precision, replace)
            self._fill(session, row, source, taxonomy)
            graph = about.kind == "hnsw"
            with Progress("Building the graph" if graph else "Building the filters"):
                session.run(index_partitions(row["model"], source.dim, precision, graph=graph))
                session.commit()
            index = self._index(session, "loading", writes=True)
            index.tune()
            yield index
            session.rows(f"update {MODELS} set state = 'replaced' where state = 'current'")
            self._record(session, index, "loading")

    def _require_free(self, session: Session, replace: bool) -> None:
        if not replace and self._model(session, "current"):
            raise OutputError(f"{self} has an index. Choose another database, or replace it (--replace).")

    def _begun(
        self,
        session: Session,
        source: Source,
        taxonomy: Taxonomy,
        about: About,
        precision: Precision,
        replace: bool,
    ) -> dict[str, Any]:
        """The model that is filled: one that is there, or a new one."""
        made_by, token = source.provenance, secrets.token_hex(8)
        names = (made_by.weights_hash, made_by.preprocessing_hash, taxonomy.content_hash, made_by.split_hash)
        known = {"key": text_hash(" ".join(names)), "source": source.content_hash, "precision": precision}
        row = self._model(session, "loading")
        if row is not None and {name: row[name] for name in known} != known:
            if not replace:
                raise OutputError(
                    f"{self} has an unfinished load of other images, of which {row['next_image']} came. Go on with it, "
                    "or give it up (--replace)."
                )
            session.run(drop_model(row["model"]))
            row = None
        if row is not None:  # which may be begun again with another kind, or with the model or images elsewhere
            session.rows(f"update {MODELS} set about = %s where model = %s", (Jsonb(asdict(about)), row["model"]))
        else:
            ((model,),) = session.on(0, f"select coalesce(max(model), 0) + 1 from {MODELS}")
            values = known | {
                "model": model, "state": "loading", "generation": token, "dim": source.dim,
                "has_looks": source.looks is not None,
                "taxonomy": format_taxonomy(taxonomy), "columns": Jsonb(list(source.kinds.items())),
                "provenance": Jsonb(asdict(made_by)), "about": Jsonb(asdict(about)), "n_servers": len(self.servers),
            }  # fmt: skip
            insert = f"insert into {MODELS} ({', '.join(values)}, server) values ({'%s, ' * len(values)}%s)"
            for server in session.numbers:
                session.on(server, insert, [*values.values(), server])
            session.run(add_partitions(model, source.dim, precision))
            row = self._model(session, "loading")
        session.commit(token)  # on all servers or on none
        assert row is not None
        return row

    def _fill(self, session: Session, row: dict[str, Any], source: Source, taxonomy: Taxonomy) -> None:
        """Write the images that have not come, a part in a transaction."""
        model, start = row["model"], int(row["next_image"])
        if start:
            logger.info("The load goes on after %d of %d images.", start, source.n_images)
        session.run(give_up_after(model, start, row["next_case"], row["precision"]))
        numbers = start, int(row["next_case"]), int(row["n_cases"])
        filling = Filling(session, model, row["precision"], taxonomy, dict(row["columns"]), *numbers)
        counted = f"update {MODELS} set next_image = %s, next_case = %s, n_images = %s, n_cases = %s where model = %s"
        with Progress("Loading", source.n_images, unit="images") as bar:
            bar.update(start)
            for part in source.parts(start):
                filling.write(part, with_looks=source.looks is not None)
                came = (filling.next_image, filling.next_case, filling.next_image, filling.n_cases)
                session.rows(counted, (*came, model))
                session.commit()
                bar.update(len(part))

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """A session that is the only one to write; others wait."""
        session = self.servers.writing()
        try:
            for address, found in zip(session.addresses, session.each(there, "opening the index"), strict=True):
                if not found:
                    raise DatabaseError(f"{address} has no index. Make one: hierderm index build ... -o {self}")
            self._wait(session, PATIENCE)
            session.rows("select pg_advisory_lock(%s)", (WRITER,))
            session.recover()
            self._drop_replaced(session)
            yield session
        finally:
            session.close()  # which gives up what is not committed, and the lock

    def _wait(self, session: Session, seconds: float) -> None:
        session.rows(f"set lock_timeout = '{seconds:g}s'")

    def _drop_replaced(self, session: Session) -> None:
        """Models that nobody opens any more; one that somebody still reads is left to the next writer."""
        for (model,) in session.rows(f"select distinct model from {MODELS} where state = 'replaced'"):
            self._wait(session, DROP_PATIENCE)  # meanwhile others wait for us
            try:
                session.run(drop_model(model))
                session.commit()
            except LockedError:
                session.each(Connection.rollback, "dropping an old model")
                logger.info("Model %d, which was replaced, is still read: the next change drops it.", model)
            self._wait(session, PATIENCE)
        session.commit()

    def _prepare(self) -> None:
        """Make the extension and the tables where they are missing."""
        for address in self.servers.addresses:
            with address.faults("preparing the database"), psycopg.connect(address.conninfo) as connection:
                connection.execute("select pg_advisory_xact_lock(%s)", (WRITER + 1,))
                create(connection)

    def _model(self, session: Session, state: State) -> dict[str, Any] | None:
        """What all servers say of the model that is searched, or loaded: of a load, what the least of them has."""
        if not all(session.each(there, "opening the index")):
            return None
        select = f"select {', '.join(_COLUMNS)} from {MODELS} where state = %s"
        rows = [dict(zip(_COLUMNS, row, strict=True)) for row in session.rows(select, (state,))]
        if not rows:
            return None
        said = {"servers": [row["server"] for row in rows], "n_servers": rows[0]["n_servers"]}
        here = [number for number, one in enumerate(self.servers.addresses) if str(one) not in session.missing]
        if said != {"servers": here, "n_servers": len(self.servers)}:
            raise DatabaseError(
                f"{self}: the index is on {rows[0]['n_servers']} server(s), which must all be given, in their order; "
                f"these are number {said['servers']} of them, counted from 0."
            )
        return min(rows, key=lambda row: int(row["next_image"]))

    def _index(self, session: Session, state: State = "current", *, writes: bool = False) -> CaseIndex:
        """The index that the table of models describes."""
        row = self._model(session, state)
        if row is None:
            raise DatabaseError(f"{self} has no index, or one that is not loaded yet. Build it: hierderm index build")
        taxonomy, source = parse_taxonomy(row["taxonomy"], source=str(self)), f"{self}: the table of models"
        about: About = checked(row["about"], About, source, DatabaseError)
        provenance: Provenance = checked(row["provenance"], Provenance, source, DatabaseError)
        said = {one.name: row[one.name] for one in fields(Stored)} | {"columns": dict_of(row["columns"], source)}
        stored: Stored = checked(said, Stored, source, DatabaseError)
        calibration: Calibration | None = None
        if row["calibration"] is not None:
            calibration = checked(row["calibration"], Calibration, source, DatabaseError)
            if fault := calibration.fault(taxonomy.n_levels):
                raise DatabaseError(f"{source} is damaged: {fault} Build the index again.")
        gallery = PostgresGallery(
            self.servers, stored, taxonomy, about.image_root, about.kind == "hnsw", about.effort or FIRST_EFFORT,
            session if writes else None, session.missing,
        )  # fmt: skip
        return CaseIndex(gallery, provenance, about, calibration)

    def _record(self, session: Session, index: CaseIndex, state: State) -> None:
        """Write what an index says of itself, under a new generation, and commit: from now on it is searched."""
        gallery = index.gallery
        assert isinstance(gallery, PostgresGallery)
        stored, token = gallery.stored, secrets.token_hex(8)
        values = {
            "state": "current", "generation": token, "n_images": stored.n_images, "n_cases": stored.n_cases,
            "next_image": stored.next_image, "next_case": stored.next_case,
            "columns": Jsonb(list(stored.columns.items())), "about": Jsonb(asdict(index.about)),
            "provenance": Jsonb(asdict(index.provenance)),
            "calibration": Jsonb(asdict(index.calibration)) if index.calibration else None,
        }  # fmt: skip
        changes = ", ".join(f"{name} = %s" for name in values)
        session.rows(f"update {MODELS} set {changes} where state = %s", [*values.values(), state])
        session.commit(token)
        index.gallery = dataclasses.replace(gallery, writes=None)  # which now reads what all see


def kind_for(kind: Kind | Literal["auto"], source: Source) -> Kind:
    """The kind of an index in PostgreSQL; SearchError where it has none of that name, or for such vectors."""
    if kind not in ("auto", "flat", "hnsw"):
        raise SearchError(f"an index in PostgreSQL must be of kind 'auto', 'flat' or 'hnsw', got '{kind}'.")
    if kind == "hnsw" and source.dim > LONGEST_IN_GRAPH:
        raise SearchError(
            f"a graph of pgvector holds vectors of up to {LONGEST_IN_GRAPH} numbers, these have {source.dim}. "
            "Shorten them (hierderm truncate), or build an exact index (--kind flat)."
        )
    fits = source.n_images > FLAT_UP_TO and source.dim <= LONGEST_IN_GRAPH
    return ("hnsw" if fits else "flat") if kind == "auto" else kind


def dict_of(columns: Any, source: str) -> dict[str, bool]:
    """The columns, of pairs in their order, and whether each holds numbers."""
    pairs: list[tuple[str, bool]] = checked(columns, list[tuple[str, bool]], source, DatabaseError)
    return dict(pairs)
