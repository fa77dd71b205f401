from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hierderm.search.gallery as module
from hierderm.embeddings import EmbeddingTable, Provenance, unit_length
from hierderm.engines import KINDS, automatic_kind
from hierderm.errors import MissingExtraError, SearchError
from hierderm.search.case_index import CaseIndex
from tests.search.toy import DIM, MADE_BY, TREE, circle, random_table, table


def slow_search(
    index: CaseIndex, queries: np.ndarray, k: int, allowed: np.ndarray, out: Sequence[str], how: str, cap: int
) -> list[tuple[str, float]]:
    """Nearest cases by comparing everything with everything."""
    cases, conditions = (index.frame[name].to_numpy() for name in ("case_id", "condition"))
    scored = []
    for case in dict.fromkeys(cases):
        rows = np.flatnonzero(cases == case)
        usable = [row for row in rows if allowed[row]]
        if not usable or case in out:
            continue
        if how == "best":
            score = max(float(index.vectors[row] @ query) for row in usable for query in queries)
        else:
            score = float(unit_length(index.vectors[rows].sum(0)[None])[0] @ unit_length(queries.sum(0)[None])[0])
        probe = queries if how == "best" else unit_length(queries.sum(0)[None])
        nearest = max(usable, key=lambda row: max(float(index.vectors[row] @ query) for query in probe))
        scored.append((case, score, conditions[nearest]))
    scored.sort(key=lambda item: -item[1])
    kept: list[tuple[str, float]] = []
    seen: dict[str, int] = {}
    for case, score, condition in scored:
        if not cap or seen.get(condition, 0) < cap:
            kept.append((case, score))
        seen[condition] = seen.get(condition, 0) + 1
    return kept[:k]


def test_by_hand() -> None:
    # Case a at 0 and 80 degrees, b at 79, c at 42. A query at 1 degree; best pair: a; a query at 41: c.
    index = CaseIndex.from_embeddings(
        table(circle(0, 80, 79, 42), ["a", "a", "b", "c"], [0, 0, 1, 5]), TREE, image_root="/pics"
    )
    hits = index.search(unit_length(circle(1)), k=3).to_list()[0]
    assert [hit.case_id for hit in hits] == ["a", "c", "b"]
    assert hits[0].similarity == pytest.approx(np.cos(np.radians(1)), abs=1e-6)
    assert (hits[0].image_id, hits[1].path, str(hits[1].image_path)) == ("i0", ("C1", "F5"), "/pics/3.png")
    # By mean, case a stands at 40 degrees: nearer to 41.5 than c at 42 is by the best pair of neither.
    found = index.search(unit_length(circle(39)), k=1, aggregation="mean")
    assert found.to_list()[0][0].case_id == "a"
    assert index.search(unit_length(circle(39)), k=1).to_list()[0][0].case_id == "c"


