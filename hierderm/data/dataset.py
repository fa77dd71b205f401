"""Images as tensors for training and embedding: decoding, augmentation, and a memory of what was decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from hierderm.config.methods import Augmentation
from hierderm.data.changes import Blur, Jitter
from hierderm.data.image_io import ImageLike, as_pixels
from hierderm.data.preprocessing import Preprocessing

CACHE_BYTES = 2 * 1024**3  # decoded images kept in memory, at most
ROOM_TO_CROP = 1.5  # a cached image's short side, in sides of the backbone's input
FIRST_SEED = 1000  # of the views of an image; another one would change what saved models compute
Steps = list[tuple[v2.Transform, dict[str, Any]]]  # changes of an image, each with what it drew
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
        path = self.paths[position]
        if self.augment is None:
            pixels = self.preprocessing.pixels(path)
        else:
            pixels = _with_room(read_pixels(path), self.preprocessing.size)
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


def read_pixels(image: ImageLike) -> Tensor:
    """An image of any accepted kind, shape (3, height, width), uint8, channels last in memory."""
    return torch.from_numpy(as_pixels(image)).permute(2, 0, 1)


def fixed_views(pixels: Tensor, preprocessing: Preprocessing) -> list[Tensor]:
    """`preprocessing.views` changed copies of an image, each of shape (3, size, size), uint8.

    The changes are drawn by the default `Augmentation` with seeds from `FIRST_SEED`: the same for all images of a size.
    """
    pixels = _with_room(pixels, preprocessing.size)
    return [_changed_by(steps, pixels) for steps in _fixed_steps(preprocessing, *pixels.shape[1:])]


@lru_cache(maxsize=256)
def _fixed_steps(preprocessing: Preprocessing, height: int, width: int) -> list[Steps]:
    augment, shape = Augmenter(Augmentation(), preprocessing), torch.empty(3, height, width, dtype=torch.uint8)
    return [augment.drawn(shape, FIRST_SEED + view) for view in range(preprocessing.views)]


def _with_room(pixels: Tensor, size: int) -> Tensor:
    """The image itself; of a far larger one than `size`, which would only cost time, a smaller copy."""
    short, long = sorted(pixels.shape[1:])
    side = round(ROOM_TO_CROP * size)  # a crop is resized once more
    if short <= side:
        return pixels
    image = v2.functional.to_pil_image(pixels)
    image.thumbnail((side * long // short,) * 2)
    smaller: Tensor = v2.functional.pil_to_tensor(image)
    return smaller


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
        return _changed_by(self.drawn(pixels, seed), pixels)

    def drawn(self, pixels: Tensor, seed: int) -> Steps:
        """The steps that are taken and what they drew; none needs more of the image than its size, which stays."""
        with _DRAWING, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return [
                (step, step.make_params([pixels]))
                for chance, step in self.steps
                if chance == 1 or torch.rand(1) < chance
            ]


def _changed_by(steps: Steps, pixels: Tensor) -> Tensor:
    for step, drawn in steps:
        pixels = step.transform(pixels, drawn)
    return pixels
