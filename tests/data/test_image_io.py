"""The one decoder: every kind of picture beside the same picture in plain RGB."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from hierderm.data import image_io
from hierderm.data.image_io import (
    ImageError,
    TooLargeError,
    as_image,
    as_pixels,
    decode,
    each_image,
    open_image,
    unreadable_images,
)

RAMP = np.linspace(40, 200, 24, dtype=np.uint8)[None] * np.ones((16, 1), dtype=np.uint8)  # grey, 24 wide, 16 high
COLOUR = np.stack([RAMP, RAMP[::-1, ::-1], np.full_like(RAMP, 90)], axis=-1)


def worst(found: Image.Image, expected: np.ndarray[Any, Any]) -> int:
    """The largest difference of a decoded image from pixels, shape (height, width) or (height, width, 3)."""
    wanted = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)
    assert (found.mode, found.size, found.info) == ("RGB", wanted.shape[1::-1], {})
    return int(np.abs(np.asarray(found).astype(int) - wanted).max())


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def gamut(mode: Literal["sRGB", "LAB"], exponent: float) -> bytes:
    """An ICC profile as bytes: sRGB with its first tone curve's exponent changed, or LAB."""
    profile = ImageCms.ImageCmsProfile(
        ImageCms.createProfile(mode, 6500) if mode == "LAB" else ImageCms.createProfile(mode)
    )
    content = bytearray(profile.tobytes())
    at = content.find(b"para")
    if exponent:
        for number in range(content.count(b"para")):
            at = content.find(b"para", 0 if not number else at + 1)
            content[at + 12 : at + 16] = round(exponent * 65536).to_bytes(4, "big")
    return bytes(content)


# --- orientation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_orientation_is_honoured_by_every_door(tmp_path: Path, orientation: int, suffix: str) -> None:
    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[0x0112] = orientation
    lossless: dict[str, dict[str, Any]] = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}
    path = saved(tmp_path / f"turned.{suffix}", image, exif=exif, **lossless.get(suffix, {}))
    turned = {
        1: COLOUR, 2: COLOUR[:, ::-1], 3: COLOUR[::-1, ::-1], 4: COLOUR[::-1], 5: COLOUR.swapaxes(0, 1),
        6: COLOUR[::-1].swapaxes(0, 1), 7: COLOUR[::-1, ::-1].swapaxes(0, 1), 8: COLOUR.swapaxes(0, 1)[::-1],
    }[orientation]  # fmt: skip
    first = open_image(path)
    assert worst(first, turned) <= 12
    with Image.open(path) as opened:
        others = [
            as_image(opened.copy()),
            as_image(opened.convert("RGB")),
            as_image(opened),
            decode(io.BytesIO(path.read_bytes())),
        ]
    assert all(worst(other, np.asarray(first)) == 0 for other in others)
    assert np.array_equal(as_pixels(path), np.asarray(first))
    assert worst(as_image(first), np.asarray(first)) == 0  # what is upright is not turned again


def test_damaged_exif_says_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(COLOUR), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xffnonsense")
    assert worst(open_image(path), COLOUR) == 0


# --- colours ------------------------------------------------------------------------------------------------------


def test_a_profile_is_brought_to_srgb(tmp_path: Path) -> None:
    """A tone curve of exponent 1 instead of 2.4 (with sRGB's other terms): the pixel values are nearly light itself."""
    linear = gamut("sRGB", 1.0)
    path = saved(tmp_path / "linear.png", Image.fromarray(COLOUR), icc_profile=linear)
    source, srgb = (ImageCms.ImageCmsProfile(io.BytesIO(linear)), ImageCms.createProfile("sRGB"))
    expected = np.asarray(ImageCms.profileToProfile(Image.fromarray(COLOUR), source, srgb))
    assert np.abs(expected.astype(int) - COLOUR).max() > 30
    assert worst(open_image(path), expected) <= 1
    with Image.open(path) as opened:
        assert worst(as_image(opened), expected) <= 1
    rgba = Image.fromarray(np.dstack([COLOUR, np.full_like(RAMP, 255)]))
    assert worst(open_image(saved(tmp_path / "rgba.png", rgba, icc_profile=linear)), expected) <= 1


