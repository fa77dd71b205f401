"""What every gallery must do, whatever keeps it: the same test on each, against the plain one in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hierderm.search.gallery as limits
from hierderm import columns as c
from hierderm.data.look import N_LOOK
from hierderm.data.table import as_text
from hierderm.embeddings import EmbeddingTable, unit_length
from hierderm.errors import HierdermError, SearchError
from hierderm.search.building import describe_index, learn, validation_means
from hierderm.search.case_index import CaseIndex
from hierderm.search.evaluation import evaluate_index
from hierderm.search.finder import CaseFinder, SearchOptions
from hierderm.search.places import place_of
from hierderm.search.proof import remove_and_prove
from tests.postgres import Server
from tests.search.toy import DIM, MADE_BY, TREE, random_table

KEEPERS = ("folder hnsw", "postgres", "postgres half", "postgres hnsw", "postgres two")


def gallery_table(n: int = 300, start: int = 0, seed: int = 0) -> EmbeddingTable:
    """Images with splits, looks, numbers with gaps, text that looks like numbers, and whole numbers beyond a float."""
    plain = random_table(n, seed=seed, start=start)
    number = np.arange(start, start + n)
    rng = np.random.default_rng(seed)
    looks = rng.normal(size=(n, N_LOOK)).astype(np.float32)
    looks[3] = np.nan
    frame = plain.frame.assign(
        fitzpatrick=np.where(number % 7 == 0, np.nan, 1.0 + number % 6),
        lot=np.where(number % 3 == 0, "007", "7"),
        patient=pd.array([pd.NA if k % 5 == 0 else 2**61 + k // 4 for k in number], dtype="Int64"),
        body_site=[["arm", "", "leg, left", "Ärm"][k % 4] for k in number],
        split=[c.VALIDATION if k // 2 % 4 == 0 else c.TRAIN for k in number],
    )
    return EmbeddingTable(plain.embeddings, frame, MADE_BY, looks=looks)


def indexed(table: EmbeddingTable, kind: Any = "flat") -> CaseIndex:
    index = CaseIndex.from_embeddings(table, TREE, kind=kind, model="m", image_root="/root")
    learn(index, learns=True, accuracy=0.5, k=5)
    return index


PLAIN = indexed(gallery_table())


def keep(name: str, servers: tuple[Server, Server], folder: Path) -> str:
    """A place of its own with the index."""
    where, _, how = name.partition(" ")
    if where == "folder":
        place = str(folder / "index")
        (PLAIN if not how else indexed(gallery_table(), how)).save(place)
        return place
    from hierderm.search.postgres.place import PostgresPlace

    place = " ".join(server.new_database() for server in servers[: 2 if how == "two" else 1])
    precision: Any = "half" if how == "half" else "single"
    PostgresPlace(place).save(PLAIN, replace=False, kind="hnsw" if how == "hnsw" else "flat", precision=precision)
    return place


@pytest.fixture(scope="module")
def places(two_servers: tuple[Server, Server], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A place that no test changes, by its keeper."""
    return {name: keep(name, two_servers, tmp_path_factory.mktemp("kept")) for name in KEEPERS}


@pytest.fixture(scope="module")
def opened(places: dict[str, str]) -> dict[str, CaseIndex]:
    return {name: CaseIndex.open(place) for name, place in places.items()}


@pytest.fixture(params=KEEPERS)
def index(request: pytest.FixtureRequest, opened: dict[str, CaseIndex]) -> CaseIndex:
    return opened[request.param]


@pytest.fixture(params=("folder", "postgres hnsw", "postgres two"))
def place(request: pytest.FixtureRequest, two_servers: tuple[Server, Server], tmp_path: Path) -> str:
    """A place that a test may change."""
    return keep(request.param, two_servers, tmp_path)


def exactness(index: CaseIndex) -> float:
    """By how much its similarities may differ from those of the plain one."""
    return 1e-3 if getattr(getattr(index.gallery, "stored", None), "precision", "") == "half" else 1e-5


