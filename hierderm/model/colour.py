"""The floor: what the colours of a picture alone are worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from hierderm.data.image_io import open_picture
from hierderm.types import FloatArray

SIDE = 96  # pixels
BINS = (8, 4, 4)  # of hue, saturation and value


def colour_features(paths: Sequence[Path]) -> FloatArray:
    """Histograms of hue, saturation and value together, shape (n_images, 128): square roots of shares.

    Their scalar product is the Bhattacharyya coefficient of two histograms, in [0, 1]. Nothing is learnt.
    """
    return np.stack(
        [
            _histogram(open_picture(path))
            for path in tqdm(paths, "Colours", len(paths), leave=False, delay=2, disable=None)
        ]
    )


def _histogram(picture: Image.Image) -> FloatArray:
    small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR).convert("HSV")
    pixels = np.asarray(small, dtype=np.int64).reshape(-1, 3)
    place = np.zeros(len(pixels), dtype=np.int64)
    for channel, n_bins in enumerate(BINS):
        place = place * n_bins + pixels[:, channel] * n_bins // 256
    return np.asarray(np.sqrt(np.bincount(place, minlength=int(np.prod(BINS))) / len(pixels)))
