"""Resizing without torch, to the same pixels as torchvision's on a CPU with AVX2, byte by byte.

PIL rounds other weights: a pixel in some hundred differs by 1, and vectors of unit length by up to 0.001.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}  # pixels at each side that have a weight, without reduction
SHARPNESS = -0.5  # a of the cubic kernel (Keys 1981) where it is antialiased, as in PIL


def resized(pixels: Pixels, height: int, width: int, interpolation: str) -> Pixels:
    """An image, shape (h, w, 3), at another size; antialiased, except with "nearest"."""
    if interpolation == "nearest":
        rows, columns = (_nearest(*sizes) for sizes in zip(pixels.shape[:2], (height, width), strict=True))
        return np.ascontiguousarray(pixels[rows[:, None], columns])
    if pixels.shape[1] != width:
        pixels = _rows_resized(pixels.transpose(1, 0, 2), width, interpolation).transpose(1, 0, 2)
    return pixels if pixels.shape[0] == height else _rows_resized(pixels, height, interpolation)


def _nearest(n_old: int, n_new: int) -> npt.NDArray[np.int64]:
    """For each new row the old one at its centre, in the single precision of torch, which decides at the borders."""
    centres = (np.arange(n_new, dtype=np.float32) + np.float32(0.5)) * (np.float32(n_old) / np.float32(n_new))
    rows: npt.NDArray[np.int64] = np.minimum(np.floor(centres).astype(np.int64), n_old - 1)
    return rows


def _rows_resized(pixels: Pixels, n_rows: int, interpolation: str) -> Pixels:
    """Other rows: each the sum of old ones with weights that are whole numbers of 16 bits, as torch has them."""
    from scipy.sparse import csr_array

    places, weights = _weights(len(pixels), n_rows, interpolation)
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    whole = np.trunc(weights * (1 << bits) + np.where(weights < 0, -0.5, 0.5)).astype(np.int32)
    starts = np.arange(0, whole.size + 1, whole.shape[1])
    matrix = csr_array((whole.ravel(), places.ravel(), starts), shape=(n_rows, len(pixels)))
    sums = matrix @ pixels.reshape(len(pixels), -1).astype(np.int32)
    rounded = (sums + (1 << (bits - 1))) >> bits
    return rounded.clip(0, 255).astype(np.uint8).reshape(n_rows, *pixels.shape[1:])


def _weights(n_old: int, n_new: int, interpolation: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """For each new row the old ones that it is made of, and their weights, which sum to 1; shape (n_new, n_taps)."""
    scale = n_old / n_new
    support = SUPPORT[interpolation] * max(scale, 1.0)
    centres = scale * (np.arange(n_new) + 0.5)
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centres + support + 0.5).astype(np.int64), n_old)
    places = first[:, None] + np.arange(2 * int(np.ceil(support)) + 1)
    x = np.abs(places - centres[:, None] + 0.5) / max(scale, 1.0)
    if interpolation == "bilinear":
        weights = np.maximum(1 - x, 0)
    else:
        a = SHARPNESS
        near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
        weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    weights = np.where(places < end[:, None], weights, 0)
    return np.minimum(places, n_old - 1), weights / weights.sum(axis=1, keepdims=True)