WITHIN = st.sampled_from([(), ("C1",), ("F4",), ("C0", "F8"), ("C0", "C1", "C2")])
WHERE = st.sampled_from(
    [
        {}, {"fitzpatrick": ["3"]}, {"fitzpatrick": [1, 6.0]}, {"fitzpatrick": [""]}, {"lot": "007"}, {"lot": ["7"]},
        {"patient": [2**61 + 3]}, {"body_site": ["leg, left", ""]}, {"body_site": "Ärm", "lot": "7"}, {"lot": []},
        {"case_id": ["s0c4", "s0c9"]}, {"image_id": ["i8", "i9"]}, {"image_path": "8.png"}, {"condition": ["F1", "F2"]},
    ]
)  # fmt: skip


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000), k=st.integers(1, 30), cap=st.sampled_from([0, 1, 3]), within=WITHIN, where=WHERE,
    how=st.sampled_from(["best", "mean"]), n_images=st.integers(1, 3),
)  # fmt: skip
def test_every_search_finds_the_same(
    index: CaseIndex, seed: int, k: int, cap: int, within: Any, where: Any, how: Any, n_images: int
) -> None:
    rng = np.random.default_rng(seed)
    queries = unit_length(rng.normal(size=(2 * n_images, DIM)))
    asked: dict[str, Any] = {
        "k": k, "within": within, "where": where, "per_condition": cap, "aggregation": how,
        "cases": np.arange(2 * n_images) // n_images, "leave_out": [["s0c3", "nobody"], "s0c11"],
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "EXACT_BELOW", 0)
        found, true = index.search(queries, **asked).to_list(), PLAIN.search(queries, **asked).to_list()
        every = PLAIN.search(queries, **{**asked, "k": 150, "per_condition": 0}).to_list()
    for ours, theirs, possible in zip(found, true, every, strict=True):
        scores = {hit.case_id: hit.similarity for hit in possible}
        assert len(ours) == len(theirs) == len({hit.case_id for hit in ours} & set(scores))
        assert all(hit.similarity <= scores[hit.case_id] + exactness(index) for hit in ours)
        conditions = pd.Series([hit.condition for hit in ours]).value_counts()
        assert not cap or not len(conditions) or conditions.max() <= cap
        if not index.gallery.approximate:
            expected = [hit.similarity for hit in theirs]
            assert [hit.similarity for hit in ours] == pytest.approx(expected, abs=exactness(index))
            if exactness(index) < 1e-4:
                assert [replace(hit, similarity=0.0) for hit in ours] == [
                    replace(hit, similarity=0.0) for hit in theirs
                ]


def test_a_graph_finds_nearly_all(index: CaseIndex) -> None:
    assert index.measure_recall() >= 0.95 and index.about.recall_at_10 >= 0.95
    found, true = (i.search(random_table(40, seed=3).embeddings, k=10) for i in (index, PLAIN))
    shared = [
        len({h.case_id for h in a} & {h.case_id for h in b})
        for a, b in zip(found.to_list(), true.to_list(), strict=True)
    ]
    assert np.mean(shared) >= 9.5


def test_it_is_described_as_the_plain_one(index: CaseIndex) -> None:
    assert (len(index), index.n_cases, index.provenance) == (len(PLAIN), PLAIN.n_cases, PLAIN.provenance)
    assert index.calibration == PLAIN.calibration is not None
    ours, theirs = describe_index(index), describe_index(PLAIN)
    assert [ours[:3], ours[4:]] == [theirs[:3], theirs[4:]] or exactness(index) > 1e-4
    assert index.gallery.columns == PLAIN.gallery.columns
    assert index.gallery.levels_of_one_node == ()
    np.testing.assert_array_equal(index.gallery.fine_at(), PLAIN.gallery.fine_at())
    np.testing.assert_array_equal(index.gallery.count(), PLAIN.gallery.count())
    np.testing.assert_allclose(index.vectors, PLAIN.vectors, atol=exactness(index))
    for name in PLAIN.gallery.columns:
        assert index.gallery.values(name) == PLAIN.gallery.values(name)


