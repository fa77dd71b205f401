"""Our own changes of an image against torchvision's, which they are to give."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from hierderm.data.changes import blurred, turned_hue

LEVELS = torch.tensor([0, 1, 2, 3, 84, 127, 128, 129, 200, 253, 254, 255], dtype=torch.uint8)
CORNERS = torch.cartesian_prod(LEVELS, LEVELS, LEVELS).T.reshape(3, 12, 144)  # greys, black, white, pure, all orders


def random_image(seed: int, height: int = 40, width: int = 50) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_hue_by_hand() -> None:
    """By a third of the circle red is green; grey, white and black have no hue."""
    red_grey_white_black = torch.tensor([[[200, 9, 255, 0]], [[10, 9, 255, 0]], [[10, 9, 255, 0]]], dtype=torch.uint8)
    turned = torch.tensor([[[10, 9, 255, 0]], [[200, 9, 255, 0]], [[10, 9, 255, 0]]], dtype=torch.uint8)
    assert torch.equal(turned_hue(red_grey_white_black, 1 / 3), turned)


@pytest.mark.parametrize("turn", [0.0, 0.02, -0.02, 1 / 6, -1 / 6, 1 / 3, 0.5, -0.5, 1e-8, -1e-8, -1e-9])
def test_hue_of_every_corner(turn: float) -> None:
    assert torch.equal(turned_hue(CORNERS, turn), F.adjust_hue(CORNERS, turn))


@given(seed=st.integers(0, 10_000), turn=st.floats(-0.5, 0.5))
@settings(max_examples=30, deadline=None)
def test_hue_of_any_image_is_torchvisions_bit_by_bit(seed: int, turn: float) -> None:
    image = random_image(seed)
    before = image.clone()
    expected = F.adjust_hue(image, turn)
    assert torch.equal(turned_hue(image, turn), expected)
    by_pixel = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # as PIL lays it out
    assert torch.equal(turned_hue(by_pixel, turn), expected)
    assert torch.equal(image, before)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.5])
def test_blur_is_torchvisions_but_for_rounding(sigma: float) -> None:
    for image in (random_image(0, 150, 150), CORNERS):
        difference = (blurred(image, sigma, 5).int() - F.gaussian_blur(image, [5, 5], [sigma, sigma]).int()).abs()
        assert difference.max() <= 1 and difference.float().mean() < 1e-4
    point = torch.zeros(3, 7, 7, dtype=torch.uint8)
    point[:, 3, 3] = 255
    spread = blurred(point, sigma, 5)
    assert torch.equal(spread, spread.flip(1)) and torch.equal(spread, spread.transpose(1, 2))
    assert not spread[:, 0].any()
