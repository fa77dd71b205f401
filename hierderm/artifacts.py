"""Writing folders so that a reader, or a killed run, never meets half of one, and nobody else's is lost.

Every folder that hierderm writes carries `hierderm.json`, its header: what kind of folder it is, the hash of each
file, and what its reader must know. A folder without such a header is not ours: it is neither written to nor deleted.

A folder of one piece (`write_folder`) is made beside its place under a temporary name; then the old one moves aside,
the new one moves in, and the files that the header of the old one lists are removed. A kill between the two moves
leaves the place empty and the old folder aside: whoever opens it next puts it back. Folders that fill step by step,
such as runs, are claimed (`claim_folder`), and their files appear one by one (`replacing`).
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from hierderm.errors import HierdermError, MissingExtraError, OutputError, some_of
from hierderm.files import (
    beside,
    faults_named,
    file_hash,
    is_temporary,
    locked,
    os_faults,
    place_of,
    read_regular,
    require_parent,
    siblings,
    sync,
    write_json,
)
from hierderm.json_files import checked

HEADER, README, FIGURE = "hierderm.json", "README.md", "results.png"
FOR_PEOPLE = {README, FIGURE}  # who may edit them
ATTEMPTS = 20  # of a reader whose folder is replaced while it reads
_AGAIN = "Restore a copy, or make the folder again."
_HASH = re.compile(r"[0-9a-f]{12}")

Result = TypeVar("Result")


# --- folders -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """The content of `hierderm.json`. `files`: the hash of each file by its path in the folder, with '/'.

    `folder`: where it was read; `error`: what says that something is wrong with it.
    """

    kind: str
    version: int
    files: dict[str, str]
    content: dict[str, Any]
    folder: Path = field(default=Path(), compare=False)
    error: type[HierdermError] = field(default=OutputError, compare=False)

    def parsed(self, schema: type[Result]) -> Result:
        """The content as a value of a schema: see `read_json`."""
        return checked(self.content, schema, f"{self.folder / HEADER}", self.error)

    def file(self, pattern: str) -> Path:
        """The one file of a name such as 'vectors-*.npy', which must be among those with a hash."""
        path = self.optional(pattern)
        if path is None:
            raise self.error(f"{self.folder / HEADER} is damaged: 'files' must list {pattern}, it does not. {_AGAIN}")
        return path

    def optional(self, pattern: str) -> Path | None:
        """As `file`, None where there is none; one that lies there without a hash is an error."""
        listed = fnmatch.filter(self.files, pattern)
        if len(listed) > 1:
            raise self.error(f"{self.folder / HEADER} is damaged: 'files' lists {some_of(listed)}. {_AGAIN}")
        if not listed and "*" not in pattern and (self.folder / pattern).exists():
            raise self.error(f"{self.folder / HEADER} is damaged: 'files' has no hash of {pattern}. {_AGAIN}")
        return self.folder / listed[0] if listed else None

    def write(self, folder: Path) -> None:
        """Write it to its folder, atomically."""
        about = {"format": f"hierderm {self.kind}", "version": self.version}
        write_json(folder / HEADER, {**about, "files": self.files, "content": self.content})


class Card(NamedTuple):
    """What a folder says to people: the text of its README.md, and the figure in it, a PNG; each may be empty."""

    text: str = ""
    figure: bytes = b""

    def write(self, folder: Path) -> None:
        """Write what there is of it."""
        if self.text:
            (folder / README).write_text(self.text, encoding="utf-8")
        if self.figure:
            (folder / FIGURE).write_bytes(self.figure)

    @classmethod
    def read(cls, header: Header) -> Card:
        """That of the folder with this header."""
        readme, figure = (header.folder / name if name in header.files else None for name in (README, FIGURE))
        return cls(readme.read_text(encoding="utf-8") if readme else "", figure.read_bytes() if figure else b"")


@os_faults(OutputError)
def require_free_folder(
    path: Path, kind: str, *, replace: bool = False, own: Callable[[str], bool] | None = None
) -> None:
    """OutputError where a folder of this kind can't be written to `path` without losing something.

    Free is a path where nothing is, or an empty folder; with `replace` also a folder of the same kind that holds only
    what its header lists. `own`: names that may lie there besides, of a folder whose files change one by one.
    """
    _recover_for_reader(path, OutputError)
    _refuse(path, kind, replace, own)


@os_faults(OutputError)
def write_folder(
    path: Path,
    kind: str,
    content: dict[str, Any],
    write: Callable[[Path], None],
    *,
    replace: bool = False,
) -> None:
    """Write a folder that appears whole or not at all: `write` fills a temporary one, which then takes its place.

    `kind`: what it holds, e.g. 'embeddings'. `content`: JSON that the header keeps for the reader. Where `path` holds
    anything that would be lost, it is an OutputError; with `replace` a folder of the same kind is replaced.
    """
    path = place_of(path)
    if path == Path.cwd():
        raise OutputError(f"{path} must be a folder to make, it is the one you are in. Name a folder inside it.")
    _refuse(path, kind, replace)
    with faults_named(path), locked(path):
        _recover(path)
        _refuse(path, kind, replace)  # another process may have been quicker
        temporary = beside(path, "tmp")
        temporary.mkdir()
        try:
            write(temporary)
            _seal(temporary, kind, content)
            _refuse(path, kind, replace)  # writing can take long
            _exchange(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def claim_folder(path: Path, kind: str, *joined: str) -> None:
    """Make a folder that fills step by step, with its header; one of the same kind is accepted as it is.

    `joined`: other kinds that are accepted, too. OutputError where `path` holds anything else. A symbolic link to a
    folder is followed.
    """
    path = path.resolve()
    if (path / HEADER).is_file():
        read_header(path, kind, *joined)
        return
    _refuse(path, kind, False, own=is_temporary)
    with faults_named(path):
        Header(kind, 1, {}, {}).write(path)


def read_header(path: Path, *kinds: str, version: int | None = 1, error: type[HierdermError] = OutputError) -> Header:
    """The checked header of a folder; an interrupted replacement is undone first. `version` None: any.

    `error` says what is wrong with a folder that is not of one of these kinds and this version.
    """
    wanted = f"{path} must be a hierderm {' or '.join(kinds)} folder"
    for _ in range(3):
        try:
            header = _parse(path / HEADER, error)
            break
        except (FileNotFoundError, NotADirectoryError):
            _recover_for_reader(path, error)  # or wait until a writer has moved the new folder in
    else:
        what = f"it has no {HEADER}" if path.is_dir() else "it is a file" if path.exists() else "it does not exist"
        raise error(f"{wanted}, {what}.")
    if header.kind not in kinds:
        raise error(f"{wanted}, it is a {header.kind} folder. Give another path.")
    if version is not None and header.version != version:
        raise error(
            f"{path} has format version {header.version}, this hierderm reads version {version}. Make the folder again."
        )
    return header


def holds(path: Path, kind: str) -> bool:
    """Whether a folder of this kind, of any version, is there."""
    try:
        read_header(path, kind, version=None)
    except OutputError:
        return False
    return True


def read_folder(
    path: Path,
    kind: str,
    read: Callable[[Header], Result],
    *,
    version: int = 1,
    error: type[HierdermError] = OutputError,
) -> Result:
    """Check every file against its hash, then `read` them; once more where a writer has replaced them meanwhile.

    `error` names each file that is missing or damaged, or says what `read` could not make sense of. `read` asks the
    header for its files, so that none is read without a hash.
    """
    for _ in range(ATTEMPTS):
        header = read_header(path, kind, version=version, error=error)
        fault: Exception | None = None
        try:
            _check_files(path, header, error)
            result = read(header)
        except Exception as raised:  # libraries raise errors of all kinds on a damaged file
            fault = raised
        if read_header(path, kind, version=version, error=error) != header:
            continue
        if isinstance(fault, (error, MissingExtraError)):
            raise fault
        if isinstance(fault, HierdermError):
            raise error(f"{path}: {fault}") from fault
        if fault is not None:
            raise error(
                f"{path} can't be read as a hierderm {kind} folder ({fault!r}). Make the folder again."
            ) from fault
        return result
    raise error(f"{path} is being rewritten all the time. Try again later.")


# --- the steps of a replacement ----------------------------------------------------------------------------------


def _seal(folder: Path, kind: str, content: dict[str, Any]) -> None:
    """Write the header of a filled folder, give its files the usual permissions, and have the disk keep all of it."""
    files = {name: file_hash(folder / name) for name in _entries(folder)}
    Header(kind, 1, files, content).write(folder)
    mode = (folder / HEADER).stat().st_mode & 0o777  # by the umask; safetensors makes files that others can't read
    for name in files:
        (folder / name).chmod(mode)
        sync(folder / name)
    for place in {folder, *((folder / name).parent for name in files)}:
        sync(place)


def _exchange(new: Path, path: Path) -> None:
    """Old aside, new in, old away."""
    aside = beside(path, "old")
    if (path / HEADER).is_file():
        path.rename(aside)
    elif path.exists():
        path.rmdir()  # empty
    new.rename(path)
    sync(path.parent)
    _remove_listed(aside)


def _recover(path: Path) -> None:
    """Under the lock: undo or finish what killed writers of `path` began, and remove what they left."""
    for aside in siblings(path, "old"):
        absent = not path.exists() or (path.is_dir() and not any(path.iterdir()))
        if absent and _is_whole(aside):
            if path.exists():
                path.rmdir()
            aside.rename(path)
        elif absent or (path / HEADER).is_file():
            _remove_listed(aside)  # a newer one has moved in since
    for temporary in siblings(path, "tmp"):
        shutil.rmtree(temporary, ignore_errors=True)


def _recover_for_reader(path: Path, error: type[HierdermError]) -> None:
    path = place_of(path)
    if not siblings(path, "old"):
        return
    try:
        with locked(path, error=error):
            _recover(path)
    except OSError as fault:
        raise error(f"{path}: its replacement was interrupted and the old one can't be put back ({fault}).") from fault


def _is_whole(folder: Path) -> bool:
    try:
        return all((folder / name).is_file() for name in _parse(folder / HEADER, OutputError).files)
    except (OSError, OutputError):
        return False


def _remove_listed(folder: Path) -> None:
    """Remove a folder of ours: the files that its header lists, what is empty then, and the header; nothing else."""
    with contextlib.suppress(OSError, OutputError):  # what stays is removed by the next writer
        files = _parse(folder / HEADER, OutputError).files
        for name in files:
            (folder / name).unlink(missing_ok=True)
        for place in sorted({folder / up for name in files for up in PurePosixPath(name).parents} - {folder})[::-1]:
            if place.is_dir():  # a killed removal may have come this far
                place.rmdir()
        (folder / HEADER).unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


# --- checks ------------------------------------------------------------------------------------------------------


def _refuse(path: Path, kind: str, replace: bool, own: Callable[[str], bool] | None = None) -> None:
    if path.is_symlink():
        raise OutputError(f"{path} must be a folder to write, it is a symbolic link. Give the folder it points to.")
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} must be a folder to write, it is a file. Choose another path.")
    require_parent(path / HEADER if own and path.exists() else path)
    if not path.exists():
        return
    if not (path / HEADER).exists():
        if present := sorted(entry.name for entry in path.iterdir() if not (own and own(entry.name))):
            raise OutputError(
                f"{path} holds files that hierderm did not write ({some_of(present)}). Choose another path."
            )
        return
    header = read_header(path, kind, version=None)
    known = {HEADER, *header.files}
    if foreign := [name for name in _entries(path) if name not in known and not (own and own(name))]:
        raise OutputError(
            f"{path} holds files besides those of its {kind} ({some_of(foreign)}). Move them, or choose another path."
        )
    if not replace:
        raise OutputError(f"{path} holds a hierderm {kind} folder. Choose another path, or replace it (--replace).")


def _entries(folder: Path) -> list[str]:
    """Every file in a folder and below, by its path with '/'. Links and empty folders are entries too."""
    found = []
    for root, folders, files in os.walk(folder):
        here = Path(root).relative_to(folder)
        links = [name for name in folders if (folder / here / name).is_symlink()]
        empty = [""] if root != str(folder) and not folders and not files else []
        found += [(here / name).as_posix() for name in [*files, *links, *empty]]
    return sorted(found)


def _check_files(path: Path, header: Header, error: type[HierdermError]) -> None:
    faults = []
    for name, expected in header.files.items():
        file = path / name
        if not file.is_file():
            faults.append(f"{name} is missing")
        elif name not in FOR_PEOPLE and file_hash(file) != expected:
            faults.append(f"{name} is damaged: its checksum differs ({file.stat().st_size} bytes)")
    if faults:
        raise error(f"{path}: {'; '.join(faults)}. Restore a copy, or make it again.")


def _parse(file: Path, error: type[HierdermError]) -> Header:
    """Read a header; `error` says what is wrong with it. Where there is none, the FileNotFoundError passes."""
    again = "Restore a copy, or delete the folder and make it again."
    try:
        found: Any = json.loads(read_regular(file).decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError, RecursionError) as fault:
        raise error(f"{file} is damaged ({fault}). {again}") from None
    if not isinstance(found, dict) or not str(found.get("format")).startswith("hierderm "):
        raise error(f"{file} must be the header of a folder that hierderm wrote, it is something else.")
    version: Any = found.get("version")
    files: Any = found.get("files")
    content: Any = found.get("content")
    if type(version) is not int or not isinstance(content, dict) or not _are_files(files):
        raise error(
            f"{file} is damaged: 'version' must be a whole number, 'content' an object, and 'files' the hash of each "
            f"file. {again}"
        )
    return Header(found["format"].removeprefix("hierderm "), version, files, content, file.parent, error)


def _are_files(files: Any) -> bool:
    """Whether these are hashes by paths inside the folder: what a header lists goes when the folder is replaced."""
    if not isinstance(files, dict):
        return False
    inside = (not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts for name in files)
    return all(inside) and all(isinstance(value, str) and _HASH.fullmatch(value) for value in files.values())