def test_rows_are_read_alike(index: CaseIndex) -> None:
    rows = np.array([8, 3, 8, 299, 5])
    ours, theirs = index.gallery, PLAIN.gallery
    np.testing.assert_array_equal(ours.fine_at(rows), theirs.fine_at(rows))
    np.testing.assert_array_equal(ours.cases_at(rows), theirs.cases_at(rows))
    np.testing.assert_array_equal(ours.looks_at(rows), theirs.looks_at(rows))
    np.testing.assert_allclose(ours.vectors_at(rows), theirs.vectors_at(rows), atol=exactness(index))
    assert (
        ours.frame_at(rows).map(as_text).to_numpy().tolist() == theirs.frame_at(rows).map(as_text).to_numpy().tolist()
    )
    assert (ours.case_rows("s0c4"), ours.case_rows("no")) == ([8, 9], [])
    assert ours.image_row("i7") == 7 and ours.path(7) == theirs.path(7)
    assert ours.image_paths(rows) == theirs.image_paths(rows)
    np.testing.assert_array_equal(ours.allowed(where={"lot": "007"}), theirs.allowed(where={"lot": "007"}))
    assert ours.allowed() is None


def test_answers_and_likeness_are_the_same(index: CaseIndex) -> None:
    ours, theirs = CaseFinder(index), CaseFinder(PLAIN)
    rng = np.random.default_rng(4)
    for number in range(12):
        vectors = unit_length(rng.normal(size=(1 + number % 3, DIM)))
        looks = rng.normal(scale=1 + number % 4, size=(len(vectors), N_LOOK)).astype(np.float32)
        options = SearchOptions(k=4, within=["C1"] if number % 5 == 4 else [], per_condition=number % 2)
        found, true = (finder.search_vectors(vectors, options, ["s0c1"], looks=looks) for finder in (ours, theirs))
        assert found.answer is not None and true.answer is not None
        assert found.answer.likeness == pytest.approx(true.answer.likeness, abs=0.05)
        if not index.gallery.approximate and exactness(index) < 1e-4:
            assert (found.answer.node, found.answer.reason, found.answer.given) == (
                true.answer.node, true.answer.reason, true.answer.given,
            )  # fmt: skip
            a, b = found.to_dict(paths=True), true.to_dict(paths=True)
            assert [hit["closer_than"] for hit in a["hits"]] == [hit["closer_than"] for hit in b["hits"]]
    assert index.gallery.closer_than(0.4) == pytest.approx(PLAIN.gallery.closer_than(0.4), abs=2e-3)
    known = index.gallery.case_numbers(["s0c1"])
    own = PLAIN.gallery.looks_at(np.array([2]))
    expected = PLAIN.gallery.look_distance(own, list(PLAIN.gallery.case_numbers(["s0c1"]).values()))
    assert index.gallery.look_distance(own, list(known.values())) == pytest.approx(expected)
    image = CaseFinder(index).search_image_id("i8", SearchOptions(k=3))
    assert (
        [hit.case_id for hit in image.hits]
        == [hit.case_id for hit in theirs.search_image_id("i8", SearchOptions(k=3)).hits]
        or exactness(index) > 1e-4
        or index.gallery.approximate
    )


def test_its_evaluation_is_the_same(index: CaseIndex) -> None:
    queries = gallery_table(60, start=1000, seed=2)
    ours, theirs = (evaluate_index(one, queries, k=5, where={"lot": "7"}, progress=False) for one in (index, PLAIN))
    exact = [metric for metric in theirs.metrics if metric.name.startswith("exact_")]
    assert exact
    for metric in exact:
        same = ours.get((metric.level, metric.name))
        assert same is not None and same.value == pytest.approx(
            metric.value, abs=1e-9 if exactness(index) < 1e-4 else 0.1
        )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"within": "C7"}, "'C7' is not a node of taxonomy 't'."),
        ({"where": {"tone": 1}}, "the index has no column 'tone'."),
        ({"where": {"lot": "07"}}, "column 'lot' has no value '07'. Closest: '007', '7'. It has ['007', '7']."),
        (
            {"where": {"fitzpatrick": "x"}},
            "column 'fitzpatrick' has no value 'x'. It has ['1', '2', '3', '4', '5', '6'].",
        ),
        ({"where": {"patient": 2**61 + 99}}, "column 'patient' has no value '2305843009213694051'."),
        ({"where": 3}, "where must be like {'fitzpatrick': [5, 6]}, got 3."),
        ({"where": {"body_site": "x'); drop table hierderm.models; --"}}, "column 'body_site' has no value 'x'); drop"),
    ],
)
def test_refused_filters(index: CaseIndex, asked: dict[str, Any], message: str) -> None:
    for one in (index, PLAIN):
        with pytest.raises(SearchError) as refused:
            one.search(PLAIN.vectors[:1], **asked)
        assert str(refused.value).startswith(message)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "1e9999999"])
