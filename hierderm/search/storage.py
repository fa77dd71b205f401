"""An index on disk: files of one generation, named and hashed by a header that is replaced last.

A write makes new files beside the old ones and then replaces `index.json` in one step, so a reader, or a killed
writer, always leaves a whole index behind. Readers that have the old files open keep them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from hierderm.artifacts import file_hash, write_json
from hierderm.errors import IndexFolderError

HEADER, LOCK = "index.json", ".lock"
FORMAT, VERSION = "hierderm case index", 1
OURS = ("vectors-", "cases-", "taxonomy-", "neighbours-")
ATTEMPTS = 20  # of a reader whose files a writer replaced between header and file

Result = TypeVar("Result")


@dataclass(frozen=True)
class Header:
    """The content of `index.json`: which generation, which files with which hash, and what `CaseIndex` keeps there."""

    generation: int
    files: dict[str, str]
    content: dict[str, Any]


def read_header(folder: Path) -> Header:
    """The header of an index folder; IndexFolderError says why a folder is none."""
    path = folder / HEADER
    if not path.is_file():
        if folder.is_dir() and any(name.name.startswith(OURS) for name in folder.iterdir()):
            raise IndexFolderError(f"{folder} has no {HEADER}: its build was killed. Build the index again.")
        raise IndexFolderError(f"{folder} must be the folder of a case index, it has no {HEADER}.")
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise IndexFolderError(f"{path} is damaged ({error}). Build the index again.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise IndexFolderError(f"{path} is not the header of a hierderm index.")
    if content.get("version") != VERSION:
        raise IndexFolderError(
            f"{folder} has format version {content.get('version')}, this hierderm reads {VERSION}. Build it again."
        )
    return Header(content["generation"], content["files"], content["content"])


def check_files(folder: Path, header: Header) -> None:
    """IndexFolderError naming every file that is missing or differs from its hash."""
    faults = []
    for name, expected in header.files.items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif file_hash(path) != expected:
            faults.append(f"{name} is damaged: its checksum differs ({path.stat().st_size} bytes)")
    if faults:
        raise IndexFolderError(f"{folder}: {'; '.join(faults)}. Restore a copy, or build the index again.")


def read_consistently(folder: Path, read: Callable[[Header], Result]) -> Result:
    """`read` the files of the header, once more where a writer has replaced them meanwhile."""
    for _ in range(ATTEMPTS):
        header = read_header(folder)
        try:
            return read(header)
        except (IndexFolderError, FileNotFoundError):
            if read_header(folder).generation == header.generation:
                raise
    raise IndexFolderError(f"{folder} is being rewritten all the time. Try again later.")


@contextmanager
def writing(folder: Path, *, timeout: float = 120) -> Iterator[None]:
    """Only one process writes at a time; others wait up to `timeout` seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=timeout)
    try:
        lock.acquire()
    except Timeout:
        raise IndexFolderError(f"{folder} has been written by another process for {timeout:g} s. Try again.") from None
    try:
        yield
    finally:
        lock.release()


def commit(folder: Path, generation: int, write_files: Callable[[], list[Path]], content: dict[str, Any]) -> None:
    """Write a generation: the files that `write_files` makes and names, then the header, then old files go."""
    _clear(folder, set(_known_files(folder)))  # what a killed writer left
    paths = write_files()
    files = {path.name: file_hash(path) for path in paths}
    write_json(
        folder / HEADER,
        {"format": FORMAT, "version": VERSION, "generation": generation, "files": files, "content": content},
    )
    _clear(folder, set(files))


def refuse_foreign(folder: Path) -> None:
    """IndexFolderError where `folder` holds something that is not of an index and would lie among its files."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise IndexFolderError(f"{folder} must be a folder for the index, it is a file.")
    foreign = [
        path.name for path in folder.iterdir() if not path.name.startswith((*OURS, HEADER, ".index.json.", LOCK))
    ]
    if foreign:
        raise IndexFolderError(f"{folder} holds other files ({', '.join(sorted(foreign)[:3])}). Choose another folder.")


def _known_files(folder: Path) -> list[str]:
    try:
        return list(read_header(folder).files)
    except IndexFolderError:
        return []


def _clear(folder: Path, keep: set[str]) -> None:
    for path in folder.iterdir():
        if path.name.startswith(OURS) and path.name not in keep:
            path.unlink(missing_ok=True)
