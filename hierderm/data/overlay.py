"""Two grey images laid over each other, from a few frequencies of each: how far do they show the same?

A shape is the first frequencies of an image (the orthonormal DCT of its pixels), so its value is known at any place
between the pixels, and so is its slope. One shape is moved and scaled over the other by Gauss-Newton steps.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from hierderm.types import Floats, Mask

SHAPE = 12  # frequencies a side of a shape
GRID = 32  # points a side of a detail
MARGIN = 0.05  # of each image that is not compared: a border that was not cut away, the edge of a crop
MOST_SCALE, MOST_SHIFT, MOST_STEP = 0.16, 0.11, 0.08  # in shares of the side
STEPS = ((6, 8, 4), (SHAPE, 16, 3))  # frequencies, points a side, steps: coarse, then fine
DETAIL_PER_SHAPE = 4  # what a shape that agrees less well costs, in agreement of detail


def likeness(shapes: Floats, details: Floats, own_shapes: Floats, own_details: Floats, start: Floats) -> Floats:
    """How far pairs of images agree where they overlap, shape (n_pairs,), at most 1; 0 and less of different images.

    The correlation of detail, less four times what the correlation of the shapes lacks to 1.

    Args:
        shapes: Of the first images, shape (n_pairs, 12, 12).
        details: Of the first images, each point -1 or 1, shape (n_pairs, 32, 32).
        own_shapes: Of the second images, which lie still.
        own_details: Of the second images.
        start: Where to begin: scale - 1 and shift, across and down, in shares of the side, shape (n_pairs, 4).
    """
    place = start
    for n_frequencies, n_points, n_steps in STEPS:
        tapered = _taper(n_frequencies)
        a, b = (part[:, :n_frequencies, :n_frequencies] * tapered for part in (shapes, own_shapes))
        place, agreement = _aligned(a, b, place, n_points, n_steps)
    x, y = _moved(place, GRID)
    over = _between(y) @ details @ _between(x).swapaxes(1, 2)
    return _correlation(over, own_details, _overlap(x, y)) - DETAIL_PER_SHAPE * (1 - agreement)


def turned(shapes: Floats, position: int) -> Floats:
    """Shapes as they are of images in another position, 0 to 7: transposed (4), then mirrored across (1), down (2)."""
    signs = (-1.0) ** np.arange(shapes.shape[-1], dtype=np.float32)
    shapes = shapes.swapaxes(-1, -2) if position & 4 else shapes
    shapes = shapes * signs if position & 1 else shapes
    return shapes * signs[:, None] if position & 2 else shapes


def turned_points(points: Floats, position: int) -> Floats:
    """The same of points, shape (..., n, n)."""
    points = points.swapaxes(-1, -2) if position & 4 else points
    points = points[..., ::-1] if position & 1 else points
    return points[..., ::-1, :] if position & 2 else points


def values(shapes: Floats, x: Floats, y: Floats) -> Floats:
    """Grey values of shapes at places from 0 to 1, shape (..., n_y, n_x)."""
    return _waves(y, shapes.shape[-1])[0] @ shapes @ _waves(x, shapes.shape[-1])[0].swapaxes(-1, -2)


def middles(n: int) -> Floats:
    """The middles of `n` pixels, in shares of the side."""
    return ((np.arange(n) + 0.5) / n).astype(np.float32)


def _aligned(a: Floats, b: Floats, place: Floats, n_points: int, n_steps: int) -> tuple[Floats, Floats]:
    """Where `a` lies best over `b` near `place`, and their correlation there; brightness and contrast are free."""
    points = middles(n_points)
    away: Floats = points - np.float32(0.5)
    target = values(b, points, points)
    most = np.array([MOST_SCALE, MOST_SHIFT] * 2, dtype=np.float32)
    for _ in range(n_steps):
        x, y = _moved(place, n_points)
        (across, slope_x), (down, slope_y) = _waves(x, a.shape[-1]), _waves(y, a.shape[-1])
        rows = down @ a
        over, by_x = rows @ across.swapaxes(1, 2), rows @ slope_x.swapaxes(1, 2)
        by_y, weight = (slope_y @ a) @ across.swapaxes(1, 2), _overlap(x, y)
        columns = np.empty((len(a), 7, n_points**2), dtype=np.float32)
        terms = (by_x * away, by_x, by_y * away[:, None], by_y, over, np.ones_like(over), target)
        for number, term in enumerate(terms):
            columns[:, number] = (term * weight).reshape(len(a), -1)
        products = (columns @ columns.swapaxes(1, 2)).astype(np.float64)
        normal = products[:, :6, :6].copy()
        diagonal = np.einsum("nii->ni", normal)  # a view
        diagonal += 1e-4 * diagonal + 1e-6
        found = np.linalg.solve(normal, products[:, :6, 6:])[..., 0]
        step = found[:, :4] / np.maximum(np.abs(found[:, 4:5]), 0.3)
        place = np.clip(place + np.clip(step, -MOST_STEP, MOST_STEP), -most, most).astype(np.float32)
    x, y = _moved(place, n_points)
    return place, _correlation(values(a, x, y), target, _overlap(x, y))


def _moved(place: Floats, n_points: int) -> tuple[Floats, Floats]:
    """Where the points of the image that lies still are in the other, across and down, shape (n_pairs, n_points)."""
    away = middles(n_points) - np.float32(0.5)
    scale_x, shift_x, scale_y, shift_y = (place[:, [number]] for number in range(4))
    return 0.5 + (1 + scale_x) * away + shift_x, 0.5 + (1 + scale_y) * away + shift_y


def _overlap(x: Floats, y: Floats) -> Floats:
    """1 where both images are compared, else 0, shape (n_pairs, n_points, n_points)."""

    def within(places: Floats) -> Mask:
        return np.asarray((places >= MARGIN) & (places <= 1 - MARGIN))

    own = within(middles(x.shape[1]))
    both = (own & within(y))[:, :, None] & (own & within(x))[:, None, :]
    return both.astype(np.float32)


def _correlation(a: Floats, b: Floats, weight: Floats) -> Floats:
    total = weight.sum(axis=(1, 2), keepdims=True) + 1e-6
    a = a - (a * weight).sum(axis=(1, 2), keepdims=True) / total
    b = b - (b * weight).sum(axis=(1, 2), keepdims=True) / total
    spread = (a * a * weight).sum(axis=(1, 2)) * (b * b * weight).sum(axis=(1, 2))
    return np.asarray((a * b * weight).sum(axis=(1, 2)) / np.sqrt(spread + 1e-12))


def _waves(places: Floats, n: int) -> tuple[Floats, Floats]:
    """The first `n` cosines at places from 0 to 1, and their slopes, shape (..., n_places, n)."""
    frequency = np.arange(n, dtype=np.float32) * np.float32(np.pi)
    size = np.where(frequency == 0, 1, 2**0.5).astype(np.float32)
    angle = frequency * places[..., None]
    return size * np.cos(angle), -size * frequency * np.sin(angle)


def _between(places: Floats) -> Floats:
    """Weights of the points of a detail at places between them (linear), shape (n_pairs, n_places, 32)."""
    away = np.abs((places * GRID - 0.5)[..., None] - np.arange(GRID, dtype=np.float32))
    return np.asarray(np.maximum(0, 1 - away), dtype=np.float32)


@cache
def _taper(n: int) -> Floats:
    """Less of the higher frequencies, which an image and a crop of it share less well."""
    squares = np.arange(n, dtype=np.float32) ** 2
    return np.asarray(np.exp(-(squares[:, None] + squares) / (n * n / 2)), dtype=np.float32)
