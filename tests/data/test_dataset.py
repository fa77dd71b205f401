from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from hierderm.config.methods import Augmentation
from hierderm.data.dataset import Augmenter, ImageDataset, read_pixels
from hierderm.data.image_io import ImageError, open_image
from hierderm.data.preprocessing import Preprocessing
from hierderm.data.table import CaseTable
from hierderm.errors import CheckpointError
from hierderm.json_files import checked

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


def composed(config: Augmentation, size: int) -> v2.Transform:
    """The same changes as torchvision's own chain, which draws as it goes."""
    mode = v2.InterpolationMode
    return v2.Compose(
        [
            v2.RandomRotation([-config.rotation, config.rotation], mode.BILINEAR, fill=127),
            v2.RandomResizedCrop(size, (config.crop, 1.0), (0.8, 1.25), mode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue),
            v2.RandomApply([v2.GaussianBlur(5, (0.1, 1.5))], config.blur),
        ]
    )


def test_augmentation_draws_as_torchvisions_chain_and_threads_do_not_mix() -> None:
    config = Augmentation(blur=0.5)
    augment, chain = Augmenter(config, PLAIN), composed(config, PLAIN.size)
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, 20 + n, 30), generator=generator, dtype=torch.uint8) for n in range(24)]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(augment, images, range(24)))
    assert torch.equal(torch.get_rng_state(), before)
    for seed, (image, one) in enumerate(zip(images, found, strict=True)):
        torch.manual_seed(seed)
        difference = (one.int() - chain(image).int()).abs()
        assert difference.max() <= 1 and difference.count_nonzero() <= 1  # of a blur, by another order of its sums


def test_a_far_larger_image_is_augmented_from_a_smaller_copy(tmp_path: Path) -> None:
    """Of 1.5 times the side, 24 pixels; one that is small enough is left as it is."""
    noise = torch.randint(0, 256, (40, 60, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    large = Image.fromarray(noise)
    large.save(tmp_path / "large.png")
    large.crop((0, 0, 30, 24)).save(tmp_path / "small.png")
    large.thumbnail((36, 36))
    dataset = ImageDataset([tmp_path / "large.png", tmp_path / "small.png"], PLAIN, Augmentation())
    augment = Augmenter(Augmentation(), PLAIN)
    assert torch.equal(dataset.pixels(0), augment(read_pixels(large), 0))
    assert torch.equal(dataset.pixels(1), augment(read_pixels(tmp_path / "small.png"), 1))


def test_a_damaged_image_stops_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        ImageDataset([tmp_path / "bad.jpg"], PLAIN)[0]


def test_crop_and_squash() -> None:
    wide = Image.new("RGB", (40, 20))
    assert PLAIN.pixels(wide).shape == (3, 16, 16)
    crop = Preprocessing(16, PLAIN.mean, PLAIN.std, fit="crop", crop_fraction=0.9)
    assert crop.pixels(wide).shape == (3, 16, 16)
    assert checked(crop.to_dict(), Preprocessing, "x", CheckpointError) == crop
    assert crop.hash != PLAIN.hash
    assert PLAIN(wide).min() == PLAIN(wide).max() == -1


def test_saved_preprocessing_must_be_whole() -> None:
    for content in (
        {"size": 3},
        {**PLAIN.to_dict(), "interpolation": "lanczos"},
        {**PLAIN.to_dict(), "std": (0, 1, 1)},
    ):
        with pytest.raises(
            CheckpointError,
            match=r"json is damaged: '(mean' is missing|interpolation' must be)|preprocessing must have a size in pixels",
        ):
            checked(content, Preprocessing, "hierderm.json", CheckpointError)
