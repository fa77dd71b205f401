"""What a family of metrics gives before there are intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hierderm.evaluate.metrics import Key
from hierderm.taxonomy import IntArray

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Statistic:
    """Figures that are no means over images.

    `compute(weights, round)` gives a value for each of `keys`; `weights`: how often each test image counts, shape
    (n_images,), or None for once; `round`: the number of the bootstrap round, -1 for the figure itself.
    """

    keys: tuple[Key, ...]
    compute: Callable[[IntArray | None, int], Sequence[float] | FloatArray]
    resampled: bool = True  # False: a description of the embeddings, without an interval


@dataclass(frozen=True)
class Figures:
    """`per_image`: values whose mean is the figure, shape (n_images,), nan where not defined; `per_case`: the same a
    case, in the order of the sorted case ids. `influence`: of figures of either kind for which each image (or case) is
    in the gallery, too: how its presence there raises the sum of the values, same shape. `details`: for the report;
    `warnings`: what a reader must be told.
    """

    per_image: Mapping[Key, FloatArray] = field(default_factory=dict)
    per_case: Mapping[Key, FloatArray] = field(default_factory=dict)
    influence: Mapping[Key, FloatArray] = field(default_factory=dict)
    statistics: tuple[Statistic, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def joined(parts: Sequence[Figures]) -> Figures:
    """All of several families."""
    return Figures(
        {key: values for part in parts for key, values in part.per_image.items()},
        {key: values for part in parts for key, values in part.per_case.items()},
        {key: values for part in parts for key, values in part.influence.items()},
        tuple(statistic for part in parts for statistic in part.statistics),
        {key: value for part in parts for key, value in part.details.items()},
        tuple(warning for part in parts for warning in part.warnings),
    )


def linearised(values: FloatArray, influence: FloatArray) -> FloatArray:
    """Values of images, shape (n,), whose mean is that of `values` and whose spread allows for another gallery.

    An image that is no query with a value (nan) counts through its influence alone. See `hierderm.evaluate.influence`.
    """
    known = ~np.isnan(values)
    if not known.any():
        return values
    mean = values[known].mean()
    own = np.where(known, values - mean, 0.0)
    moved = (own + influence - influence.mean()) * (len(values) / known.sum())
    return np.asarray(mean + moved)