def test_what_can_not_be_stored_is_not_there(index: CaseIndex, text: str) -> None:
    for one in (index, PLAIN):
        with pytest.raises(SearchError, match="has no image"):
            one.gallery.image_row(text)
        for column in ("lot", "case_id", "fitzpatrick"):
            with pytest.raises(SearchError, match="has no value"):
                one.gallery.count(where={column: text})
        assert one.search(PLAIN.vectors[:1], leave_out=[text], k=1).rows.tolist() == [[0]]


def test_other_refusals(index: CaseIndex) -> None:
    with pytest.raises(SearchError, match="has no image 'i99x'. Closest: 'i99'"):
        index.gallery.image_row("i99x")
    with pytest.raises(SearchError, match=r"query vectors must have shape \(n, 8\), got \(1, 3\)"):
        index.search(np.eye(3)[:1])
    other = EmbeddingTable(PLAIN.vectors[:2], PLAIN.frame[:2], replace(MADE_BY, weights_hash="x"))
    with pytest.raises(SearchError, match="its weights is wwwwwwwwwwww, theirs x"):
        index.add(other)


def test_cases_come_and_go_whole(place: str) -> None:
    plain, new = indexed(gallery_table()), gallery_table(40, start=1000, seed=5)
    generations = [place_of(place).generation()]
    changes: tuple[Callable[[CaseIndex], None], ...] = (
        lambda index: index.add(new),
        lambda index: index.remove(["s0c7", "s1000c0", "s0c8"]),  # s0c8 is a validation case
        lambda index: index.add(gallery_table(4, start=7000, seed=6)),
    )
    for change in changes:
        with CaseIndex.updating(place) as index:
            change(index)
        change(plain)
        assert index.search(PLAIN.vectors[:1], k=1).to_list()[0][0].image_id == "i0"  # it can be used after the change
        opened = CaseIndex.open(place)
        assert (len(opened), opened.n_cases) == (len(plain), plain.n_cases)
        assert opened.frame["image_id"].tolist() == plain.frame["image_id"].tolist()
        assert opened.frame["split"].fillna("").tolist() == plain.frame["split"].tolist()
        generations.append(place_of(place).generation())
        queries = random_table(10, seed=8).embeddings
        found, true = (one.search(queries, k=6, where={"lot": ["7", "007"]}).to_list() for one in (opened, plain))
        if not opened.gallery.approximate:
            assert [[hit.image_id for hit in hits] for hits in found] == [
                [hit.image_id for hit in hits] for hits in true
            ]
            same_calibration(opened, plain)
            assert opened.gallery.closer_than(0.3) == pytest.approx(plain.gallery.closer_than(0.3), abs=1e-9)
            assert validation_means(opened) == validation_means(plain)
        np.testing.assert_array_equal(opened.gallery.looks_at(), plain.looks)
    assert len(set(generations)) == 4 and "" not in generations
    assert place_of(place).check()


def same_calibration(ours: CaseIndex, theirs: CaseIndex) -> None:
    """What was learnt through a server, whose sums are rounded otherwise in the last digit."""
    a, b = ours.calibration, theirs.calibration
    assert a is not None and b is not None and a.temperature == pytest.approx(b.temperature, rel=1e-4)
    for one, other in zip(a.rule.levels, b.rule.levels, strict=True):
        assert (one.n_queries, one.answered, one.right) == (other.n_queries, other.answered, other.right)
    assert a.likeness is not None and b.likeness is not None
    assert a.likeness.look == pytest.approx(b.likeness.look) and a.likeness.refused == b.likeness.refused


