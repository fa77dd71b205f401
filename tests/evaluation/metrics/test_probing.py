from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

import hierderm.evaluation.metrics.probing as module
from hierderm.embeddings import unit_length
from hierderm.errors import EmbeddingError
from hierderm.evaluation.metrics.probing import LinearProbe, few_shot_accuracies, fit_linear_probe, knn_accuracies
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.progress import Progress
from hierderm.taxonomy.tree import taxonomy_from_paths

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")
RNG = np.random.default_rng(0)


def points(n: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    fine = np.arange(n) % 9
    return unit_length(np.eye(9)[fine] + RNG.normal(0, noise, (n, 9))), fine


def test_knn_is_that_of_scikit_learn() -> None:
    (train, train_fine), (test, test_fine) = points(180, 0.5), points(60, 0.5)
    found = knn_accuracies(
        Labelled(test, TREE.ancestors[test_fine].T, np.arange(60)),
        Labelled(train, TREE.ancestors[train_fine].T, np.arange(180) + 100),
    )
    for level in (0, 1):
        model = KNeighborsClassifier(5, metric="cosine").fit(train, TREE.to_level(train_fine, level))
        votes = model.predict_proba(test)
        clear = np.sort(votes, axis=1)[:, -1] > np.sort(votes, axis=1)[:, -2]  # ties are ours: the nearer wins
        right = model.predict(test) == TREE.to_level(test_fine, level)
        np.testing.assert_array_equal(found[level][clear], right[clear])


def cross_entropy(weight: np.ndarray, bias: np.ndarray, standard: np.ndarray, labels: np.ndarray, c: float) -> float:
    """What both solvers minimise, in float64."""
    logits = standard @ weight.T + bias
    loss = (logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]).mean()
    return float(loss + (weight.astype(np.float64) ** 2).sum() / (2 * c * len(labels)))


@pytest.mark.parametrize("n", [400, 60])  # more images than features, and fewer
@pytest.mark.parametrize("c", [0.01, 1.0, 10.0])
def test_the_probe_reaches_the_optimum_of_scikit_learn(n: int, c: float) -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(n) % 5
    mixing = rng.normal(size=(90, 90)) * np.geomspace(10, 0.01, 90)  # correlated features of very unequal spread
    features = (np.eye(5, 90)[labels] + rng.normal(size=(n, 90))) @ mixing + 3
    features[:, 7] = 2.0  # a constant
    standard = StandardScaler().fit_transform(features)
    model = LogisticRegression(C=c, max_iter=20000, tol=1e-8).fit(standard, labels)
    probe = fit_linear_probe(features, labels, penalties=(c,), score=lambda _: 0.0)
    ours = cross_entropy(probe.weight, probe.bias, standard, labels, c)
    assert ours == pytest.approx(cross_entropy(model.coef_, model.intercept_, standard, labels, c), abs=1e-4)
    np.testing.assert_allclose(probe.predict_proba(features), model.predict_proba(standard), atol=0.02)
    assert (probe.predict(features) == model.predict(standard)).mean() > 0.99


def test_every_penalty_of_a_path_is_solved_as_well_as_by_scikit_learn() -> None:
    """Starts that earlier solutions lead to, and the small costs of weak penalties, where an absolute rule stops early."""
    rng = np.random.default_rng(3)
    labels = np.minimum(rng.geometric(0.2, 240), 12) - 1
    features = (1.5 * rng.normal(size=(12, 40))[labels] + rng.normal(size=(240, 40))) * np.geomspace(3, 0.1, 40)
    standard = StandardScaler().fit_transform(features)
    found: list[LinearProbe] = []

    def score(probe: LinearProbe) -> float:
        found.append(probe)
        return probe.penalty

    fit_linear_probe(features, labels, score=score)
    for probe in found:
        model = LogisticRegression(C=probe.penalty, max_iter=20000, tol=1e-8).fit(standard, labels)
        best = cross_entropy(model.coef_, model.intercept_, standard, labels, probe.penalty)
        ours = cross_entropy(probe.weight, probe.bias, standard, labels, probe.penalty)
        assert best * (1 - 1e-5) <= ours <= best * (1 + 3e-4), probe.penalty
        assert (probe.predict(features) == model.predict(standard)).all()


