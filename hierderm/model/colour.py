"""The floor of a benchmark: what the colours of an image alone are worth."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image

from hierderm.data.image_io import ImageLike, as_image, each_image
from hierderm.progress import track
from hierderm.types import Vectors

SIDE = 96  # pixels
BINS = (8, 4, 4)  # of hue, saturation and value


class ColourHistograms:
    """A model that learns nothing: histograms of hue, saturation and value together, square roots of shares.

    The scalar product of two vectors is the Bhattacharyya coefficient of two histograms, in [0, 1].
    """

    def encode(self, images: ImageLike | Iterable[ImageLike]) -> Vectors:
        """Unit-length vectors of images, shape (n_images, 128), float32; images as `Encoder.encode` takes them."""
        many = track(each_image(images), "Colours", unit="images")
        rows = [_histogram(as_image(image)) for image in many]
        return np.array(rows, dtype=np.float32).reshape(len(rows), int(np.prod(BINS)))


def _histogram(image: Image.Image) -> Vectors:
    small = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR).convert("HSV")
    pixels = np.asarray(small, dtype=np.int64).reshape(-1, 3)
    place = np.zeros(len(pixels), dtype=np.int64)
    for channel, n_bins in enumerate(BINS):
        place = place * n_bins + pixels[:, channel] * n_bins // 256
    return np.sqrt(np.bincount(place, minlength=int(np.prod(BINS))) / len(pixels)).astype(np.float32)