@pytest.mark.parametrize("profile", [gamut("sRGB", 0), gamut("LAB", 0), b"no profile", b""])
def test_profiles_that_change_nothing(tmp_path: Path, profile: bytes) -> None:
    """sRGB itself, one of other colours than the image's, and a damaged one."""
    path = saved(tmp_path / "a.png", Image.fromarray(COLOUR), icc_profile=profile)
    assert worst(open_image(path), COLOUR) == 0


@pytest.mark.parametrize(("gamma", "exponent"), [(1.0, 1 / 2.2), (1 / 2.2, 1), (1 / 1.8, 1.8 / 2.2), (0, 1)])
def test_the_gamma_that_a_png_names(tmp_path: Path, gamma: float, exponent: float) -> None:
    from PIL.PngImagePlugin import PngInfo

    named = PngInfo()
    named.add(b"gAMA", round(gamma * 100_000).to_bytes(4, "big"))
    path = saved(tmp_path / "a.png", Image.fromarray(COLOUR), pnginfo=named)
    assert worst(open_image(path), np.round(255 * (COLOUR / 255) ** exponent)) <= 1
    with Image.open(path) as opened:
        assert worst(as_image(opened.copy()), np.asarray(open_image(path))) == 0
    both = saved(tmp_path / "b.png", Image.fromarray(COLOUR), pnginfo=named, icc_profile=gamut("sRGB", 0))
    assert worst(open_image(both), COLOUR) == 0  # a profile says more


def test_cmyk_without_a_profile_is_read_as_browsers_do(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(COLOUR).convert("CMYK"))
    assert worst(open_image(path), COLOUR) <= 1


# --- alpha --------------------------------------------------------------------------------------------------------


def cutout(hidden: int) -> Image.Image:
    pixels = np.dstack([COLOUR, np.zeros_like(RAMP)])
    pixels[4:12, 4:12, 3] = 255
    pixels[pixels[..., 3] == 0, :3] = hidden
    return Image.fromarray(pixels)


def quantized(image: Image.Image) -> Image.Image:
    return image.quantize(200, method=Image.Quantize.FASTOCTREE)


def keyed(image: Image.Image) -> Image.Image:
    """RGB whose transparent pixels have one colour of their own, named as such."""
    pixels = np.asarray(image).copy()
    pixels[pixels[..., 3] == 0] = (1, 2, 3, 0)
    made = Image.fromarray(pixels[..., :3])
    made.info["transparency"] = (1, 2, 3)
    return made


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize("hidden", [0, 99, 255])
def test_alpha_lies_on_white_whatever_it_hides(tmp_path: Path, suffix: str, hidden: int) -> None:
    expected = np.full_like(COLOUR, 255)
    expected[4:12, 4:12] = COLOUR[4:12, 4:12]
    options = {"lossless": True} if suffix == "webp" else {}
    assert worst(open_image(saved(tmp_path / f"a.{suffix}", cutout(hidden), **options)), expected) == 0
    assert worst(as_image(np.asarray(cutout(hidden))), expected) == 0


@pytest.mark.parametrize(
    "change", [quantized, keyed, lambda i: i.convert("RGBa"), lambda i: i.convert("LA").convert("La")]
)
def test_every_kind_of_transparency(tmp_path: Path, change: Callable[[Image.Image], Image.Image]) -> None:
    changed = change(cutout(77))
    found = np.asarray(as_image(changed))
    assert (found[:3] == 255).all() and (found[13:] == 255).all() and (found[4:12, 4:12] < 255).any()
    if changed.mode in ("P", "RGB"):
        again = open_image(saved(tmp_path / "a.png", changed, transparency=changed.info.get("transparency")))
        assert worst(again, found) == 0


def test_half_transparent_is_half_white() -> None:
    assert np.asarray(as_image(Image.new("RGBA", (1, 1), (100, 0, 200, 128)))).ravel().tolist() == [177, 127, 227]


