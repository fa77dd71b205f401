"""The one decoder: files, uploads, PIL images and arrays become RGB as a browser shows them, or the reason is reported.

Upright by the orientation they carry, from their colour profile to sRGB, alpha on white, 16 bits scaled to 8. What has
no such reading (floating point, several images in one file) is refused by name. No torch.
"""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, lru_cache
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, UnidentifiedImageError
from simplejpeg import decode_jpeg

from hierderm.errors import HierdermError, MissingExtraError, describe_os_error
from hierderm.progress import track

ImageLike = str | PathLike[str] | Image.Image | npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "BMP", "GIF", "JPEG2000", "PPM")
MAX_PIXELS = 178_000_000  # of an image: half a gigabyte in memory

_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TIFF = (b"II*\0", b"MM\0*")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by the value of EXIF's orientation
_HEADER = Lock()  # filters of warnings are those of the process, so one thread changes them at a time


class ImageError(HierdermError):
    """An image is missing, damaged, no image, or of a kind that has no reading."""


class NotAnImageError(ImageError):
    """A file is no image, or of a kind that is not read."""


class TooLargeError(ImageError):
    """An image has too many pixels."""


def open_image(path: str | PathLike[str], *, least_side: int = 0) -> Image.Image:
    """The decoded image of a file: RGB, upright, sRGB, without metadata. ImageError names the file and the reason.

    `least_side`: for small views only; a JPEG may be decoded at a fraction of its size, no side below this. A damaged
    image is never replaced by a black one: exclude it with the user's consent, or stop.
    """
    try:
        require_file(path)
        with Path(path).open("rb") as stream:
            return decode(stream, least_side=least_side)
    except ImageError as error:
        raise type(error)(f"{path}: {error}") from None
    except (OSError, ValueError) as error:
        reason = describe_os_error(error) if isinstance(error, OSError) else f"{error}."
        raise ImageError(f"{path}: it can't be read ({reason.removeprefix(f'{path}: ')})") from None


def require_file(path: str | PathLike[str]) -> None:
    """ImageError where there is no regular file: a pipe or a device would never end."""
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError("the file does not exist.") from None
    if stat.S_ISDIR(mode):
        raise ImageError("it is a folder, not an image.")
    if not stat.S_ISREG(mode):
        raise ImageError("it is a pipe, a socket or a device, not an image file.")


def is_image(path: str | PathLike[str]) -> bool:
    """Whether a file begins as an image does, whatever its suffix."""
    try:
        with Path(path).open("rb") as stream, _opened(stream, FORMATS):
            return True
    except (OSError, NotAnImageError):
        return False
    except (ImageError, Image.DecompressionBombError):
        return True  # a damaged one, or one that takes more to be read


def format_of(content: bytes) -> str:
    """The format of an image's file in lower case, such as 'jpeg'; '' where it is none that can be read."""
    try:
        with _opened(io.BytesIO(content), FORMATS) as file:
            return (file.format or "").lower()
    except (ImageError, OSError, Image.DecompressionBombError):
        return ""


def decode(
    stream: BinaryIO, *, formats: Sequence[str] = FORMATS, max_pixels: int = MAX_PIXELS, least_side: int = 0
) -> Image.Image:
    """As `open_image`, from an open file. The header is read first: too large an image takes no memory."""
    try:
        with _opened(stream, formats) as file:
            width, height = file.size
            if width * height > max_pixels:
                raise TooLargeError(
                    f"an image must have at most {max_pixels / 1e6:g} megapixels, got {width} x {height}."
                )
            if least_side:
                file.draft(None, (least_side, least_side))  # of formats other than JPEG it changes nothing
            return _as_srgb(file)
    except Image.DecompressionBombError:
        raise TooLargeError(f"an image must have at most {max_pixels / 1e6:g} megapixels, it has far more.") from None


def _plain_jpeg(path: str | PathLike[str]) -> bytes | None:
    """The content of a JPEG file that any decoder reads as `open_image` does: RGB, upright, no profile that matters.

    None of all other files, also of those that can't be read: `open_image` says why.
    """
    try:
        require_file(path)
        with Path(path).open("rb") as stream, _opened(stream, ("JPEG",)) as file:
            size, n_pixels = stream.seek(0, io.SEEK_END), file.width * file.height
            plain = (
                file.format == "JPEG"  # not several in one file
                and file.mode == "RGB"
                and n_pixels <= MAX_PIXELS
                and size <= 3 * n_pixels  # a film after a photograph is not read into memory
                and _orientation(file) not in _TURNS
                and _to_srgb(file.info.get("icc_profile") or b"", "RGB") is None
            )
            stream.seek(0)
            return stream.read() if plain else None
    except (ImageError, OSError, ValueError, Image.DecompressionBombError):
        return None


