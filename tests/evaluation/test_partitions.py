from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierderm.config.settings import EvaluationConfig
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable, unit_length
from hierderm.errors import EvaluationWarning
from hierderm.evaluation.evaluation import evaluate
from hierderm.evaluation.inference.groups import groups_of
from hierderm.evaluation.partitions import group_warnings, partition_warnings
from hierderm.evaluation.subject import Subject
from hierderm.taxonomy.tree import taxonomy_from_paths

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")
QUICK = EvaluationConfig(bootstrap_rounds=0, kmeans_seeds=1, permutations=0)


def cases(*rows: tuple[str, int]) -> CaseTable:
    frame = pd.DataFrame(rows, columns=["case_id", "fine"])
    ids = np.arange(len(rows)).astype(str)
    names = [f"F{fine}" for fine in frame["fine"]]
    return CaseTable(frame.assign(image_id=ids, image_path="", condition=names), TREE, Path())


def warned(table: CaseTable) -> dict[str, str]:
    """The warnings by level."""
    embedded = EmbeddingTable(unit_length(np.ones((len(table), 2))), table.frame)
    subject = Subject("m", TREE, QUICK, embedded, table.case_ids)
    return {("coarse" if "coarse level" in text else "fine"): text for text in partition_warnings(subject)}


ONE_CATEGORY = cases(*((f"c{k}", k % 3) for k in range(12)))
ONE_IMAGE_A_CONDITION = cases(*((f"c{k}", k) for k in range(9)))
ONE_CASE_A_CONDITION = cases(*((f"c{k // 2}", k // 2) for k in range(18)))
CROWDED = cases(("a", 0), ("b", 0), ("c", 1), ("d", 3), ("e", 6))
SOUND = cases(*((f"c{k}", k % 9) for k in range(36)))


def test_each_kind_by_hand() -> None:
    assert warned(SOUND) == {}
    assert warned(ONE_CATEGORY).keys() == {"coarse"}
    assert warned(ONE_CATEGORY)["coarse"].startswith(
        "All 12 test images are of one node at the coarse level, 'C0': any embedding scores 1.000 there"
    )
    assert "Each of the 9 nodes at the fine level has one test image: retrieval is undefined there, and clusters that "
    assert "one test image: " in warned(ONE_IMAGE_A_CONDITION)["fine"]
    assert "one test case: " in warned(ONE_CASE_A_CONDITION)["fine"] and len(warned(ONE_CASE_A_CONDITION)) == 1
    assert warned(CROWDED)["fine"].startswith("The 5 test images are of 4 nodes at the fine level, fewer than two of")


@pytest.mark.parametrize("table", [ONE_CATEGORY, ONE_IMAGE_A_CONDITION])
def test_a_perfect_score_of_a_random_embedding_is_warned_of(table: CaseTable) -> None:
    random = unit_length(np.random.default_rng(0).normal(size=(len(table), 4)))
    with pytest.warns(EvaluationWarning, match="These values show nothing"):
        found = evaluate(random, table, TREE, config=QUICK)
    level = "coarse" if table is ONE_CATEGORY else "fine"
    assert found[level, "ami"].value == found[level, "purity"].value == 1
    assert any(f"{level} level" in text for text in found.warnings)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8)), min_size=2, max_size=14))
def test_a_level_on_which_all_embeddings_score_alike_is_named(rows: list[tuple[int, int]]) -> None:
    """Every level where all images are of one node, or no image has another case to find."""
    found = warned(cases(*((f"c{case}", fine) for case, fine in rows)))
    for level, size in (("coarse", 3), ("fine", 1)):
        nodes = {fine // size for _, fine in rows}
        nothing_to_find = all(a == b for a, x in rows for b, y in rows if x // size == y // size)
        if len(nodes) == 1 or nothing_to_find:
            assert "These values show nothing" in found[level]
        else:
            assert "These values show nothing" not in found.get(level, "")


def test_groups_of_one_category_are_named() -> None:
    """Of the sources, 'x' has images of C0 only, and 'y' of several."""
    table = cases(*((f"c{k}", k % 9) for k in range(18)))
    sources = ["x" if k % 9 < 3 else "y" for k in range(18)]
    frame = table.frame.assign(source=sources)
    embedded = EmbeddingTable(unit_length(np.ones((18, 2))), frame)
    (text,) = group_warnings(Subject("m", TREE, QUICK, embedded, table.case_ids), groups_of(frame))
    assert text == (
        "1 group(s) have images of one node at the coarse level: source 'x' (6 image(s)). Purity and agreement are 1.000 "
        "there for any embedding, and show nothing."
    )
    alike = EmbeddingTable(unit_length(np.ones((12, 2))), ONE_CATEGORY.frame.assign(source=["x", "y"] * 6))
    subject = Subject("m", TREE, QUICK, alike, ONE_CATEGORY.case_ids)
    assert group_warnings(subject, groups_of(alike.frame)) == ()  # the warning of the level says so
