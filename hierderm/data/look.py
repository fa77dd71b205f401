"""The look of an image as few numbers, whatever it shows: its colours, their contrast, and its detail at each scale."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from hierderm.data.image_io import ImageError, ImageLike, as_image, open_image
from hierderm.progress import track
from hierderm.types import FloatArray, Vectors

SIDE = 64  # pixels to which an image is scaled, a power of two: finer detail depends on the camera
LEAST = 0.003  # deviation below which there is nothing to see: a step of 8 bits is 0.004
FEW = 0.002  # share of the pixels that a colour must have to count
N_LOOK = 3 + 3 + 3 * 4 + 5


def look(image: ImageLike) -> Vectors:
    """The look of an image, shape (23,), float32.

    For brightness, red against green, and both against blue: the mean, the logarithm of the deviation, and that of the
    detail at scales of 2, 4, 8 and 16 pixels of 64, which is what the mean over squares of that side leaves out (a
    Laplacian pyramid, Burt and Adelson 1983, of means). Then how dark and how light it gets, and the logarithms of the
    share without any fine detail, of the share of the most frequent of 512 colours, and of the number of colours.
    """
    small = as_image(image).resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2)
    colours = np.asarray(small, dtype=np.int64)
    red, green, blue = np.moveaxis(colours / 255, 2, 0)
    channels = level = np.stack([(red + green + blue) / 3, red - green, (red + green) / 2 - blue])
    details: list[FloatArray] = []
    while level.shape[1] > SIDE // 16:
        half = level.shape[1] // 2
        coarser = level.reshape(3, half, 2, half, 2).mean(axis=(2, 4))
        details.append(level - coarser.repeat(2, axis=1).repeat(2, axis=2))
        level = coarser
    deviations = np.concatenate([part.std(axis=(1, 2)) for part in (channels, *details)])
    flat = (np.abs(details[0][0]) < 1 / 255).mean()
    shares = np.bincount((colours // 32 @ np.array([64, 8, 1])).ravel(), minlength=512) / SIDE**2
    parts = (
        channels.mean(axis=(1, 2)),
        np.log(deviations + LEAST),
        np.quantile(channels[0], [0.02, 0.98]),
        np.log([flat + 0.01, shares.max(), (shares > FEW).sum() + 1]),
    )
    return np.concatenate(parts).astype(np.float32)


def looks_of(paths: Sequence[Path]) -> Vectors:
    """The looks of files, shape (n_images, 23), float32; a row of nan where there is no image that can be read."""

    def one(path: Path) -> Vectors:
        try:
            return look(open_image(path, least_side=4 * SIDE))
        except ImageError:
            return np.full(N_LOOK, np.nan, dtype=np.float32)

    with ThreadPoolExecutor() as pool:
        rows = list(track(pool.map(one, paths), "Looking at images", len(paths), unit="images"))
    return np.array(rows, dtype=np.float32).reshape(len(paths), N_LOOK)