def _opened(stream: BinaryIO, formats: Sequence[str]) -> Image.Image:
    start = stream.read(16)
    heif = start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS
    try:
        stream.seek(0)
        with _HEADER, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower and an error
            return Image.open(stream, formats=[name for name in formats if name != "HEIF"])
    except UnidentifiedImageError:
        if not (heif and "HEIF" in formats):
            if start[:4] in _TIFF and "TIFF" in formats:
                raise ImageError(
                    "a TIFF image that is damaged, or of a kind that can't be read, such as floating point colours. "
                    "Save it as RGB, or as grey, of 8 or 16 bits."
                ) from None
            if not (size := stream.seek(0, io.SEEK_END)):
                raise NotAnImageError("the file is empty.") from None
            read = ", ".join(formats)
            raise NotAnImageError(f"not an image that can be read ({size} bytes). Those of {read} can.") from None
    except Image.DecompressionBombError:
        raise
    except Exception as error:  # plugins of PIL raise all kinds of errors on damaged files
        raise ImageError(f"the image is damaged ({_brief(error)}).") from None
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(f"a HEIC image. {MissingExtraError('Reading HEIC', 'heif')}") from None
    try:
        stream.seek(0)
        opened: Image.Image = pillow_heif.HeifImageFile(stream)  # type: ignore[no-untyped-call]
        return opened
    except Exception as error:
        raise ImageError(f"the image is damaged ({_brief(error)}).") from None


def as_image(image: ImageLike) -> Image.Image:
    """An image of any accepted kind as RGB, as `open_image` reads it; ImageError where it is none.

    `image`: a path; a PIL image, which is turned by the orientation and read by the profile that it carries; or an
    array of uint8 or uint16, shape (height, width) for grey, or (height, width, 3), or 4 with alpha.
    """
    if isinstance(image, str | PathLike):
        return open_image(image)
    if isinstance(image, Image.Image):
        return _as_srgb(image, "the PIL image")
    if not isinstance(image, np.ndarray):
        raise ImageError(f"an image must be a path, a PIL image or an array, got {type(image).__name__}.")
    pixels = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    if (
        image.dtype.type not in (np.uint8, np.uint16)
        or pixels.ndim not in (2, 3)
        or pixels.shape[2:] not in ((), (3,), (4,))
    ):
        raise ImageError(
            "an image as an array must be uint8 or uint16, of shape (height, width), or (height, width, 3 or 4), got "
            f"{image.dtype} {image.shape}. Scale colours to 0 to 255, channels last."
        )
    if not pixels.size:
        raise ImageError(f"an image must have at least one pixel, got an array of shape {image.shape}.")
    eight = _eight_bits(pixels, 65535) if pixels.dtype.type is np.uint16 else np.ascontiguousarray(pixels)
    return _as_srgb(Image.fromarray(eight), "the array")


def as_pixels(image: ImageLike) -> npt.NDArray[np.uint8]:
    """As `as_image`, but a new array, shape (height, width, 3).

    Ordinary JPEG files are decoded without PIL, which copies them three times; by libjpeg-turbo in either case.
    """
    content = _plain_jpeg(image) if isinstance(image, str | PathLike) else None
    if content is not None:
        with suppress(ValueError):  # of damaged ones PIL reads some, and says of others what is wrong
            pixels: npt.NDArray[np.uint8] = decode_jpeg(content)
            return pixels
    return np.array(as_image(image))


