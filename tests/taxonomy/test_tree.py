"""The tree, on one drawn by hand:

        A           B
       / \\          |
      a   b         c        levels: top, middle
     /|   |        / \\
    1 2   3       4   5      conditions
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierderm.errors import TaxonomyError
from hierderm.taxonomy.nodes import Node
from hierderm.taxonomy.tree import Taxonomy, taxonomy_from_paths

PATHS = [("A", "a", "one"), ("A", "a", "two"), ("A", "b", "three"), ("B", "c", "four"), ("B", "c", "five")]


@pytest.fixture
def tree() -> Taxonomy:
    return taxonomy_from_paths(PATHS, ("top", "middle", "condition"), id="hand")


def test_ancestors(tree: Taxonomy) -> None:
    assert tree.ancestors.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [1, 2, 4]]
    assert tree.to_level([4, 0], 1).tolist() == [2, 0]


def test_lowest_common_ancestor_height_and_distance(tree: Taxonomy) -> None:
    # one-one 0; one-two share a: 1; one-three share A: 2; one-four share only the root: 3
    assert tree.lca_height[0].tolist() == [0, 1, 2, 3, 3]
    assert (tree.tree_distance == 2 * tree.lca_height).all()
    assert (tree.lca_height == tree.lca_height.T).all()


def test_tree_distance_equals_a_walk_up_both_sides(tree: Taxonomy) -> None:
    def walk(first: int, second: int) -> int:
        steps, level = 0, tree.fine_level
        while first != second and level >= 0:
            steps += 2
            parents = [node.parent for node in tree.levels[level]]
            first, second, level = parents[first], parents[second], level - 1
            if level < 0:
                break
        return steps

    for i in range(5):
        for j in range(5):
            assert tree.tree_distance[i, j] == walk(i, j)


def test_coarse_probabilities_are_sums_of_fine_ones(tree: Taxonomy) -> None:
    fine = np.array([[0.1, 0.2, 0.3, 0.25, 0.15]])
    np.testing.assert_allclose(tree.sum_up(fine, 0), [[0.6, 0.4]])
    np.testing.assert_allclose(tree.sum_up(fine, 1), [[0.3, 0.3, 0.4]])
    with pytest.raises(TaxonomyError, match=r"must have shape \(n, 5\), got \(1, 4\)"):
        tree.sum_up(fine[:, :4])


def test_keep_drops_categories_without_conditions(tree: Taxonomy) -> None:
    kept = tree.keep(["one"])
    assert kept.names() == ("one",)
    assert kept.names(0) == ("A",)
    assert kept.ancestors.tolist() == [[0, 0, 0]]
    with pytest.raises(TaxonomyError, match="at least one condition must be kept, got none"):
        tree.keep([])


def test_lookup_folds_and_suggests() -> None:
    tree = taxonomy_from_paths([("X", "Lichen planus/lichenoid"), ("X", "Kaposi's sarcoma")], ("c", "f"), id="t")
    assert tree.find("  LICHEN  plánus/\u200blichenoid ") == 0
    assert tree.find("kaposi's\xa0sarcoma") == 1
    for other in (
        "lichen planus lichenoid",
        "kaposis sarcoma",
        "not Kaposi's sarcoma",
        "¬Kaposi's sarcoma",
        "не Kaposi's sarcoma",
    ):
        assert tree.find(other) is None
    with pytest.raises(
        TaxonomyError, match="f 'Lichen plans lichenoid' is not in taxonomy 't'. Closest: 'Lichen planus"
    ):
        tree.index("Lichen plans lichenoid")


def test_spellings_that_mean_another_thing_are_never_joined() -> None:
    """Signs, scripts, marks that are letters, digits: each a condition of its own."""
    names = [
        "Wart (HPV+)", "Wart (HPV-)", "Wart (HPV)", "Breslow <1 mm", "Breslow >1 mm", "Breslow 1 mm", "Breslow ≤1 mm",
        "Псориаз", "Экзема", "лишай", "лишаи", "湿疹", "乾癬", "아토피", "습진", "اكزيما", "صدفية", "कि", "कु", "क", "か", "が",
        "grade 1", "grade 2", "grade ²", "grade ½", "C++", "C#", "C", "A/B", "A B", "AB", "nævus", "naevus", "?", "!", "α", "β",
    ]  # fmt: skip
    tree = taxonomy_from_paths([("X", name) for name in names], ("c", "f"), id="t")
    assert tree.names() == tuple(names)
    assert tree.encode(names).tolist() == list(range(len(names)))


def test_spellings_that_are_joined_are_named(caplog: pytest.LogCaptureFixture) -> None:
    names = [
        "Nævus",
        "NÆVUS",
        "Acné",
        "acne",
        "Acne\u0301",
        "Straße",
        "STRASSE",
        "Νόσος",
        "ΝΟΣΟΣ",
        "Lupus\u2028tumidus",
        "lupus tumidus",
    ]
    tree = taxonomy_from_paths([("X", name) for name in names], ("c", "f"), id="t")
    assert tree.names() == ("Nævus", "Acné", "Straße", "Νόσος", "Lupus\u2028tumidus")
    assert "t: 5 spelling(s) of one f joined: 'Nævus' = 'NÆVUS', 'Acné' = 'acne' = 'Acne\u0301'" in caplog.text


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (
            ((Node("A"),), (Node("x", 0), Node("X ", 0))),
            "must be one line, not empty, with no space around it, got 'X '",
        ),
        (((Node("A"),), (Node("x", 0), Node("X", 0))), "f 'X' names both 'x' and 'X'"),
        (((Node("A"),), (Node("x", 0), Node("y", 0, synonyms=("X",)))), "f 'X' names both 'x' and 'y'"),
        (((Node("A"),), (Node("x", 0, synonyms=("a|b",)),)), "synonyms and codes of 'x' must not hold '|'"),
        (((Node("A"), Node("B")), (Node("x", 0),)), r"each node above must have a f, number\(s\) \[1\] have none"),
        (((Node("A"),), (Node("x", 0), Node("y", 3))), "'y' must have a parent above"),
        (((Node("A"),), (Node("x", 0), Node("\u200b", 0))), "must be one line, not empty"),
    ],
)
def test_a_tree_that_no_file_could_hold_is_none(levels: tuple[tuple[Node, ...], ...], message: str) -> None:
    with pytest.raises(TaxonomyError, match=message):
        Taxonomy("t", "1", ("c", "f"), levels)
    for id, names in (("", ("c", "f")), ("a\u2028b", ("c", "f")), ("t", ("c,d", "f")), ("t", ("c", "c"))):
        with pytest.raises(TaxonomyError, match="must be one line, neither empty|must have a name of its own"):
            Taxonomy(id, "1", names, ((Node("A"),), (Node("x", 0),)))


def test_two_parents_are_refused() -> None:
    with pytest.raises(TaxonomyError, match="f 'x' has two parents, 'A' and 'B'"):
        taxonomy_from_paths([("A", "x"), ("B", "x")], ("c", "f"), id="t")


def test_the_hash_depends_on_names_and_parents_only(tree: Taxonomy) -> None:
    same = taxonomy_from_paths(PATHS, ("top", "middle", "condition"), id="other", version="2")
    moved = taxonomy_from_paths([*PATHS[:2], ("B", "c", "three"), *PATHS[3:]], tree.level_names, id="hand")
    assert same.content_hash == tree.content_hash != moved.content_hash


def test_render(tree: Taxonomy) -> None:
    assert tree.render({"one": 3}).splitlines()[:4] == ["A", "  a", "    one  [3 images]", "    two  [0 images]"]
    assert tree.summary().endswith("2 x top, 3 x middle, 5 x condition")


def test_levels_by_name(tree: Taxonomy) -> None:
    assert [tree.level_number(name) for name in ("coarse", "middle", "fine", "condition")] == [0, 1, 2, 2]
    assert list(tree.known_levels) == ["coarse", "fine", "top", "middle", "condition"]
    with pytest.raises(TaxonomyError, match="has the levels coarse, fine, top, middle, condition, got 'bottom'"):
        tree.level_number("bottom")


@given(st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=20))
def test_sums_up_the_tree_keep_the_total(places: list[tuple[str, int, int]]) -> None:
    paths = [(top, f"{top}{middle}", f"{top}{middle}{leaf}") for top, middle, leaf in places]
    tree = taxonomy_from_paths(paths, ("a", "b", "c"), id="random")
    probabilities = np.random.default_rng(0).dirichlet(np.ones(tree.size(-1)), size=3)
    for level in range(3):
        np.testing.assert_allclose(tree.sum_up(probabilities, level).sum(axis=1), 1)


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (("top", "coarse", "leaf"), "level 2 of 3 must not be called 'coarse'"),
        (("top", "Fine", "leaf"), "level 2 of 3 must not be called 'Fine'"),
        (("tree", "middle", "leaf"), "level 1 of 3 must not be called 'tree'"),
        (("fine", "middle", "coarse"), "level 1 of 3 must not be called 'fine'"),
        (("coarse", "middle", "fine"), ""),
        (("coarse",), ""),
        (("fine",), ""),
    ],
)
def test_levels_never_have_the_names_of_others(names: tuple[str, ...], fault: str) -> None:
    """Results name the ends of any tree 'coarse' and 'fine': a middle level of that name would take their place."""
    paths = [tuple(f"{level}{k}" for level in range(len(names))) for k in range(2)]
    if fault:
        with pytest.raises(TaxonomyError, match=fault):
            taxonomy_from_paths(paths, names, id="t")
    else:
        assert taxonomy_from_paths(paths, names, id="t").level_names == names


@given(st.lists(st.integers(0, 8), min_size=1))
def test_levels_on_which_nothing_differs(fine: list[int]) -> None:
    tree = taxonomy_from_paths([(f"B{k // 6}", f"C{k // 3}", f"F{k}") for k in range(9)], ("a", "b", "c"), id="t")
    alike = [level for level, size in enumerate((6, 3, 1)) if len({k // size for k in fine}) == 1]
    assert tree.levels_of_one_node(np.array(fine)) == tuple(alike)


def test_a_condition_that_stands_higher_up_repeats_itself(caplog: pytest.LogCaptureFixture) -> None:
    """B ends at the top, m in the middle; the only child 'one' of 'a' is another name, and 'C' has two children."""
    paths = [("A", "a", "one"), ("A", "m", ""), ("B", "", ""), ("C", "k", "C"), ("C", "k", "two")]
    tree = taxonomy_from_paths(paths, ("top", "middle", "condition"), id="unequal")
    assert "unequal: 2 path(s) end early; the last node repeats itself below: m, B" in caplog.text
    assert tree.names() == ("one", "m", "B", "C", "two") and tree.names(1) == ("a", "m", "B", "k")
    repeats = [tree.repeats(level).tolist() for level in range(3)]
    assert repeats == [[False] * 3, [False, False, True, False], [False, True, True, False, False]]
    assert tree.path_length.tolist() == [3, 2, 1, 3, 3]
    assert (tree.repeats(-1) == tree.repeats(2)).all()
    with pytest.raises(TaxonomyError, match="a name must be one line, not empty"):
        taxonomy_from_paths([("", "", "")], ("top", "middle", "condition"), id="none")
    with pytest.raises(TaxonomyError, match="a name must be one line, not empty"):
        taxonomy_from_paths([("A", "", "one")], ("top", "middle", "condition"), id="gap")
