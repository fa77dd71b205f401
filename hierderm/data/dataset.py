"""Images as tensors for training and embedding: decoding, augmentation, and a memory of what was decoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from hierderm.config.methods import Augmentation
from hierderm.data.image_io import open_image
from hierderm.data.preprocessing import Preprocessing

CACHE_BYTES = 2 * 1024**3  # decoded images kept in memory, at most
ROOM_TO_CROP = 1.5  # a cached image's short side, in sides of the backbone's input


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Preprocessed images with their position: ((3, size, size) float32, int).

    Without `augmentation` the pixels are exactly those of the backbone's preprocessing. With it, the changes of an
    image depend only on `seed`, `epoch` and its position, so a resumed run sees what an unbroken one sees.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        *,
        seed: int = 0,
        cache: bool = False,
    ) -> None:
        self.paths, self.preprocessing, self.seed, self.epoch = list(paths), preprocessing, seed, 0
        self.augment = make_augmentation(augmentation, preprocessing) if augmentation else None
        room = (ROOM_TO_CROP * preprocessing.size) ** 2 * 3 * 4 / 3 * len(self.paths)
        self.kept: dict[int, Tensor] | None = {} if cache and room <= CACHE_BYTES else None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        pixels = self._decoded(position)
        if self.augment is None:
            return self.preprocessing.normalise(pixels), position
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.seed * 1_000_003 + self.epoch) * 1_000_003 + position)
            pixels = self.augment(pixels)
        return self.preprocessing.normalise(pixels), position

    def _decoded(self, position: int) -> Tensor:
        if self.kept is not None and position in self.kept:
            return self.kept[position]
        image = open_image(self.paths[position])
        if self.augment is None:
            pixels = self.preprocessing.pixels(image)
        else:
            side = round(ROOM_TO_CROP * self.preprocessing.size)
            if min(image.size) > side:  # a crop is resized once more; far larger images only cost time
                image.thumbnail((side * max(image.size) // min(image.size),) * 2)
            pixels = v2.functional.pil_to_tensor(image)
        if self.kept is not None:
            self.kept[position] = pixels
        return pixels


def make_augmentation(config: Augmentation, preprocessing: Preprocessing) -> v2.Transform:
    """uint8 images of any size to augmented uint8 images of the backbone's size.

    Each change is one a camera makes to the same lesion: distance, side, angle, exposure, light, white balance,
    focus. Corners that a rotation uncovers become mid-grey, which normalises to about zero.
    """
    size, mode = preprocessing.size, preprocessing.mode
    steps: list[v2.Transform] = []
    if config.rotation:
        steps.append(v2.RandomRotation([-config.rotation, config.rotation], v2.InterpolationMode.BILINEAR, fill=127))
    steps.append(v2.RandomResizedCrop(size, (max(config.crop, 1e-3), 1.0), (0.8, 1.25), mode, antialias=True))
    if config.flip:
        steps += [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    steps.append(v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue))
    if config.blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(5, (0.1, 1.5))], config.blur))
    return v2.Compose(steps)