def each_image(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """One image, or many, as many. An array of four dimensions is many."""
    if isinstance(images, str | PathLike | Image.Image) or (
        isinstance(images, np.ndarray) and images.ndim < 4 and (images.ndim == 0 or images.dtype.kind not in "OU")
    ):
        return [images]
    foreign = isinstance(images, bytes | bytearray | Mapping | Set)  # the last two have no order
    if not isinstance(images, Iterable) or foreign or hasattr(images, "read") or hasattr(images, "columns"):
        raise ImageError(
            f"images must be paths, PIL images or arrays, one or several, got {type(images).__name__}. "
            "Give several as a list, and open bytes and files with PIL.Image.open."
        )
    return images


# --- the steps of decoding ---------------------------------------------------------------------------------------


def _as_srgb(image: Image.Image, name: str = "the image") -> Image.Image:
    """A new image: RGB, upright, sRGB, on white, without metadata. `name`: what messages call it."""
    if 0 in image.size:
        raise ImageError(f"{name} must have at least one pixel, got {image.width} x {image.height}.")
    try:
        frames = getattr(image, "n_frames", 1)
        image.load()
        turn = _TURNS.get(_orientation(image))
        grey = _grey_of_16_bits(image)
    except Exception as error:  # plugins of PIL raise all kinds of errors on damaged files
        raise ImageError(f"{name} is damaged ({_brief(error)}).") from None
    if frames > 1 and image.format not in ("MPO", "HEIF"):  # those of phones: the first is the photograph
        raise ImageError(f"{name} holds {frames} images ({image.format}). Save the one that is meant.")
    if getattr(image, "tag_v2", {}).get(254) in (1, 4, 5):
        raise ImageError(
            f"{name} is a reduced copy or a mask of another one, as raw files of cameras begin with. Save that one, "
            "e.g. as JPEG or PNG."
        )
    if grey is None and image.mode not in _MODES:
        raise ImageError(
            f"{name} is of mode '{image.mode}', whose black and white are not fixed. Save it as RGB, or as grey "
            "of 8 or 16 bits."
        )
    colours, alpha = (grey, None) if grey is not None else _split(image)
    transform = _to_srgb(image.info.get("icc_profile") or b"", colours.mode)
    if transform is not None:
        rgb = transform.apply(colours)
    else:
        rgb = colours if colours.mode == "RGB" else colours.convert("RGB")  # a new image in either case
        if (exponent := _exponent_of_png(image)) != 1:
            rgb = rgb.point([round(255 * (value / 255) ** exponent) for value in range(256)] * 3)
    if alpha is not None:
        white = Image.new("RGB", rgb.size, "white")
        white.paste(rgb, mask=alpha)
        rgb = white
    rgb = rgb if turn is None else rgb.transpose(turn)
    rgb.info = {}
    return rgb


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF says nothing; browsers show such an image as it lies
        return 1


def _grey_of_16_bits(image: Image.Image) -> Image.Image | None:
    """Grey of 8 bits from a mode of 16; None of another mode."""
    tags: Any = getattr(image, "tag_v2", {})  # of a TIFF
    if image.mode.startswith("I;16"):
        bits = max(tags.get(258) or (16,))
    elif image.mode == "I" and image.format == "PPM":  # which PIL scales to 16 bits
        bits = 16
    else:
        return None
    values = np.asarray(image)
    grey = _eight_bits(values, 2**bits - 1)
    if tags.get(262) == 0:  # white is zero; PIL turns this round for 8 bits alone
        grey = 255 - grey
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey)


def _eight_bits(values: npt.NDArray[Any], white: int) -> npt.NDArray[np.uint8]:
    scaled = (values.astype(np.int64) * 255 + white // 2) // white
    return scaled.clip(0, 255).astype(np.uint8)


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours, in the mode of their profile (L, RGB or CMYK), and the alpha channel where there is one."""
    image = image.convert(image.mode.upper()) if image.mode in ("La", "RGBa") else image
    alpha = None
    if image.has_transparency_data:
        key = image.info.get("transparency")
        if isinstance(key, tuple) and max(key) > 255:  # of 16 bits, while PIL reads the colours with 8
            image = image.copy()
            image.info["transparency"] = tuple(value >> 8 for value in key)
        shown = image.convert("RGBA")
        alpha = shown.getchannel("A")
        image = shown if image.mode in ("P", "PA") else image
    if image.mode in ("L", "LA", "1"):
        return image.convert("L"), alpha
    return (image if image.mode == "CMYK" else image.convert("RGB")), alpha


def _exponent_of_png(image: Image.Image) -> float:
    """What brings the colours of a PNG that names its gamma, and no profile, to sRGB's gamma of about 1 / 2.2."""
    gamma = image.info.get("gamma", 0)
    if "icc_profile" in image.info or "srgb" in image.info or not 0.05 < gamma < 5:
        return 1.0
    exponent = 1 / (2.2 * gamma)
    return 1.0 if abs(exponent - 1) < 0.05 else float(exponent)


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@lru_cache(maxsize=64)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What brings colours of a profile to sRGB; None where it would change nothing to speak of.

    A profile that is damaged, or of other colours than the image's, says nothing: browsers ignore it, too.
    """
    if not profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != {"L": "GRAY"}.get(mode, mode):
            return None
        transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if mode == "CMYK":
        return transform
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    grid = steps[None] if mode == "L" else np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    colours = Image.fromarray(grid)
    changed = np.asarray(transform.apply(colours)).astype(int) - np.asarray(colours.convert("RGB"))
    return transform if np.abs(changed).max() > 3 else None  # one of the many profiles that are sRGB


def _brief(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:100]


# --- many files --------------------------------------------------------------------------------------------------


def unreadable_images(paths: Sequence[str | PathLike[str]], *, decode: bool = True) -> dict[int, str]:
    """Which of `paths` can't be read and why: position -> reason. Without `decode` only existence is checked."""

    def problem(path: str | PathLike[str]) -> str:
        try:
            if decode:
                as_pixels(path)
            else:
                require_file(path)
        except ImageError as error:
            return str(error).removeprefix(f"{path}: ").rstrip(".")
        except (OSError, ValueError) as error:
            return f"it can't be read ({error})"
        return ""

    with ThreadPoolExecutor() as pool:
        reasons = track(pool.map(problem, paths), "Checking images", len(paths), unit="images")
        return {position: reason for position, reason in enumerate(reasons) if reason}
