"""Sums over groups of images, in many bootstrap rounds at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from hierderm.types import FloatArray, Floats, IntArray

Weights = npt.NDArray[np.integer]


def once(n: int) -> Weights:
    """Weights that count each of `n` images once, shape (n,)."""
    return np.ones(n, dtype=np.uint8)


def group_sums(weights: Weights, groups: IntArray, n_groups: int, values: Floats | None = None) -> FloatArray:
    """The sum over the images of each group, each as often as it counts, shape (..., n_groups).

    `weights`: how often each image counts, shape (..., n_images); `groups`: the number of its group, shape
    (n_images,); `values`: what is summed, by default 1, shape (n_images,).
    """
    n = len(groups)
    members = csr_array((np.ones(n) if values is None else values, (groups, np.arange(n))), shape=(n_groups, n))
    sums = np.ascontiguousarray((members @ weights.reshape(-1, n).T).T, dtype=np.float64)
    return sums.reshape(*weights.shape[:-1], n_groups)
