from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from hierderm.config.methods import Augmentation
from hierderm.data.dataset import ImageDataset
from hierderm.data.image_io import ImageError, open_image
from hierderm.data.preprocessing import Preprocessing
from hierderm.data.table import CaseTable
from hierderm.errors import CheckpointError

PLAIN = Preprocessing(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_without_augmentation_pixels_are_the_backbones(toy: CaseTable) -> None:
    images, position = ImageDataset(toy.paths, PLAIN)[3]
    assert position == 3
    assert images.shape == (3, 16, 16)
    assert torch.equal(images, PLAIN(open_image(toy.paths[3])))


def test_augmentation_follows_seed_epoch_and_position_alone(toy: CaseTable) -> None:
    def drawn(seed: int, epoch: int, cache: bool = False) -> torch.Tensor:
        data = ImageDataset(toy.paths, PLAIN, Augmentation(), seed=seed, cache=cache)
        data.epoch = epoch
        torch.manual_seed(torch.initial_seed() + 1)  # the surrounding randomness must not matter
        data[0]
        return data[0][0]

    assert torch.equal(drawn(0, 1), drawn(0, 1, cache=True))
    assert not torch.equal(drawn(0, 1), drawn(0, 2))
    assert not torch.equal(drawn(0, 1), drawn(1, 1))


def test_a_damaged_image_stops_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        ImageDataset([tmp_path / "bad.jpg"], PLAIN)[0]


def test_crop_and_squash() -> None:
    wide = Image.new("RGB", (40, 20))
    assert PLAIN.pixels(wide).shape == (3, 16, 16)
    crop = Preprocessing(16, PLAIN.mean, PLAIN.std, fit="crop", crop_fraction=0.9)
    assert crop.pixels(wide).shape == (3, 16, 16)
    assert Preprocessing.from_dict(crop.to_dict()) == crop
    assert crop.hash != PLAIN.hash
    assert PLAIN(wide).min() == PLAIN(wide).max() == -1


def test_saved_preprocessing_must_be_whole() -> None:
    for content in (
        {"size": 3},
        {**PLAIN.to_dict(), "interpolation": "lanczos"},
        {**PLAIN.to_dict(), "std": (0, 1, 1)},
    ):
        with pytest.raises(CheckpointError, match=r"is not one of hierderm's|preprocessing must have a size in pixels"):
            Preprocessing.from_dict(content)
