"""Reading picture files, and finding the ones that cannot be read. PIL only, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from hierderm.errors import HierdermError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
HASH_SIDE = 16  # the perceptual hash has 16 x 16 bits


class ImageError(HierdermError):
    """A picture is missing, truncated or no picture."""


def open_picture(path: Path) -> Image.Image:
    """The decoded picture, RGB, turned as its EXIF says. ImageError names the file and the reason.

    A damaged picture is never replaced by a black one: exclude it with the user's consent, or stop.
    """
    try:
        with Image.open(path) as file:
            return ImageOps.exif_transpose(file).convert("RGB")
    except FileNotFoundError:
        raise ImageError(f"{path}: the file does not exist.") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not a picture that can be read ({path.stat().st_size} bytes).") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: the picture is damaged ({error}).") from None


def unreadable_pictures(paths: Sequence[Path], *, decode: bool = True) -> dict[int, str]:
    """Which of `paths` can't be read and why: position -> reason. Without `decode` only existence is checked."""

    def problem(path: Path) -> str:
        if not path.is_file():
            return "the file does not exist"
        if decode:
            try:
                open_picture(path)
            except ImageError as error:
                return str(error).removeprefix(f"{path}: ").rstrip(".")
        return ""

    with ThreadPoolExecutor() as pool:
        reasons = tqdm(pool.map(problem, paths), "Checking pictures", len(paths), leave=False, delay=2, disable=None)
        return {position: reason for position, reason in enumerate(reasons) if reason}


def perceptual_hashes(paths: Sequence[Path]) -> npt.NDArray[np.uint64]:
    """The DCT hash of every picture, shape (n_images, 4), uint64: 256 bits that survive scaling and compression."""
    from imagehash import phash

    def bits(path: Path) -> npt.NDArray[np.uint8]:
        return np.packbits(phash(open_picture(path), hash_size=HASH_SIDE).hash)

    with ThreadPoolExecutor() as pool:
        rows = list(tqdm(pool.map(bits, paths), "Hashing pictures", len(paths), leave=False, delay=2, disable=None))
    return np.array(rows, dtype=np.uint8).reshape(len(paths), -1).view(np.uint64)
