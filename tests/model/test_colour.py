from __future__ import annotations

import numpy as np

from hierderm.data.table import CaseTable
from hierderm.model.colour import ColourHistograms


def test_one_colour_is_one_bin() -> None:
    """Pure red has hue 0, full saturation and full value: the last bin of the first hue, 0 * 16 + 3 * 4 + 3."""
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[..., 0] = 255
    (vector,) = ColourHistograms().encode(red)
    assert np.flatnonzero(vector).tolist() == [15] and vector[15] == 1
    green = red[..., [1, 0, 2]]
    half = np.concatenate([red, green])  # half the pixels in each of two bins: square roots of 1/2
    np.testing.assert_allclose(ColourHistograms().encode([red, half]) @ vector, [1, np.sqrt(0.5)], atol=0.02)


def test_histograms_of_images(toy: CaseTable) -> None:
    found = ColourHistograms().encode(toy.paths[:5])
    assert found.shape == (5, 128) and found.dtype == np.float32
    np.testing.assert_allclose((found**2).sum(axis=1), 1, atol=1e-6)
    assert ColourHistograms().encode([]).shape == (0, 128)