@pytest.fixture(scope="module")
def slowly() -> list[list[tuple[str, float]]]:
    """What a slow search of 600 images finds for each of 40 queries."""
    index, everything = CaseIndex.from_embeddings(random_table(600), TREE), np.ones(600, dtype=bool)
    return [
        slow_search(index, query[None], 10, everything, (), "best", 0) for query in random_table(40, seed=1).embeddings
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_what_a_slow_search_finds(
    kind: str, slowly: list[list[tuple[str, float]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXACT_BELOW", 0)
    index = CaseIndex.from_embeddings(random_table(600), TREE, kind=kind)  # type: ignore[arg-type]
    assert index.about.kind == kind and index.about.recall_at_10 >= 0.9
    found_of = []
    for query, expected in zip(random_table(40, seed=1).embeddings, slowly, strict=True):
        hits = index.search(query[None], k=10).to_list()[0]
        found_of.append(len({hit.case_id for hit in hits} & {case for case, _ in expected}) / 10)
        by_case = dict(expected)
        assert all(hit.similarity == pytest.approx(by_case.get(hit.case_id, hit.similarity), abs=1e-5) for hit in hits)
    assert np.mean(found_of) >= (1.0 if kind == "flat" else 0.9)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000), kind=st.sampled_from(KINDS), k=st.integers(1, 30), cap=st.sampled_from([0, 1, 3]),
    within=st.sampled_from([(), ("C1",), ("F4",), ("C0", "F8")]), tone=st.sampled_from([(), ("3",), ("1", "6.0")]),
    how=st.sampled_from(["best", "mean"]), n_images=st.integers(1, 3),
)  # fmt: skip
def test_filters_are_exact_and_k_come_whenever_k_exist(
    seed: int, kind: str, k: int, cap: int, within: tuple[str, ...], tone: tuple[str, ...], how: str, n_images: int
) -> None:
    index = built(kind)
    rng = np.random.default_rng(seed)
    queries = unit_length(rng.normal(size=(n_images, DIM)))
    out = [str(index.frame["case_id"][rng.integers(len(index))])]
    where = {"fitzpatrick": tone} if tone else None
    allowed = np.array(
        [
            (not within or row.condition in within or TREE.names(0)[TREE.index(str(row.condition)) // 3] in within)
            and (not tone or row.fitzpatrick in [float(t) for t in tone])
            for row in index.frame.itertuples()
        ]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EXACT_BELOW", 0)
        found = index.search(
            queries, k=k, aggregation=how, within=within, where=where, leave_out=[out], per_condition=cap,  # type: ignore[arg-type]
            cases=np.zeros(n_images, dtype=np.int64),
        )  # fmt: skip
    rows = found.rows[0][found.rows[0] >= 0]
    expected = slow_search(index, queries, k, allowed, out, how, cap)
    assert allowed[rows].all() and out[0] not in set(index.frame["case_id"][rows])
    assert len(rows) == len(expected) == len(set(index.frame["case_id"][rows]))
    assert (np.diff(found.similarity[0, : len(rows)]) <= 1e-6).all()
    if kind == "flat":
        assert found.similarity[0, : len(rows)] == pytest.approx([score for _, score in expected], abs=1e-5)
    if cap:
        assert index.frame["condition"][rows].value_counts().max() <= cap


@functools.cache
def built(kind: str) -> CaseIndex:
    return CaseIndex.from_embeddings(random_table(300), TREE, kind=kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_add_and_remove(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXACT_BELOW", 0)
    index = CaseIndex.from_embeddings(random_table(300), TREE, kind=kind)  # type: ignore[arg-type]
    new = random_table(40, seed=5, start=1000)
    index.add(new)
    assert (len(index), index.n_cases) == (340, 170)
    assert index.search(new.embeddings[:1], k=1).to_list()[0][0].image_id == "i1000"
    index.remove(["s1000c0", "s0c7"])
    assert (len(index), index.n_cases) == (336, 168)
    every = index.search(new.embeddings[:1], k=400)
    cases = {hit.case_id for hit in every.to_list()[0]}
    assert len(cases) == 168 and not cases & {"s1000c0", "s0c7"}
    index.add(random_table(2, seed=6, start=5000))
    assert index.search(random_table(2, seed=6, start=5000).embeddings[:1], k=1).to_list()[0][0].case_id == "s5000c0"
    index.remove([f"s0c{k}" for k in range(50) if k != 7])  # a fifth of the graph: it is built anew
    assert index.gallery.n_removed == 0
    assert len({hit.case_id for hit in index.search(new.embeddings[:1], k=400).to_list()[0]}) == index.n_cases == 120


def test_many_queries_are_as_one_by_one() -> None:
    queries = random_table(12, seed=3)
    numbers = np.arange(12) // 2
    together = built("flat").search(queries.embeddings, cases=numbers, k=4, leave_out=["s0c1"] * 6)
    for query in range(6):
        alone = built("flat").search(queries.embeddings[numbers == query], cases=[0, 0], k=4, leave_out=[["s0c1"]])
        np.testing.assert_array_equal(together.rows[query], alone.rows[0])


def test_fewer_than_k() -> None:
    index = CaseIndex.from_embeddings(table(circle(0, 80), ["a", "b"], [0, 1]), TREE)
    found = index.search(unit_length(circle(1)), k=5)
    assert found.rows.tolist() == [[0, 1, -1, -1, -1]] and np.isnan(found.similarity[0, 2:]).all()


def test_the_automatic_kind() -> None:
    assert [automatic_kind(n) for n in (100, 50_001, 5_000_000)] == ["flat", "hnsw", "ivfpq"]


def test_flat_needs_no_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "faiss", None)
    assert CaseIndex.from_embeddings(random_table(20), TREE).search(random_table(2).embeddings[:1], k=3).rows.shape == (
        1,
        3,
    )
    with pytest.raises(MissingExtraError, match="'flat' needs an optional package. Install it with: pip install faiss"):
        CaseIndex.from_embeddings(random_table(20), TREE, kind="hnsw")


def test_refusals() -> None:
    index, new = CaseIndex.from_embeddings(random_table(20), TREE), random_table(4, start=500)
    for change, message in (
        ({"weights_hash": "x"}, "must come from the model of the index .m.: its weights is wwwwwwwwwwww, theirs x"),
        ({"preprocessing_hash": ""}, "its preprocessing is pppppppppppp, theirs unknown"),
    ):
        other = EmbeddingTable(new.embeddings, new.frame, Provenance(**{**MADE_BY.__dict__, **change}))
        with pytest.raises(SearchError, match=message):
            index.add(other)
    with pytest.raises(
        SearchError, match=r"2 image\(s\) would be in the index twice: \['i0', 'i1'\]\. Leave them out, or"
    ):
        index.add(random_table(2))
    with pytest.raises(SearchError, match=r"1 case\(s\) to remove are not in the index: \['nobody'\]"):
        index.remove(["nobody", "s0c1"])
    assert len(index) == 20
    with pytest.raises(SearchError, match="must keep at least one case"):
        index.remove([f"s0c{k}" for k in range(10)])
    with pytest.raises(SearchError, match=r"leave_out must have an entry a query \(4\), got 1"):
        index.search(new.embeddings, leave_out=["s0c1"])
    with pytest.raises(SearchError, match="k must be a whole number from 1"):
        index.search(new.embeddings[:1], k=0)
    with pytest.raises(SearchError, match="aggregation must be 'best' or 'mean', got 'sum'"):
        index.search(new.embeddings[:1], aggregation="sum")  # type: ignore[arg-type]
    with pytest.raises(SearchError, match="has no image 'i99'"):
        index.gallery.image_row("i99")
    with pytest.raises(SearchError, match="kind must be 'auto' or one of"):
        CaseIndex.from_embeddings(new, TREE, kind="tree")  # type: ignore[arg-type]
    with pytest.raises(SearchError, match="made with another taxonomy"):
        CaseIndex.from_embeddings(EmbeddingTable(new.embeddings, new.frame, Provenance(taxonomy_hash="other")), TREE)
    with pytest.raises(SearchError, match="at least one image"):
        CaseIndex.from_embeddings(new.select(np.zeros(4, dtype=bool)), TREE)
    strange = new.frame.assign(condition="F99")
    with pytest.raises(SearchError, match=r"1 condition\(s\) are not in the taxonomy of the index: \['F99'\]"):
        index.add(EmbeddingTable(new.embeddings, strange, MADE_BY))
