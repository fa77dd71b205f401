"""Images in folders: which files are images, what is left out and why, and files whose names are spelt another way."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

from hierderm.data.image_io import is_image
from hierderm.errors import some_of
from hierderm.files import file_hash
from hierderm.progress import track

SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff", ".bmp",
    ".dib", ".gif", ".jp2", ".j2k", ".pgm", ".ppm",
))  # fmt: skip
_HIDDEN = "hidden"
_AT_ONCE = 32  # files that a thread looks at before it takes others
_HASHES: dict[tuple[str, int, int, int, int], str] = {}  # by path, size, times and place on the disk


@dataclass
class ImageFolder:
    """What a folder holds. `images`: its image files, sorted; `left_out`: everything else by reason, each named."""

    images: list[Path] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        self.left_out.setdefault(reason, []).append(name)

    def in_words(self) -> str:
        """What was left out, in brackets; '' where nothing was."""
        parts = [f"{len(names)} {reason}: {some_of(names)}" for reason, names in self.left_out.items()]
        return f" (left out: {'; '.join(parts)})" if parts else ""


def find_images(folder: str | Path) -> ImageFolder:
    """All images in a folder and below; links are followed.

    A file is an image by a suffix of `SUFFIXES`, in any case, or else by its content. Everything else is left out and
    named: hidden files and folders (as macOS writes beside images), links that lead nowhere or back, names that are no
    text, other files, and folders without an image.
    """
    found, folder = ImageFolder(), Path(folder)
    for place, folders, files in _walk(folder, found):
        before = len(found.images)
        for name in sorted(files):
            _sort_in(found, folder, place / name)
        if not folders and len(found.images) == before and place != folder:
            found.leave_out("folder(s) without an image", str(place.relative_to(folder)))
    found.images.sort()
    return found


def _walk(folder: Path, found: ImageFolder) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As os.walk, with links followed unless they lead back, and without hidden folders."""

    def unreadable(error: OSError) -> None:
        found.leave_out("folder(s) that can't be read", str(error.filename))

    above: dict[Path, set[tuple[int, int]]] = {folder: set()}
    for root, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        here = Path(root).stat()
        line = above.pop(Path(root)) | {(here.st_dev, here.st_ino)}
        kept = []
        for name in sorted(folders):
            place = Path(root) / name
            shown, status = str(place.relative_to(folder)), place.stat()
            if name.startswith(".") or name == "__MACOSX":
                found.leave_out(_HIDDEN, shown)
            elif (status.st_dev, status.st_ino) in line:
                found.leave_out("link(s) that lead back to a folder above", shown)
            else:
                kept.append(name)
                above[place] = line
        folders[:] = kept
        yield Path(root), kept, files


def _sort_in(found: ImageFolder, folder: Path, path: Path) -> None:
    shown = str(path.relative_to(folder))
    if ascii(shown) != ascii(shown.encode(errors="replace").decode()):
        found.leave_out("file(s) whose names are not UTF-8", ascii(shown))
    elif path.name.startswith("."):
        found.leave_out(_HIDDEN, shown)
    elif not path.exists():
        found.leave_out("link(s) that lead nowhere", shown)
    elif not path.is_file():
        found.leave_out("pipe(s), socket(s) or device(s)", shown)
    elif path.suffix.lower() in SUFFIXES or is_image(path):
        found.images.append(path)
    else:
        found.leave_out("no image(s)", shown)


def file_hashes(paths: Sequence[Path]) -> list[str]:
    """The hash of each file as it is now, '' where none can be read; read again only when it has changed."""

    def found(path: Path) -> str:
        try:
            status = path.stat()
            key = (str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            if key not in _HASHES:
                _HASHES[key] = file_hash(path)
        except (OSError, ValueError):
            return ""
        return _HASHES[key]

    def found_in(part: Sequence[Path]) -> list[str]:
        return [found(path) for path in part]

    parts = [paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE)]
    with ThreadPoolExecutor() as pool:
        hashes = chain.from_iterable(pool.map(found_in, parts))
        return list(track(hashes, "Reading images", len(paths), unit="images"))


class Spellings:
    """Files by names that are spelt another way: with backslashes, other Unicode forms or case, or without a suffix."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def find(self, root: Path, name: str) -> str | None:
        """The name, below `root`, of the only file that `name` can mean; None where there is none, or several."""
        place = Path("/") if (parts := name.replace("\\", "/")).startswith("/") else Path()
        wanted = [part for part in parts.split("/") if part not in ("", ".")]
        for number, part in enumerate(wanted):
            names = self._names(root / place)
            fit = names.get(_key(part), [])
            if not fit and number == len(wanted) - 1 and Path(part).suffix.lower() not in SUFFIXES:
                fit = [entry for suffix in sorted(SUFFIXES) for entry in names.get(_key(part + suffix), [])]
            if part in fit or part == "..":
                fit = [part]
            if len(fit) != 1:
                return None
            place /= fit[0]
        return str(place) if (root / place).is_file() else None

    def beside(self, path: Path) -> list[str]:
        """Files that differ from `path` in nothing but their suffix."""
        entries = [entry for names in self._names(path.parent).values() for entry in names]
        return [entry for entry in entries if _key(Path(entry).stem) == _key(path.stem)]

    def _names(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._listed:
            try:
                entries = sorted(entry.name for entry in folder.iterdir())
            except (OSError, ValueError):
                entries = []
            self._listed[folder] = {}
            for entry in entries:
                self._listed[folder].setdefault(_key(entry), []).append(entry)
        return self._listed[folder]


class Anywhere:
    """The image files of a folder and those below by name, with or without suffix, whichever folder they lie in."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in find_images(self._root).images:
            for key in {_key(path.name), _key(path.stem)}:
                found.setdefault(key, []).append(path.relative_to(self._root).as_posix())
        return found

    def find(self, name: str) -> list[str]:
        """The files, relative to the root, that `name` can mean; of files with the same content, the first.

        Of folders in the name only those count that are there: `x/a` is `part_1/x/a.jpg` where there is one, or else
        any `a.jpg`.
        """
        *folders, last = [_key(part) for part in name.replace("\\", "/").split("/") if part not in ("", ".")] or [""]
        fit = self._by_name.get(last, [])
        for number in range(len(folders)):
            inside = [
                path
                for path in fit
                if [_key(p) for p in path.split("/")[:-1]][number - len(folders) :] == folders[number:]
            ]
            if inside:
                fit = inside
                break
        sizes = {(self._root / path).stat().st_size for path in fit}
        same = len(fit) > 1 and len(sizes) == 1 and len({file_hash(self._root / path) for path in fit}) == 1
        return fit[:1] if same else fit


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
