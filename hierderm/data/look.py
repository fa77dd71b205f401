"""The look of an image as few numbers, whatever it shows: its colours, their contrast, and its detail at each scale."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from hierderm.data.image_io import ImageError, ImageLike, as_image, open_image
from hierderm.progress import track
from hierderm.types import Vectors

SIDE = 64  # pixels to which an image is scaled, a power of two
LEAST = 0.003  # deviation below which there is nothing to see: half a step of 8 bits is 0.002
N_LOOK = 3 + 3 + 3 * 4  # means, deviations, and details at four scales


def look(image: ImageLike) -> Vectors:
    """The look of an image, shape (18,), float32.

    For brightness, red against green, and both against blue, each in [0, 1] or [-1, 1]: the mean, the logarithm of the
    deviation, and that of the detail at scales of 2, 4, 8 and 16 pixels of 64, which is what a mean over squares of that
    side leaves out (a Laplacian pyramid, Burt and Adelson 1983, of means).
    """
    small = as_image(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3)
    red, green, blue = np.moveaxis(np.asarray(small, dtype=np.float64) / 255, 2, 0)
    level = np.stack([(red + green + blue) / 3, red - green, (red + green) / 2 - blue])
    means, deviations = level.mean(axis=(1, 2)), [level.std(axis=(1, 2))]
    while level.shape[1] > SIDE // 16:
        half = level.shape[1] // 2
        coarser = level.reshape(3, half, 2, half, 2).mean(axis=(2, 4))
        detail = level - coarser.repeat(2, axis=1).repeat(2, axis=2)
        deviations.append(detail.std(axis=(1, 2)))
        level = coarser
    return np.concatenate([means, np.log(np.concatenate(deviations) + LEAST)]).astype(np.float32)


def looks_of(paths: Sequence[Path]) -> Vectors:
    """The looks of files, shape (n_images, 18), float32; a row of nan where there is no image that can be read."""

    def one(path: Path) -> Vectors:
        try:
            return look(open_image(path, least_side=4 * SIDE))
        except ImageError:
            return np.full(N_LOOK, np.nan, dtype=np.float32)

    with ThreadPoolExecutor() as pool:
        rows = list(track(pool.map(one, paths), "Looking at images", len(paths), unit="images"))
    return np.array(rows, dtype=np.float32).reshape(len(paths), N_LOOK)