def test_a_change_that_fails_leaves_all_as_it_was(place: str) -> None:
    before = place_of(place).generation()
    for change, message in (
        (lambda index: index.add(gallery_table(4)), r"4 image\(s\) would be in the index twice: \['i0', 'i1', 'i2', 'i3'\]"),
        (lambda index: index.remove(["nobody", "s0c1"]), r"1 case\(s\) to remove are not in the index: \['nobody'\]"),
        (lambda index: index.remove(sorted(set(index.frame["case_id"]))), "an index must keep at least one case"),
        (lambda index: (index.remove(["s0c1"]), 1 / 0), "division by zero"),
    ):  # fmt: skip
        with pytest.raises((HierdermError, ZeroDivisionError), match=message), CaseIndex.updating(place) as index:
            change(index)
        assert place_of(place).generation() == before and len(CaseIndex.open(place)) == 300


def test_columns_are_joined_as_in_a_table(place: str, caplog: pytest.LogCaptureFixture) -> None:
    plain = indexed(gallery_table())
    text = random_table(2, seed=9, start=2000)
    new = replace(text, frame=text.frame.assign(fitzpatrick=["V", "6"], lot=[7, 8], camera=["a", "b"]))
    plain.add(new)
    with CaseIndex.updating(place) as index:
        index.add(new)
    assert "Column 'fitzpatrick' held numbers, and is text now" in caplog.text
    opened = CaseIndex.open(place)
    for where in ({"fitzpatrick": "6"}, {"fitzpatrick": ["V"]}, {"lot": "8"}, {"lot": 7}, {"camera": ["a", ""]}):
        np.testing.assert_array_equal(opened.gallery.count(where=where), plain.gallery.count(where=where))
    assert opened.gallery.values("fitzpatrick") == plain.gallery.values("fitzpatrick")


def test_cells_of_any_type(place: str) -> None:
    odd: dict[str, Any] = {
        "list": [[1, 2], [1], [1, 2], None],
        "array": [np.array([1, 2])] * 4,
        "mixed": [1, True, "1", 2.5],
        "spaces": [" a ", "a", "b ", " "],
        "date": [pd.Timestamp("2020-01-01"), None, pd.Timestamp("2020-01-02"), pd.Timestamp("2020-01-01")],
        "decimal": [Decimal("1.5"), Decimal("0.10000000000000000001"), None, Decimal(10) ** 30],
        "infinite": [np.inf, -np.inf, np.nan, 1.0],
        "choice": pd.Categorical(["x", "y", None, "x"]),
        "signs'\"%s{}\\": ["'; --", '"', "%s %(a)s {}", "\\x\t\n"],
    }
    table = random_table(4)
    plain = CaseIndex.from_embeddings(replace(table, frame=table.frame.assign(**odd)), TREE)
    if "postgresql" not in place:
        return  # Parquet holds columns of one type
    plain.save(place, replace=True)
    opened = CaseIndex.open(place)
    for column in odd:
        values = plain.gallery.values(column)
        assert opened.gallery.values(column) == values and values
        for text in [*values, *([""] if column in ("list", "date", "spaces") else [])]:
            ours, theirs = (one.gallery.count(where={column: text}) for one in (opened, plain))
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{column} {text}")


def test_a_result_keeps_to_what_was_searched(place: str) -> None:
    index = CaseIndex.open(place)
    found = index.search(PLAIN.vectors[:1], k=3)
    first = found.to_list()[0][0].case_id
    with CaseIndex.updating(place) as changed:
        changed.remove([first])
    assert found.to_pandas()["case_id"][0] == found.to_list()[0][0].case_id == first
    assert found.fine.shape == found.cases.shape == (1, 3)


def test_a_withdrawn_case_is_gone_and_it_is_proven(place: str) -> None:
    lines = remove_and_prove(place_of(place), ["s0c3", "nobody"])
    assert "2 images of 1 cases removed, 298" in lines[0] and "nobody" in lines[1]
    assert lines[-1] == "search: their 2 vectors find other cases only"
    assert CaseIndex.open(place).gallery.n_removed == 0
    assert "0 images of 0 cases removed" in remove_and_prove(place_of(place), ["s0c3"])[0]
    assert not CaseIndex.open(place).gallery.case_numbers("s0c3")


def test_a_place_is_not_replaced_by_mistake(place: str) -> None:
    with pytest.raises(HierdermError, match="replace it"):
        PLAIN.save(place)
    indexed(gallery_table(20)).save(place, replace=True)
    assert len(CaseIndex.open(place)) == 20 and place_of(place).check()
