"""Is one model better than another? Paired differences on the same cases, tests, and many comparisons at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hierderm.errors import EmbeddingError
from hierderm.evaluation.catalogue import Key, direction
from hierderm.evaluation.evaluation import Evaluation, known
from hierderm.evaluation.inference.bootstrap import interval
from hierderm.types import FloatArray

PERMUTATIONS = 2000


@dataclass(frozen=True)
class Difference:
    """`model` minus `reference` in one metric, with the paired interval.

    Attributes:
        level: As of `Metric`.
        name: As of `Metric`.
        model: Name of the first model.
        reference: Name of the other one.
        value: The difference.
        low: Lower end of its interval.
        high: Upper end.
        p_value: Two-sided, of a difference this large where there is none.
        p_adjusted: The same, allowing for all comparisons it was made with (Holm); nan where it was not adjusted.
    """

    level: str
    name: str
    model: str
    reference: str
    value: float
    low: float
    high: float
    p_value: float = float("nan")
    p_adjusted: float = float("nan")

    @property
    def better(self) -> bool:
        """Whether the interval lies wholly on the better side of 0."""
        return bool(self.high < 0) if direction(self.name) == "lower" else bool(self.low > 0)

    @property
    def worse(self) -> bool:
        """Whether the interval lies wholly on the worse side of 0."""
        return bool(self.low > 0) if direction(self.name) == "lower" else bool(self.high < 0)

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.better or self.worse

    def to_dict(self) -> dict[str, Any]:
        """The difference for JSON.

        Returns:
            Its fields, with None for nan.
        """
        return {**known(self.__dict__), "significant": self.significant}


def paired_difference(model: Evaluation, reference: Evaluation, key: Key, confidence: float) -> Difference | None:
    """`model` minus `reference` on the same draws of the same cases.

    The p-value is that of a permutation test where the metric is a mean over images, else that of the bootstrap.

    Args:
        model: One evaluation.
        reference: Another, of the same images with as many bootstrap rounds.
        key: Level and name of the metric.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        The difference; None where either lacks the metric or its interval.

    Raises:
        EmbeddingError: The evaluations are of other images or other numbers of rounds.
    """
    first, second = model.get(key), reference.get(key)
    if first is None or second is None or np.isnan(first.value) or np.isnan(second.value):
        return None
    if key not in model.replicates or key not in reference.replicates:
        return None  # a description of the embeddings, without an interval
    same = np.array_equal(model.case_ids, reference.case_ids)
    if not same or len(model.replicates[key]) != len(reference.replicates[key]):
        raise EmbeddingError("a paired difference needs both models on the same images and bootstrap rounds.")
    value, rounds = first.value - second.value, model.replicates[key] - reference.replicates[key]
    low, high = interval(value, rounds, confidence)
    p_value = bootstrap_p_value(value, rounds)
    if key in model.per_image and key in reference.per_image:
        ours, theirs = model.per_image[key], reference.per_image[key]
        if np.array_equal(np.isnan(ours), np.isnan(theirs)):
            p_value = permutation_p_value(ours - theirs, model.case_ids)
    return Difference(*key, model.model, reference.model, value, low, high, p_value)


def bootstrap_p_value(value: float, rounds: FloatArray) -> float:
    """How often the centred replicates are as far from 0 as `value`, two-sided; nan without replicates."""
    known_rounds = rounds[~np.isnan(rounds)]
    if not len(known_rounds):
        return float("nan")
    as_far = np.abs(known_rounds - known_rounds.mean()) >= abs(value) - 1e-12
    return float((as_far.sum() + 1) / (len(known_rounds) + 1))


def permutation_p_value(
    differences: FloatArray, case_ids: npt.NDArray[np.str_], n_permutations: int = PERMUTATIONS, seed: int = 0
) -> float:
    """Sign-flip test over cases, two-sided: how often swapping the two models at random in each case does as much.

    `differences`: of each image, shape (n_images,), nan where not defined (Fisher 1935; Phipson and Smyth 2010 for the
    added one). Exact but for the number of permutations, whatever the distribution.
    """
    defined = ~np.isnan(differences)
    _, case = np.unique(case_ids[defined], return_inverse=True)
    sums = np.bincount(case, differences[defined])
    if not sums.any():
        return 1.0
    signs = np.random.default_rng(seed).integers(0, 2, (n_permutations, len(sums)), dtype=np.int8) * 2 - 1
    as_far = np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12
    return float((as_far.sum() + 1) / (n_permutations + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of several tests (Holm 1979): any below 0.05 is wrong with 5 % in all of them together.

    Worked example: [0.01, 0.04, 0.03] gives [0.03, 0.06, 0.06]. nan stays nan and does not count.
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(len(values), np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1) if len(order) else []
    return adjusted.tolist()


def adjusted(differences: Sequence[Difference]) -> list[Difference]:
    """Adjust the p-values of differences for their number (Holm 1979).

    Args:
        differences: Those that are shown together.

    Returns:
        The same, each with its `p_adjusted`.
    """
    together = holm([difference.p_value for difference in differences])
    return [replace(d, p_adjusted=p) for d, p in zip(differences, together, strict=True)]
