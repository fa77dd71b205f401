"""The estimator: scikit-learn's own checks, what a tree changes, and what is refused."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from hierderm import TreeEmbedding, load_taxonomy, taxonomy_from_paths
from hierderm.errors import TaxonomyError
from hierderm.training.tree_analysis import TreeAnalysis

PATHS = [(f"C{k // 3}", f"F{k}") for k in range(9)]
TREE = taxonomy_from_paths(PATHS, ("category", "condition"), id="t")
FINE = np.repeat(np.arange(9), 12)
LABELS = np.array([f"F{k}" for k in FINE])


def planted(seed: int = 0) -> np.ndarray:
    """Features in which conditions of one category lie together."""
    rng = np.random.default_rng(seed)
    centres = 3 * np.random.default_rng(1).normal(size=(3, 8))[np.arange(9) // 3] + np.random.default_rng(2).normal(
        size=(9, 8)
    )
    return centres[FINE] + rng.normal(size=(len(FINE), 8))


def test_the_checks_of_scikit_learn() -> None:
    results = check_estimator(TreeEmbedding(), on_skip=None)
    assert len(results) > 40
    skipped = {row["check_name"]: row["exception"] for row in results if row["status"] == "skipped"}
    assert set(skipped) <= {"check_array_api_input"}, skipped


def test_it_is_the_closed_form_of_the_package() -> None:
    model = TreeEmbedding(TREE, shrinkage=0.4, strength=10, probability_share=0.4, probability_temperature=3).fit(
        planted(), LABELS
    )
    found = TreeAnalysis(planted(), FINE, TREE).fit(
        shrinkage=0.4, decay=1, strength=10, probability_share=0.4, probability_temperature=3
    )
    np.testing.assert_allclose(model.transform(planted(3)), found.embed(planted(3)))
    assert (model.predict(planted(3)) == LABELS).mean() > 0.8
    np.testing.assert_allclose(np.linalg.norm(model.transform(planted(3)), axis=1), 1)
    assert len(model.get_feature_names_out()) == model.transform(planted(3)).shape[1]
    again = pickle.loads(pickle.dumps(model))  # noqa: S301
    np.testing.assert_array_equal(again.predict_proba(planted(3)), model.predict_proba(planted(3)))


@pytest.mark.parametrize("given", [TREE, {b: a for a, b in PATHS}, {b: ("top", a) for a, b in PATHS}])
def test_a_tree_in_any_form_draws_categories_together(given: Any) -> None:
    together = np.equal.outer(FINE // 3, FINE // 3) & ~np.equal.outer(FINE, FINE)

    def closeness(taxonomy: Any) -> float:
        vectors = TreeEmbedding(taxonomy, probability_share=0.8).fit(planted(), LABELS).transform(planted(5))
        return float((vectors @ vectors.T)[together].mean())

    assert closeness(given) > closeness(None) + 0.1


def test_probabilities_are_of_the_labels_in_their_order() -> None:
    """The tree's order is another: a condition without images is left out, and labels may be synonyms."""
    tree = load_taxonomy("ham10000")
    labels = np.array(["nv", "mel", "bcc"])[FINE % 3]
    model = TreeEmbedding("ham10000").fit(planted() + 4 * np.eye(8)[FINE % 3], labels)
    assert model.classes_.tolist() == ["bcc", "mel", "nv"] and model.taxonomy_.size(-1) == 3
    assert model.taxonomy_.names() == tuple(tree.names()[k] for k in sorted(tree.encode(["nv", "mel", "bcc"])))
    probabilities = model.predict_proba(planted() + 4 * np.eye(8)[FINE % 3])
    assert (model.classes_[probabilities.argmax(axis=1)] == labels).mean() > 0.9


def test_settings_are_chosen_by_scikit_learn() -> None:
    pipeline = make_pipeline(StandardScaler(), TreeEmbedding(TREE))
    search = GridSearchCV(pipeline, {"treeembedding__shrinkage": [0.05, 1.0]}, cv=GroupKFold(3))
    search.fit(planted(), LABELS, groups=np.arange(len(FINE)))
    assert search.best_score_ > 0.7


@pytest.mark.parametrize(
    ("taxonomy", "labels", "message"),
    [
        (TREE, ["F0", "F77"], "condition 'F77' is not in taxonomy 't'"),
        ({"F0": "C0"}, ["F0", "F1"], r"must have the category of every label in y, it lacks \['F1'\]"),
        ({"F0": "C0", "F1": ("a", "b")}, ["F0", "F1"], r"must have paths of one length, got lengths \[1, 2\]"),
        (TREE, ["F0", "f0"], r"each label must be a condition of its own, \['F0', 'f0'\] name the same"),
    ],
)
def test_what_is_refused(taxonomy: Any, labels: list[str], message: str) -> None:
    with pytest.raises(TaxonomyError, match=message):
        TreeEmbedding(taxonomy).fit(np.eye(4), np.array(labels * 2))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shrinkage", 1.5), ("decay", -1), ("strength", -1), ("probability_share", 1), ("components", 0),
        *(("probability_temperature", value) for value in (0, -1, float("nan"), float("inf"))),
    ],
)  # fmt: skip
def test_a_setting_outside_its_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"a probability_temperature > 0 and .* got .*'{name}': {value}"):
        TreeEmbedding(TREE, **{name: value}).fit(planted(), LABELS)
