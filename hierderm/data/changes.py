"""torchvision's slowest changes of an image, to its values in a fifth of its time: hue and blur."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

_ALIKE = np.array([1, 5, 3], dtype=np.uint8)[:, None, None]  # sixths by which red, green and blue change alike


def turned_hue(pixels: Tensor, turn: float) -> Tensor:
    """An image with all its hues turned: bit by bit that of torchvision's `adjust_hue`.

    All operations that round are torchvision's, in its order. But the highest and the lowest of three colours stay what
    they are: the middle one alone is computed, and which colour becomes which is decided in bytes.

    Args:
        pixels: Shape (3, height, width), uint8.
        turn: Of the circle of hues, in [-0.5, 0.5].

    Returns:
        The same shape, uint8.
    """
    red, green, blue = np.ascontiguousarray(pixels.numpy())
    high, low = np.maximum(red, green), np.minimum(red, green)
    middle = np.maximum(low, np.minimum(high, blue))
    np.maximum(high, blue, out=high)
    np.minimum(low, blue, out=low)
    value = _of_one(high)
    place, span = value - _of_one(middle), value - _of_one(low)
    saturation = span / np.maximum(value, 1 / 255)  # of black, 0
    place /= np.maximum(span, 1 / 510)  # between highest and lowest

    odd = ((red < green) ^ (green < blue) ^ (red < blue)).view(np.uint8)  # sixth of the circle, which begins with red
    not_red = (red != high).view(np.uint8)
    spare = odd.astype(np.float32)
    place *= 2 * spare - 1
    place += (not_red + (not_red & (green != high))) * 2 + 1 - odd
    place -= spare
    place *= 1 / 6
    place += 1
    place -= np.floor(place, out=spare)
    place += turn
    place -= np.floor(place, out=spare)
    place *= 6
    place -= np.floor(place, out=spare)
    sixth = spare.astype(np.uint8)  # 0 to 6

    place *= saturation
    np.subtract(1, saturation, out=saturation)
    saturation += place
    rising = _bytes(saturation, value)
    np.subtract(1, place, out=place)
    middle = _bytes(place, value)
    middle += (rising - middle) * (~sixth & 1)
    turned = sixth + _ALIKE
    turned -= (turned >= 6).view(np.uint8) * 6
    made = (turned < 2).view(np.uint8)
    made *= high - low
    made += ((turned == 2) | (turned == 5)).view(np.uint8) * (middle - low)
    made += low
    return torch.from_numpy(made)


def _of_one(colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    scaled = colours.astype(np.float32)
    scaled *= 1 / 255
    return scaled


def _bytes(shares: npt.NDArray[Any], value: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The colours that are such shares of the highest. `shares` is used up."""
    shares *= value
    shares *= 255.999  # as torchvision scales
    return shares.astype(np.uint8)


def blurred(pixels: Tensor, sigma: float, side: int) -> Tensor:
    """An image under a Gaussian: torchvision's `gaussian_blur`, as rows and then columns.

    Its convolution in two dimensions adds in another order: of 100,000 values one is rounded to its neighbour.

    Args:
        pixels: Shape (3, height, width), uint8; both lengths above `side` / 2.
        sigma: Of the Gaussian, in pixels, > 0.
        side: Pixels of its window, odd.

    Returns:
        The same shape, uint8.
    """
    reach = side // 2
    steps = torch.linspace(-reach / 2**0.5, reach / 2**0.5, side)
    weights = torch.softmax(-((steps / sigma) ** 2), dim=0).tolist()
    values = pad(pixels.float()[None], [reach] * 4, mode="reflect")[0]
    for axis in (2, 1):
        length = values.shape[axis] - 2 * reach
        parts = [values.narrow(axis, start, length) for start in range(side)]
        values = parts[reach] * weights[reach]
        for part, weight in zip(parts, weights, strict=True):
            if part is not parts[reach]:
                values.add_(part, alpha=weight)
    return values.round_().to(torch.uint8)


_JITTER = (
    ("brightness_factor", F.adjust_brightness),
    ("contrast_factor", F.adjust_contrast),
    ("saturation_factor", F.adjust_saturation),
    ("hue_factor", turned_hue),
)  # in torchvision's order


class Jitter(v2.ColorJitter):  # type: ignore[misc]  # torchvision has no types
    """torchvision's, but with `turned_hue`."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """An image, shape (3, height, width), uint8, changed as `make_params` drew."""
        inpt = inpt.contiguous()  # the same values, faster: each colour in its own plane
        for number in params["fn_idx"].tolist():
            name, change = _JITTER[number]
            inpt = inpt if params[name] is None else change(inpt, params[name])
        return inpt


class Blur(v2.GaussianBlur):  # type: ignore[misc]
    """torchvision's, but with `blurred`."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """An image, shape (3, height, width), uint8, changed as `make_params` drew."""
        return blurred(inpt, params["sigma"][0], self.kernel_size[0])