# --- depth --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif", "jp2"])
def test_16_bit_grey_is_scaled(tmp_path: Path, suffix: str) -> None:
    sixteen = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert worst(open_image(saved(tmp_path / f"a.{suffix}", sixteen)), RAMP) == 0
    with Image.open(tmp_path / f"a.{suffix}") as opened:
        assert worst(as_image(opened), RAMP) == 0


def test_16_bits_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 24 16 4095\n" + (RAMP.astype(np.uint16) * 16).astype(">u2").tobytes())
    assert worst(open_image(tmp_path / "a.pgm"), RAMP) <= 1
    negative = saved(tmp_path / "a.tif", Image.fromarray(65535 - RAMP.astype(np.uint16) * 257), tiffinfo={262: 0})
    assert worst(open_image(negative), RAMP) == 0
    assert worst(as_image(RAMP.astype(np.uint16) * 257), RAMP) == 0
    assert worst(as_image(COLOUR.astype(np.uint16) * 257), COLOUR) == 0
    assert worst(as_image((RAMP.astype(np.uint16) * 257).astype(">u2")), RAMP) == 0
    assert worst(as_image(RAMP[..., None]), RAMP) == 0


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_modes_without_a_fixed_white_are_refused_by_name(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (4, 3))
    with pytest.raises(ImageError, match=f"the PIL image is of mode '{mode}', whose black and white are not fixed"):
        as_image(image)
    with pytest.raises(ImageError, match=rf"a\.tif: the image is of mode '{mode}'"):
        open_image(saved(tmp_path / "a.tif", image))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_every_other_mode_becomes_rgb(mode: str) -> None:
    white = as_image(Image.new("RGB", (4, 3), "white").convert(mode))
    assert worst(white, np.full((3, 4), 255)) <= 1


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["gif", "png", "tif", "webp"])
def test_several_images_in_a_file_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(COLOUR), Image.fromarray(COLOUR[:, ::-1])]
    path = saved(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match=r"the image holds 2 images \(\w+\)\. Save the one that is meant"):
        open_image(path)


def test_the_first_image_of_a_phones_file_is_the_photograph(tmp_path: Path) -> None:
    frames = [Image.fromarray(COLOUR), Image.fromarray(COLOUR[:, ::-1])]
    path = saved(tmp_path / "a.mpo", frames[0], save_all=True, append_images=frames[1:], quality=98, subsampling=0)
    assert worst(open_image(path), COLOUR) <= 8


def test_avif_and_heic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pillow_heif

    assert worst(open_image(saved(tmp_path / "a.avif", Image.fromarray(COLOUR), quality=100)), COLOUR) <= 12
    pillow_heif.from_pillow(Image.fromarray(COLOUR)).save(tmp_path / "a.heic", quality=100)
    assert worst(open_image(tmp_path / "a.heic"), COLOUR) <= 12
    assert "HEIF" not in Image.OPEN  # nothing of the process is changed
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"a HEIC image\. .* pip install 'hierderm\[heif\]'"):
        open_image(tmp_path / "a.heic")


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
    with pytest.raises(
        ImageError, match=r"text\.png: not an image that can be read \(8 bytes\)\. Those of JPEG, .* can"
    ):
        as_image(str(tmp_path / "text.png"))
    found = unreadable_images([tmp_path / name for name in ("cut.jpg", "text.png", "none.png")])
    assert list(found) == [0, 1, 2] and found[2] == "the file does not exist"


def test_what_is_no_file_is_named_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path, message in (
        (tmp_path / "pipe.png", "a pipe, a socket or a device"),
        (Path("/dev/zero"), "a pipe, a socket or a device"),
        (tmp_path, "it is a folder, not an image"),
        (tmp_path / "a\0b.png", "it can't be read"),
        (tmp_path / ("n" * 300 + ".png"), "File name too long"),
    ):
        with pytest.raises(ImageError, match=message):
            open_image(path)
        with pytest.raises(ImageError, match=message):
            as_pixels(path)
        for decoded in (True, False):
            assert list(unreadable_images([path], decode=decoded)) == [0]


