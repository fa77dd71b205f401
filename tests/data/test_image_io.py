from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hierderm.data.image_io import ImageError, as_image, each_image, open_image, unreadable_images


def test_files_that_are_none(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-1000])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageError, match=r"cut\.jpg: the image is damaged"):
        open_image(tmp_path / "cut.jpg")
    with (
        Image.open(tmp_path / "cut.jpg") as cut,
        pytest.raises(ImageError, match=r"the PIL image is damaged \(image fi"),
    ):
        as_image(cut)
    with pytest.raises(ImageError, match=r"text\.png: not an image that can be read \(8 bytes\)"):
        as_image(tmp_path / "text.png")
    found = unreadable_images([tmp_path / name for name in ("cut.jpg", "text.png", "none.png")])
    assert list(found) == [0, 1, 2] and found[2] == "the file does not exist"


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = as_image(Image.new("RGB", (4, 3), (200, 200, 200)).convert(mode))
    assert (image.mode, image.size) == ("RGB", (4, 3))


def test_one_and_many() -> None:
    pixels = np.zeros((2, 5, 4, 3), dtype=np.uint8)
    assert len(list(each_image(pixels))) == 2 and len(list(each_image(pixels[0]))) == 1
    assert len(list(each_image(pixels[0, ..., 0]))) == len(list(each_image("a.png"))) == 1
    assert list(each_image(["a.png", Path("b.png")])) == ["a.png", Path("b.png")]


@pytest.mark.parametrize("images", [b"abc", {}, 3, io.BytesIO()])
def test_what_is_neither_one_image_nor_several(images: Any) -> None:
    with pytest.raises(ImageError, match="images must be paths, PIL images or arrays, one or several, got"):
        each_image(images)
