"""Reading images from files, from memory, and finding the ones that cannot be read. PIL only, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from hierderm.errors import HierdermError
from hierderm.progress import track

ImageLike = str | PathLike[str] | Image.Image | npt.NDArray[np.uint8]
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
HASH_SIDE = 16  # the perceptual hash has 16 x 16 bits


class ImageError(HierdermError):
    """An image is missing, truncated or no image."""


def open_image(path: Path) -> Image.Image:
    """The decoded image, RGB, turned as its EXIF orientation requires. ImageError names the file and the reason.

    A damaged image is never replaced by a black one: exclude it with the user's consent, or stop.
    """
    try:
        with Image.open(path) as file:
            return ImageOps.exif_transpose(file).convert("RGB")
    except FileNotFoundError:
        raise ImageError(f"{path}: the file does not exist.") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not an image that can be read ({path.stat().st_size} bytes).") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: the image is damaged ({error}).") from None


def as_image(image: ImageLike) -> Image.Image:
    """An image of any accepted kind as RGB; ImageError where it is none.

    `image`: a path, a PIL image, or a uint8 array of shape (height, width, 3), or (height, width) for grey. A PIL
    image fresh from its file is turned as its EXIF orientation requires, so that it equals its path.
    """
    if isinstance(image, str | PathLike):
        return open_image(Path(image))
    if isinstance(image, Image.Image):
        try:
            fresh = isinstance(image, ImageFile.ImageFile)
            return (ImageOps.exif_transpose(image) if fresh else image).convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageError(f"the PIL image is damaged ({error}).") from None
    if not isinstance(image, np.ndarray):
        raise ImageError(f"an image must be a path, a PIL image or a uint8 array, got {type(image).__name__}.")
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        alpha = image.ndim == 3 and image.shape[2] == 4
        what_to_do = "Drop the alpha channel: image[..., :3]." if alpha else "Scale colours to 0 to 255, channels last."
        raise ImageError(
            "an image as an array must be uint8 of shape (height, width, 3) or (height, width), got "
            f"{image.dtype} {image.shape}. {what_to_do}"
        )
    if not image.size:
        raise ImageError(f"an image must have at least one pixel, got an array of shape {image.shape}.")
    return Image.fromarray(image).convert("RGB")


def each_image(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """One image, or many, as many. An array of four dimensions is many."""
    if isinstance(images, str | PathLike | Image.Image) or (
        isinstance(images, np.ndarray) and images.ndim in (0, 2, 3)
    ):
        return [images]
    if not isinstance(images, Iterable) or isinstance(images, bytes | bytearray | Mapping) or hasattr(images, "read"):
        raise ImageError(
            f"images must be paths, PIL images or arrays, one or several, got {type(images).__name__}. "
            "Open bytes and files with PIL.Image.open."
        )
    return images


def unreadable_images(paths: Sequence[Path], *, decode: bool = True) -> dict[int, str]:
    """Which of `paths` can't be read and why: position -> reason. Without `decode` only existence is checked."""

    def problem(path: Path) -> str:
        if not path.is_file():
            return "the file does not exist"
        if decode:
            try:
                open_image(path)
            except ImageError as error:
                return str(error).removeprefix(f"{path}: ").rstrip(".")
        return ""

    with ThreadPoolExecutor() as pool:
        reasons = track(pool.map(problem, paths), "Checking images", len(paths), unit="images")
        return {position: reason for position, reason in enumerate(reasons) if reason}


def perceptual_hashes(paths: Sequence[Path]) -> npt.NDArray[np.uint64]:
    """The DCT hash of every image, shape (n_images, 4), uint64: 256 bits that survive scaling and compression."""
    from imagehash import phash

    def bits(path: Path) -> npt.NDArray[np.uint8]:
        return np.packbits(phash(open_image(path), hash_size=HASH_SIDE).hash)

    with ThreadPoolExecutor() as pool:
        rows = list(track(pool.map(bits, paths), "Hashing images", len(paths), unit="images"))
    return np.array(rows, dtype=np.uint8).reshape(len(paths), -1).view(np.uint64)