def test_too_many_pixels_are_refused_by_the_header_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bomb.pgm").write_bytes(b"P5 60000 50000 255\n")
    with pytest.raises(TooLargeError, match=r"bomb\.pgm: an image must have at most 178 megapixels"):
        open_image(tmp_path / "bomb.pgm")
    (tmp_path / "large.pgm").write_bytes(b"P5 12000 9000 255\n")  # a phone's 108 megapixels: no warning
    with pytest.raises(ImageError, match="damaged"):
        open_image(tmp_path / "large.pgm")
    monkeypatch.setattr(image_io, "MAX_PIXELS", 300)
    with pytest.raises(TooLargeError, match="got 24 x 16"):
        decode(io.BytesIO(saved(tmp_path / "a.png", Image.fromarray(COLOUR)).read_bytes()), max_pixels=300)


@pytest.mark.filterwarnings("ignore::UserWarning")  # PIL's, of damaged tags
@settings(max_examples=60)
@given(st.data())
def test_damaged_files_are_named_and_nothing_else_is_raised(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "AVIF"]))
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, kind)
    content = bytearray(buffer.getvalue()[: data.draw(st.integers(1, len(buffer.getvalue())))])
    for _ in range(data.draw(st.integers(0, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode(io.BytesIO(bytes(content)), max_pixels=10_000).mode == "RGB"
    except ImageError as error:
        assert str(error).endswith((".", ")."))


# --- arrays -------------------------------------------------------------------------------------------------------

PHOTOGRAPH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((213, 160))
ORDINARY: list[dict[str, Any]] = [
    {}, {"quality": 98}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"restart_marker_rows": 1},
    {"icc_profile": gamut("sRGB", 0)}, {"icc_profile": b"no profile"}, {"comment": "x" * 9000},
]  # fmt: skip


@pytest.mark.parametrize("options", ORDINARY)
def test_an_ordinary_jpeg_has_the_same_pixels_without_pil(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    path = saved(tmp_path / "a.jpg", PHOTOGRAPH, **options)
    expected = np.array(open_image(path))
    monkeypatch.setattr(image_io, "as_image", None)
    found = as_pixels(path)
    assert found.dtype == np.uint8 and found.flags.writeable and found.flags.c_contiguous
    assert np.array_equal(found, expected) and np.array_equal(as_pixels(str(path)), expected)


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("profile.jpg", "RGB", {"icc_profile": gamut("sRGB", 1.0)}),
        ("grey.jpg", "L", {}),
        ("print.jpg", "CMYK", {}),
        ("phone.mpo", "RGB", {"save_all": True, "append_images": [PHOTOGRAPH.rotate(180)]}),
        ("a.png", "RGBA", {}),
        ("long.jpg", "RGB", {"comment": "x" * 60_000}),
    ],
)
def test_other_files_have_the_pixels_of_open_image(
    tmp_path: Path, name: str, mode: str, options: dict[str, Any]
) -> None:
    image = PHOTOGRAPH.convert(mode)
    if name == "long.jpg":  # more metadata than pixels
        image = image.resize((40, 30))
    path = saved(tmp_path / name, image, **options)
    assert np.array_equal(as_pixels(path), np.asarray(open_image(path)))
    assert image_io._plain_jpeg(path) is None


def test_a_jpeg_with_too_many_pixels_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.jpg", PHOTOGRAPH)
    assert image_io._plain_jpeg(path) == path.read_bytes()
    monkeypatch.setattr(image_io, "MAX_PIXELS", 213 * 160 - 1)
    assert image_io._plain_jpeg(path) is None


def test_pixels_of_images_in_memory_are_a_copy() -> None:
    assert np.array_equal(as_pixels(PHOTOGRAPH), np.asarray(PHOTOGRAPH))
    given_pixels = COLOUR.copy()
    as_pixels(given_pixels)[:] = 0
    assert np.array_equal(given_pixels, COLOUR)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_jpeg_has_the_pixels_or_the_message_of_open_image(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(saved(tmp_path / "a.jpg", PHOTOGRAPH, **data.draw(st.sampled_from(ORDINARY))).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.jpg"
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) - 2, len(content) // 2]))])

    def outcome(read: Callable[[Path], Any]) -> Any:
        try:
            return np.asarray(read(path)).tolist()
        except ImageError as error:
            return str(error)

    assert outcome(as_pixels) == outcome(open_image)


# --- one and many -------------------------------------------------------------------------------------------------


def test_one_and_many() -> None:
    pixels = np.zeros((2, 5, 4, 3), dtype=np.uint8)
    assert len(list(each_image(pixels))) == 2 and len(list(each_image(pixels[0]))) == 1
    assert len(list(each_image(pixels[0, ..., 0]))) == len(list(each_image("a.png"))) == 1
    assert list(each_image(np.array(["a.png", "b.png"]))) == list(each_image(pd.Series(["a.png", "b.png"])))
    assert len(list(each_image(pixels[0, 0, :, 0]))) == 1  # which is no image, as `as_image` says
    assert list(each_image(["a.png", Path("b.png")])) == ["a.png", Path("b.png")]


@pytest.mark.parametrize("images", [b"abc", {}, {"a.png"}, 3, io.BytesIO(), pd.DataFrame({"a": ["b.png"]})])
def test_what_is_neither_one_image_nor_several(images: Any) -> None:
    with pytest.raises(ImageError, match="images must be paths, PIL images or arrays, one or several, got"):
        each_image(images)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros(4, np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((4, 4), np.int32),
    ],
)
def test_arrays_that_are_no_image(pixels: Any) -> None:
    with pytest.raises(ImageError, match=r"must be uint8 or uint16, of shape .* Scale colours to 0 to 255"):
        as_image(pixels)


def test_images_are_opened_in_one_place_alone() -> None:
    root = Path(image_io.__file__).parents[1]
    opening = [path.name for path in root.rglob("*.py") if "Image.open(" in path.read_text(encoding="utf-8")]
    assert opening == ["image_io.py"]


def test_a_jpeg_for_a_small_view_is_decoded_at_a_fraction(tmp_path: Path) -> None:
    whole = Image.new("RGB", (800, 400), (200, 120, 110))
    whole.save(tmp_path / "x.jpg")
    whole.save(tmp_path / "x.png")
    small = open_image(tmp_path / "x.jpg", least_side=100)
    assert small.size == (200, 100)  # a quarter; an eighth would be too small
    np.testing.assert_allclose(np.asarray(small).mean(axis=(0, 1)), (200, 120, 110), atol=2)
    assert open_image(tmp_path / "x.jpg").size == open_image(tmp_path / "x.png", least_side=100).size == (800, 400)


def test_the_reduced_copy_of_a_raw_file_is_not_the_photograph(tmp_path: Path) -> None:
    for kind in (1, 4):
        path = saved(tmp_path / "a.tif", Image.fromarray(COLOUR), tiffinfo={254: kind})
        with pytest.raises(ImageError, match=r"a\.tif: the image is a reduced copy or a mask of another one, as raw"):
            open_image(path)
    assert worst(open_image(saved(tmp_path / "a.tif", Image.fromarray(COLOUR), tiffinfo={254: 0})), COLOUR) == 0


def test_a_kind_of_tiff_that_is_not_read_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(COLOUR))
    eight = (3).to_bytes(2, "little") + (3).to_bytes(4, "little")  # of tag 258, bits of three colours: 24 of each
    content = path.read_bytes()
    at = int.from_bytes(content[content.find(b"\x02\x01" + eight) + 8 :][:4], "little")
    path.write_bytes(content[:at] + b"\x18\0" * 3 + content[at + 6 :])
    with pytest.raises(
        ImageError, match=r"a\.tif: a TIFF image that is damaged, or of a kind that can't be read, such"
    ):
        open_image(path)
    (tmp_path / "none.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"none\.jpg: the file is empty\."):
        open_image(tmp_path / "none.jpg")
