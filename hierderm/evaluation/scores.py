"""The scores that a task gives, before there are intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hierderm.evaluation.catalogue import Key
from hierderm.evaluation.inference.influence import GalleryEffect
from hierderm.evaluation.metrics.group_sums import Weights
from hierderm.types import FloatArray, IntArray

TOGETHER, LEAST_ROUNDS, MOST_ROUNDS = 2**19, 8, 512  # weights of a statistic at a time, as rounds within these


@dataclass(frozen=True)
class Statistic:
    """Metrics that are no means over images.

    Attributes:
        keys: Level and name of each metric.
        compute: `compute(weights, rounds)` gives the values of `keys`, shape (n_rounds, n_keys). `weights`: how often
            each test image counts, shape (n_rounds, n_images); `rounds`: numbers of the bootstrap rounds, shape
            (n_rounds,), or None where nothing is resampled.
        resampled: False for a description of the embeddings, without an interval.
    """

    keys: tuple[Key, ...]
    compute: Callable[[Weights, IntArray | None], FloatArray]
    resampled: bool = True

    def values(self, weights: Weights) -> FloatArray:
        """A value for each of `keys` where each image counts so often; `weights`: shape (n_images,)."""
        return np.asarray(self.compute(weights[None], None)[0])

    def replicates(self, draws: Weights, rounds: IntArray) -> FloatArray:
        """The values in bootstrap rounds, shape (n_rounds, n_keys), some rounds at a time.

        `draws`: how often each image counts in each of these rounds, shape (n_rounds, n_images).
        """
        some = max(LEAST_ROUNDS, min(MOST_ROUNDS, TOGETHER // max(1, draws.shape[1])))
        parts = [slice(start, start + some) for start in range(0, len(draws), some)]
        found = [self.compute(draws[part], rounds[part]) for part in parts]
        return np.concatenate([np.empty((0, len(self.keys))), *found])


@dataclass(frozen=True)
class Scores:
    """What a task computes.

    Attributes:
        per_image: Values whose mean is the metric, shape (n_images,), nan where not defined.
        per_case: The same a case, in the order of the sorted case ids.
        gallery_effects: Of the metrics of either kind for which the images (or cases) are the gallery, too.
        statistics: Metrics that are no means.
        details: Curves and tables for the report.
        warnings: What a reader must know before trusting the values.
    """

    per_image: Mapping[Key, FloatArray] = field(default_factory=dict)
    per_case: Mapping[Key, FloatArray] = field(default_factory=dict)
    gallery_effects: Mapping[Key, GalleryEffect] = field(default_factory=dict)
    statistics: tuple[Statistic, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def keys(self) -> list[Key]:
        """Level and name of every metric."""
        return [*self.per_image, *self.per_case, *(key for statistic in self.statistics for key in statistic.keys)]

    def linearised(self, values: Mapping[Key, FloatArray]) -> dict[Key, FloatArray]:
        """Values as inference sees them.

        Args:
            values: `per_image` or `per_case`.

        Returns:
            The values by key, with what each image does in the gallery of the others.
        """
        effects = self.gallery_effects
        return {key: effects[key].linearise(v) if key in effects else v for key, v in values.items()}

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Scores:
        """Join the scores of several tasks.

        Args:
            parts: The scores of each task.

        Returns:
            All of them.
        """
        return cls(
            {key: values for part in parts for key, values in part.per_image.items()},
            {key: values for part in parts for key, values in part.per_case.items()},
            {key: effect for part in parts for key, effect in part.gallery_effects.items()},
            tuple(statistic for part in parts for statistic in part.statistics),
            {key: value for part in parts for key, value in part.details.items()},
            tuple(warning for part in parts for warning in part.warnings),
        )


def mean_of_known(values: FloatArray) -> float:
    """The mean of the values that are defined; nan where none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
