"""Images as tensors for training and embedding: decoding, augmentation, and a memory of what was decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from hierderm.config.methods import Augmentation
from hierderm.data.changes import Blur, Jitter
from hierderm.data.image_io import open_image
from hierderm.data.preprocessing import Preprocessing

CACHE_BYTES = 2 * 1024**3  # decoded images kept in memory, at most
ROOM_TO_CROP = 1.5  # a cached image's short side, in sides of the backbone's input
FIRST_SEED = 1000  # of the views of an image; another one would change what saved models compute
_DRAWING = Lock()  # torchvision draws from the generator of the process


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
        self.augment = Augmenter(augmentation, preprocessing) if augmentation else None
        room = (ROOM_TO_CROP * preprocessing.size) ** 2 * 3 * 4 / 3 * len(self.paths)
        self.kept: dict[int, Tensor] | None = {} if cache and room <= CACHE_BYTES else None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        return self.preprocessing.normalise(self.pixels(position)), position

    def pixels(self, position: int) -> Tensor:
        """What `__getitem__` gives before it is normalised: shape (3, size, size), uint8. Threads may call it."""
        return self._changed(self._decoded(position), position, self.epoch)

    def in_epochs(self, n_epochs: int) -> Callable[[tuple[int, int]], Tensor]:
        """`pixels` of a position in an epoch. An image is decoded once for its `n_epochs` calls and kept till then."""
        decoded = _Shared(self._decoded, n_epochs)
        return lambda item: self._changed(decoded(item[0]), *item)

    def _changed(self, pixels: Tensor, position: int, epoch: int) -> Tensor:
        if self.augment is None:
            return pixels
        return self.augment(pixels, (self.seed * 1_000_003 + epoch) * 1_000_003 + position)

    def _decoded(self, position: int) -> Tensor:
        if self.kept is not None and position in self.kept:
            return self.kept[position]
        image = open_image(self.paths[position])
        if self.augment is None:
            pixels = self.preprocessing.pixels(image)
        else:
            pixels = _with_room(image, self.preprocessing.size)
        if self.kept is not None:
            self.kept[position] = pixels
        return pixels


class _Shared:
    """What `work` gives for a position: done once for each `n_calls` calls, by the thread that asks first."""

    def __init__(self, work: Callable[[int], Tensor], n_calls: int) -> None:
        self.work, self.n_calls = work, n_calls
        self._lock, self._begun = Lock(), dict[int, _Begun]()

    def __call__(self, position: int) -> Tensor:
        with self._lock:
            begun = self._begun.setdefault(position, _Begun(self.n_calls))
            begun.calls_left -= 1
            if not begun.calls_left:
                del self._begun[position]
        with begun.lock:
            if begun.pixels is None:
                begun.pixels = self.work(position)
            return begun.pixels


@dataclass
class _Begun:
    calls_left: int
    pixels: Tensor | None = None
    lock: Lock = field(default_factory=Lock)


def fixed_views(image: Image.Image | Tensor, preprocessing: Preprocessing) -> list[Tensor]:
    """`preprocessing.views` changed copies of an image, each of shape (3, size, size), uint8.

    The changes are drawn by the default `Augmentation` with seeds from `FIRST_SEED`: the same for all images of a size.
    """
    augment = Augmenter(Augmentation(), preprocessing)
    pixels = _with_room(image.copy(), preprocessing.size) if isinstance(image, Image.Image) else image
    return [augment(pixels, FIRST_SEED + view) for view in range(preprocessing.views)]


def _with_room(image: Image.Image, size: int) -> Tensor:
    """The pixels of an image; of a far larger one than `size`, which would only cost time, those of a smaller copy."""
    side = round(ROOM_TO_CROP * size)
    if min(image.size) > side:  # a crop is resized once more
        image.thumbnail((side * max(image.size) // min(image.size),) * 2)
    pixels: Tensor = v2.functional.pil_to_tensor(image)
    return pixels


class Augmenter:
    """uint8 images of any size to changed uint8 images of the backbone's size; a seed decides on the changes.

    Each change is one a camera makes to the same lesion: distance, side, angle, exposure, light, white balance,
    focus. Corners that a rotation uncovers become mid-grey, which normalises to about zero.
    """

    def __init__(self, config: Augmentation, preprocessing: Preprocessing) -> None:
        size, mode, bilinear = preprocessing.size, preprocessing.mode, v2.InterpolationMode.BILINEAR
        # Each step with the chance that it is taken.
        self.steps: list[tuple[float, v2.Transform]] = []
        if config.rotation:
            turn = v2.RandomRotation([-config.rotation, config.rotation], bilinear, fill=127)
            self.steps.append((1.0, turn))
        crop = v2.RandomResizedCrop(size, (max(config.crop, 1e-3), 1.0), (0.8, 1.25), mode, antialias=True)
        self.steps.append((1.0, crop))
        if config.flip:
            self.steps += [(0.5, v2.RandomHorizontalFlip()), (0.5, v2.RandomVerticalFlip())]
        self.steps.append((1.0, Jitter(config.brightness, config.contrast, config.saturation, config.hue)))
        if config.blur:
            self.steps.append((config.blur, Blur(5, (0.1, 1.5))))

    def __call__(self, pixels: Tensor, seed: int) -> Tensor:
        """The image, shape (3, height, width), changed as `seed` has it; the generator of torch is left as it was."""
        for step, drawn in self._drawn(pixels, seed):
            pixels = step.transform(pixels, drawn)
        return pixels

    def _drawn(self, pixels: Tensor, seed: int) -> list[tuple[v2.Transform, dict[str, Any]]]:
        """The steps that are taken and what they drew; none needs more of the image than its size, which stays."""
        with _DRAWING, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return [
                (step, step.make_params([pixels]))
                for chance, step in self.steps
                if chance == 1 or torch.rand(1) < chance
            ]
