"""Pixels without torch are those of torchvision, byte by byte, where torch computes with AVX2."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hierderm.data.preprocessing import Fit, Interpolation, Preprocessing
from hierderm.data.resizing import resized

AVX2 = "AVX2" in torch.backends.cpu.get_cpu_capability() or "AVX512" in torch.backends.cpu.get_cpu_capability()


def image(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 5 + 2, width // 5 + 2, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height))).astype(int) + rng.integers(-20, 20, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@given(
    st.integers(8, 150), st.integers(8, 150), st.integers(4, 60), st.sampled_from(["bicubic", "bilinear", "nearest"]),
    st.sampled_from(["squash", "crop", "crop_floor"]), st.sampled_from([1.0, 0.875, 0.9]),
)  # fmt: skip
@settings(max_examples=30)
def test_the_pixels_of_torchvision(
    width: int, height: int, size: int, interpolation: Interpolation, fit: Fit, crop_fraction: float
) -> None:
    preprocessing = Preprocessing(size, (0.5,) * 3, (0.5,) * 3, interpolation, fit, crop_fraction)
    shown = image(width, height)
    expected, found = preprocessing.pixels(shown).numpy(), preprocessing.array(shown)
    assert found.dtype == np.uint8 and found.flags["C_CONTIGUOUS"] and found.shape == (3, size, size)
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= (0 if AVX2 else 1)


@pytest.mark.parametrize(("old", "new"), [(8, 41), (150, 9), (107, 60), (299, 97), (5, 5)])
def test_the_nearest_row_at_a_border_is_that_of_torch(old: int, new: int) -> None:
    rows = torch.arange(old, dtype=torch.float32).reshape(1, 1, old, 1)
    expected = torch.nn.functional.interpolate(rows, size=(new, 1), mode="nearest-exact").flatten().tolist()
    column = np.arange(old)[:, None, None].repeat(3, axis=2).astype(np.uint16)
    assert resized(column, new, 1, "nearest")[:, 0, 0].tolist() == expected  # type: ignore[arg-type]  # above 255


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pil_takes_nearly_the_same(interpolation: str) -> None:
    """An oracle that is no torch: PIL rounds its weights less, and differs by 1 in few pixels."""
    shown = image(230, 170)
    resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[interpolation]
    expected = np.asarray(shown.resize((64, 48), resample)).astype(int)
    difference = np.abs(resized(np.asarray(shown), 48, 64, interpolation) - expected)
    assert difference.max() <= 1 and difference.mean() < 0.02


def test_by_hand() -> None:
    """Four columns become two: a triangle over four old ones, 1 3 3 1 in the middle, cut and normalised at the edge.

    The first new column is at 1 in old ones: its weights are .75 .75 .25 of those at .5, 1.5, 2.5, so 3/7 3/7 1/7.
    """
    row = np.array([[0, 70, 140, 210]], dtype=np.uint8)[..., None].repeat(3, axis=2)
    found = resized(row, 1, 2, "bilinear")[0, :, 0]
    assert found.tolist() == [50, 160]  # (0 + 3 * 70 + 140) / 7, and the mirrored
