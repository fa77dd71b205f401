"""What training cases teach on frozen embeddings: nearest neighbours, a linear probe, few-shot prototypes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax

from hierderm.embeddings import unit_length
from hierderm.errors import EmbeddingError
from hierderm.evaluation.metrics.blocks import nearest_items
from hierderm.evaluation.metrics.ranking import K_VOTE, Labelled, labels_at, votes_are_right
from hierderm.progress import Progress
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import FloatArray, Floats, IntArray, Vectors

PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)  # inverse strengths of the probe's L2 penalty
COMPONENTS = 2048  # principal components that a probe of wider features is fitted on
TOLERANCE = 1e-6  # relative fall of the probe's objective in an iteration at which the solver stops


def knn_accuracies(test: Labelled, train: Labelled) -> list[FloatArray]:
    """For each level, coarse first: 1 where most of the 5 nearest training images are right, shape (n_images,)."""
    nearest = nearest_items(test, train, k=K_VOTE)
    return [
        votes_are_right(labels_at(train_labels, nearest), labels)
        for labels, train_labels in zip(test.labels, train.labels, strict=True)
    ]


@dataclass(frozen=True)
class LinearProbe:
    """A fitted multinomial logistic regression on standardised features.

    Attributes:
        weight: Of the standardised features, shape (n_classes, dim), float32; each column sums to 0.
        bias: Shape (n_classes,), float32; sums to 0.
        classes: The class of each row of `weight`, ascending, shape (n_classes,), int64.
        penalty: Inverse strength of the L2 penalty, > 0.
        centre: Mean of each feature in training, shape (dim,), float32.
        spread: Standard deviation of each feature in training, shape (dim,), float32, 1 where the feature is constant.
    """

    weight: Vectors
    bias: Vectors
    classes: IntArray
    penalty: float
    centre: Vectors
    spread: Vectors

    def logits(self, features: Floats) -> Vectors:
        """Centred logits of `classes`, shape (n, n_classes), float32: each row sums to 0."""
        return np.asarray(_standardised(features, self.centre, self.spread) @ self.weight.T + self.bias)

    def predict_proba(self, features: Floats) -> FloatArray:
        """Probabilities of `classes`, shape (n, n_classes), rows summing to 1."""
        return np.asarray(softmax(self.logits(features).astype(np.float64), axis=1))

    def predict(self, features: Floats) -> IntArray:
        """The most probable class of each row, shape (n,)."""
        return np.asarray(self.classes[self.logits(features).argmax(axis=1)])


def fit_linear_probe(
    train: Floats,
    labels: IntArray,
    validation: Floats | None = None,
    validation_labels: IntArray | None = None,
    *,
    penalties: Sequence[float] = PENALTIES,
    score: Callable[[LinearProbe], float] | None = None,
) -> LinearProbe:
    """Multinomial logistic regression with the L2 penalty that scores best on validation.

    It minimises the mean cross-entropy plus |weight|^2 / (2 * penalty * n), the bias free, on standardised features, as
    scikit-learn's LogisticRegression(C=penalty) does for three classes or more. Penalties are tried from strong to
    weak, until the score falls, each from where the solutions before it lead. The solver is L-BFGS along the principal
    axes of the features, scaled by the curvature at its start; of more than 2048 axes the first 2048 are used. A bar
    shows penalty and step where the fit takes longer than two seconds.

    Args:
        train: Features, shape (n, dim).
        labels: Their classes, shape (n,), int.
        validation: Features that choose the penalty, shape (n_validation, dim).
        validation_labels: Their classes, shape (n_validation,).
        penalties: Inverse strengths to try, > 0; without `validation` and `score` only 1 is used.
        score: What to choose by, higher is better; by default accuracy on `validation`.

    Returns:
        The probe of the best penalty, of equal ones that of the strongest.

    Raises:
        EmbeddingError: `labels` are all of one class.
    """
    classes, classed = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise EmbeddingError(f"a linear probe needs images of at least two classes, got {len(classes)}.")
    if score is None and validation is not None:
        score = partial(_accuracy, validation, validation_labels)
    mean, deviation = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    constant = deviation < 1e-10 * np.maximum(np.abs(mean), 1e-10)
    centre, spread = mean.astype(np.float32), np.where(constant, 1, deviation).astype(np.float32)
    standard = _standardised(train, centre, spread)
    axes = _principal_axes(standard)
    problem = _Problem(standard @ axes, classed, len(classes))
    best, best_score = None, -np.inf
    tried = sorted(set(penalties)) if score is not None else [1.0]
    with Progress("Linear probe", unit="steps") as bar:
        for number, penalty in enumerate(tried, 1):
            bar.what = f"Linear probe: penalty {number} of {len(tried)}"
            centred = problem.solve(penalty, bar.update)
            weight, bias = (axes @ centred[:-1]).T.astype(np.float32), centred[-1].astype(np.float32)
            probe = LinearProbe(weight, bias, classes, float(penalty), centre, spread)
            value = 0.0 if score is None else score(probe)
            if value < best_score:
                break
            if value > best_score:
                best, best_score = probe, value
    assert best is not None  # the first penalty always scores above minus infinity
    return best


def _accuracy(features: Floats, labels: IntArray | None, probe: LinearProbe) -> float:
    return float((probe.predict(features) == labels).mean())


def _standardised(features: Floats, centre: Floats, spread: Floats) -> Vectors:
    return np.asarray((features - centre) / spread, dtype=np.float32)


def _principal_axes(standard: Vectors) -> Vectors:
    """Orthonormal axes of the features, shape (dim, n_axes), by the variance along each, largest first."""
    n, dim = standard.shape
    if dim <= n:
        _, axes = np.linalg.eigh(standard.T @ standard)
    else:  # the same axes from the smaller matrix of products between images
        lengths, images = np.linalg.eigh(standard @ standard.T)
        kept = lengths > 1e-6 * lengths.max()
        axes = standard.T @ (images[:, kept] / np.sqrt(lengths[kept]))
    return np.ascontiguousarray(axes[:, : -COMPONENTS - 1 : -1])


class _Problem:
    """The penalised cross-entropy of features along their principal axes; a solution has shape (n_axes + 1, n_classes).

    The last row of a solution is the bias. Products are float32, sums over images and the solver float64.
    """

    def __init__(self, components: Vectors, labels: IntArray, n_classes: int) -> None:
        self.features = np.hstack([components, np.ones((len(components), 1), dtype=np.float32)])
        self.labels, self.rows, self.n_classes = labels, np.arange(len(labels)), n_classes
        self.solved: list[tuple[float, FloatArray]] = []  # logarithms of penalties, and their solutions

    def solve(self, penalty: float, progress: Callable[[], object]) -> FloatArray:
        """The solution, centred over the classes; `progress` is called after each step."""
        strength = np.full((self.features.shape[1], 1), 1 / penalty)
        strength[-1] = 0  # the bias is not penalised
        start = min(self._starts(penalty), key=lambda start: self._cost(start, strength)[0])
        probabilities = self._cost(start, strength)[1]
        curvature = (self.features**2).T @ (probabilities * (1 - probabilities)) + strength
        scale: FloatArray = 1 / np.sqrt(np.maximum(curvature, 1e-6 * len(self.labels)))

        def objective(scaled: FloatArray) -> tuple[float, FloatArray]:
            solution = scaled.reshape(scale.shape) * scale
            cost, probabilities = self._cost(solution, strength)
            probabilities[self.rows, self.labels] -= 1
            gradient = self.features.T @ probabilities + strength * solution
            progress()
            return cost, (gradient * scale).ravel()

        found = minimize(
            objective,
            (start / scale).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 1000, "ftol": TOLERANCE, "gtol": 0.0},
        )
        solution = found.x.reshape(scale.shape) * scale
        self.solved.append((np.log(penalty), solution - solution.mean(axis=1, keepdims=True)))
        return self.solved[-1][1]

    def _starts(self, penalty: float) -> list[FloatArray]:
        """Where to start: the solution before, and where the two before lead; at first the classes' shares alone."""
        if not self.solved:
            start = np.zeros((self.features.shape[1], self.n_classes))
            start[-1] = np.log(np.bincount(self.labels, minlength=self.n_classes) / len(self.labels))
            return [start]
        place, last = self.solved[-1]
        ahead = [last + (np.log(penalty) - place) / (place - at) * (last - before) for at, before in self.solved[-2:-1]]
        return [last, *ahead]

    def _cost(self, solution: FloatArray, strength: FloatArray) -> tuple[float, Vectors]:
        """What is minimised, times the number of images, and the class probabilities, shape (n, n_classes)."""
        logits = self.features @ solution.astype(np.float32)
        logits -= logits.max(axis=1, keepdims=True)
        label_logit = logits[self.rows, self.labels].astype(np.float64)
        powers = np.exp(logits, out=logits)
        totals = powers.sum(axis=1)
        powers /= totals[:, None]
        cost = (np.log(totals, dtype=np.float64) - label_logit).sum() + (strength * solution**2).sum() / 2
        return float(cost), powers


