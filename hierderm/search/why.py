"""Why near? The places of two images that a backbone sees as most alike: a hint, not an explanation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hierderm.types import FloatArray, Vectors

HINT = (
    "A hint, not an explanation: bright places have features in the backbone's last layer that are most alike in the "
    "two images, and equal numbers mark the best pairs. The similarity of the case comes from the whole images and "
    "from what was trained on them, and alike places need not be the lesion."
)
PAIRS = 3  # that are numbered
Place = tuple[int, int]  # row and column


@dataclass(frozen=True)
class Match:
    """`query`, `case`: for each place the cosine to the most similar place of the other image, shape (n_rows,
    n_columns), in [-1, 1]. `pairs`: places of query and case that are most alike, best first, each place once.
    """

    query: FloatArray
    case: FloatArray
    pairs: tuple[tuple[Place, Place], ...]


def match(query: Vectors, case: Vectors) -> Match:
    """Compare the places of two images by the cosine of their features, without the mean of all these places.

    What all places share, such as plain skin, is in the mean: with it each place would be like each other.

    Args:
        query: Unit-length features, shape (n_rows, n_columns, n_channels).
        case: Of the other image, with as many channels.
    """
    flat = [image.reshape(-1, image.shape[-1]).astype(np.float64) for image in (query, case)]
    centred = np.concatenate(flat) - np.concatenate(flat).mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    cosines = unit[: len(flat[0])] @ unit[len(flat[0]) :].T  # (n_query_places, n_case_places)
    heat = cosines.max(axis=1).reshape(query.shape[:2]), cosines.max(axis=0).reshape(case.shape[:2])
    pairs: list[tuple[Place, Place]] = []
    left = cosines.copy()
    for _ in range(min(PAIRS, *cosines.shape)):
        row, column = (int(number) for number in np.unravel_index(left.argmax(), left.shape))
        pairs.append((divmod(row, query.shape[1]), divmod(column, case.shape[1])))
        left[row], left[:, column] = -np.inf, -np.inf
    return Match(*heat, tuple(pairs))