def test_a_fit_shows_its_penalties_and_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Recorded(Progress):
        def update(self, n: int = 1) -> None:
            shown.append(self.what)

    monkeypatch.setattr(module, "Progress", Recorded)
    train, fine = points(90, 0.3)
    fit_linear_probe(train, fine, penalties=(0.1, 1, 1), score=lambda probe: probe.penalty)  # once each
    lines = [f"Linear probe: penalty {number} of 2" for number in (1, 2)]
    assert list(dict.fromkeys(shown)) == lines
    assert all(shown.count(line) > 3 for line in lines)


def test_the_probe_takes_the_penalty_that_validation_prefers() -> None:
    (train, fine), (validation, held_out), (test, truth) = points(180, 0.3), points(90, 0.3), points(90, 0.3)
    probe = fit_linear_probe(train, 10 * fine, validation, 10 * held_out)
    assert probe.classes.tolist() == list(range(0, 90, 10))
    assert (probe.predict(test) == 10 * truth).mean() > 0.8
    np.testing.assert_allclose(probe.logits(test).sum(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(probe.predict_proba(test).sum(axis=1), 1)
    tried: list[float] = []

    def score(probe: LinearProbe) -> float:
        tried.append(probe.penalty)
        return -abs(float(np.log10(probe.penalty)) + 1)  # best at 0.1

    assert fit_linear_probe(train, fine, penalties=(1, 0.01, 10, 0.1), score=score).penalty == 0.1
    assert tried == [0.01, 0.1, 1]  # from strong to weak, until it falls
    assert fit_linear_probe(train, fine).penalty == 1
    with pytest.raises(EmbeddingError, match="at least two classes, got 1"):
        fit_linear_probe(train, np.zeros_like(fine))


def test_wide_features_are_reduced_to_their_first_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten features, the three that vary most carry the class."""
    monkeypatch.setattr(module, "COMPONENTS", 3)
    labels = np.arange(300) % 3
    carriers = np.repeat(np.eye(3)[labels], 3, axis=1)  # three copies each: correlated, so their axes come first
    features = np.hstack([carriers + RNG.normal(0, 0.1, (300, 9)), RNG.normal(size=(300, 1))])
    probe = fit_linear_probe(features, labels, penalties=(1,), score=lambda _: 0.0)
    assert probe.weight.shape == (3, 10) and np.linalg.matrix_rank(probe.weight, tol=1e-4) <= 3
    assert (probe.predict(features) == labels).all()


def test_few_shot_of_perfect_and_of_random_embeddings() -> None:
    (train, fine), (test, truth) = points(90, 1e-3), points(45, 1e-3)
    coarse, at_fine = few_shot_accuracies(train, fine, test, truth, TREE, 5, n_draws=3, rng=np.random.default_rng(0))
    assert (coarse == 1).all() and (at_fine == 1).all()
    noise = unit_length(RNG.normal(size=(2000, 9)))
    guessed = few_shot_accuracies(
        train, fine, noise, np.arange(2000) % 9, TREE, 1, n_draws=5, rng=np.random.default_rng(0)
    )
    assert guessed[1].mean() == pytest.approx(1 / 9, abs=0.03) and guessed[0].mean() == pytest.approx(1 / 3, abs=0.04)


def test_conditions_with_too_few_images_are_left_out() -> None:
    train, fine = points(90, 0.1)
    keep = (fine != 8) | (np.arange(90) < 20)  # two images of F8
    coarse, _ = few_shot_accuracies(
        train[keep], fine[keep], train, fine, TREE, 5, n_draws=2, rng=np.random.default_rng(0)
    )
    assert np.isnan(coarse[fine == 8]).all() and not np.isnan(coarse[fine != 8]).any()
    assert np.isnan(
        few_shot_accuracies(train, fine, train, fine, TREE, 50, n_draws=2, rng=np.random.default_rng(0))[0]
    ).all()