def few_shot_accuracies(
    train: Floats,
    train_fine: IntArray,
    test: Floats,
    test_fine: IntArray,
    taxonomy: Taxonomy,
    shots: int,
    *,
    n_draws: int,
    rng: np.random.Generator,
) -> list[FloatArray]:
    """For each level, coarse first: how often each test image is right from `shots` images a condition.

    Each draw takes that many training images of every condition that has them; a test image goes to the condition
    whose mean image has the highest cosine (a prototype classifier: Snell et al. 2017, arXiv 1703.05175, on frozen
    embeddings). Shares over the draws, shape (n_images,), nan for images whose condition has too few images.
    """
    members = {number: np.flatnonzero(train_fine == number) for number in np.unique(train_fine)}
    known = np.array([number for number, rows in members.items() if len(rows) >= shots], dtype=np.int64)
    eligible = np.isin(test_fine, known)
    hits = [np.full(len(test), np.nan) for _ in range(taxonomy.n_levels)]
    if len(known) < 2 or not eligible.any():
        return hits
    for level_hits in hits:
        level_hits[eligible] = 0.0
    for _ in range(n_draws):
        chosen = [rng.choice(members[number], shots, replace=False) for number in known]
        prototypes = unit_length(np.stack([train[rows].mean(axis=0) for rows in chosen]))
        predicted = known[(test[eligible] @ prototypes.T).argmax(axis=1)]
        for level, level_hits in enumerate(hits):
            right = taxonomy.to_level(predicted, level) == taxonomy.to_level(test_fine[eligible], level)
            level_hits[eligible] += right / n_draws
    return hits
