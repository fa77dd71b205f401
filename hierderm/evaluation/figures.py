"""What a family of metrics gives before there are intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hierderm.evaluation.catalogue import Key
from hierderm.evaluation.inference.gallery import OnGallery
from hierderm.types import FloatArray, IntArray


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
    case, in the order of the sorted case ids. `on_gallery`: of figures of either kind for which the images (or cases)
    are the gallery, too. `details`: for the report; `warnings`: what a reader must be told.
    """

    per_image: Mapping[Key, FloatArray] = field(default_factory=dict)
    per_case: Mapping[Key, FloatArray] = field(default_factory=dict)
    on_gallery: Mapping[Key, OnGallery] = field(default_factory=dict)
    statistics: tuple[Statistic, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def joined(parts: Sequence[Figures]) -> Figures:
    """All of several families."""
    return Figures(
        {key: values for part in parts for key, values in part.per_image.items()},
        {key: values for part in parts for key, values in part.per_case.items()},
        {key: values for part in parts for key, values in part.on_gallery.items()},
        tuple(statistic for part in parts for statistic in part.statistics),
        {key: value for part in parts for key, value in part.details.items()},
        tuple(warning for part in parts for warning in part.warnings),
    )
