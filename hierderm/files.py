"""Writing files so that a reader, or a killed run, never meets half of one, and nobody else's is lost."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hierderm.errors import HierdermError, OutputError, describe_os_error

PATIENCE = 120.0  # seconds to wait for another process that writes the same path
STALE = 3600.0  # seconds since a temporary file last grew, after which its writer is taken for dead
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+-[0-9a-f]{8}\.(?P<kind>tmp|old)")


def require_free(
    path: Path, *, replace: bool = False, suffixes: Sequence[str] = (), inputs: Iterable[str | Path | None] = ()
) -> None:
    """OutputError where an output file can't be written to `path` without losing something.

    `replace`: a file there may be replaced, but never one of the command's own `inputs`, nor one without one of the
    `suffixes`, which is of another kind.
    """
    require_parent(path)
    if path.is_symlink():
        raise OutputError(f"{path} must be a file to write, it is a symbolic link. Give the file it points to.")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} must be a file to write, it is a folder. Choose another path.")
    if path.exists() and not replace:
        raise OutputError(f"{path} exists and would be overwritten. Choose another path, or replace it (--replace).")
    if path.exists() and any(given and Path(given).exists() and path.samefile(given) for given in inputs):
        raise OutputError(f"{path} is read by this command and would be overwritten. Choose another path.")
    if path.exists() and suffixes and path.suffix.lower() not in suffixes:
        raise OutputError(f"{path} must end in {' or '.join(suffixes)} to be replaced. Choose another path.")


@contextmanager
def replacing(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes when it does not.

    Without `replace` a file that lies there, or has come meanwhile, is an OutputError.
    """
    with os_faults(OutputError):
        if not replace:
            require_free(path)
        path.parent.mkdir(parents=True, exist_ok=True)
    for stale in siblings(path, "tmp"):
        with contextlib.suppress(OSError):
            if time.time() - stale.stat().st_mtime > STALE:
                stale.unlink()
    temporary = beside(path, "tmp")
    try:
        with faults_named(path):
            yield temporary
            sync(temporary)
            if not replace:
                require_free(path)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes, *, replace: bool = True) -> None:
    """Write text (UTF-8) or bytes to `path`, whole or not at all; folders are made."""
    with replacing(path, replace=replace) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: Any, *, replace: bool = True) -> None:
    """Write `content` as indented JSON, atomically. NaN is refused: readers in other languages can't parse it."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, text, replace=replace)


def is_temporary(name: str) -> bool:
    """Whether hierderm uses this name while it writes: something unfinished, something aside, or a lock."""
    return _TEMPORARY.fullmatch(name) is not None or (name.startswith(".") and name.endswith(".lock"))


@contextmanager
def locked(
    path: Path, *, timeout: float = PATIENCE, error: type[HierdermError] = OutputError, busy: str = ""
) -> Iterator[None]:
    """Only one process at a time is in the block of this path; others wait up to `timeout` seconds, and say `busy`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=timeout)
    try:
        lock.acquire()
    except Timeout:
        busy = busy or f"{path} has been written by another process for {timeout:g} s. Try again later."
        raise error(busy) from None
    try:
        yield
    finally:
        lock.release()


def read_regular(path: Path) -> bytes:
    """What a file holds; OSError where it is a pipe or a device, which would never end."""
    require_regular(path)
    return path.read_bytes()


def require_regular(path: Path) -> None:
    """OSError where `path` is no regular file."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it must be a file, it is a pipe, a socket or a device", str(path))


def file_hash(path: Path) -> str:
    """Twelve hex digits of a file's SHA-256."""
    require_regular(path)
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:12]


def text_hash(text: str) -> str:
    """Twelve hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def place_of(path: Path) -> Path:
    """The absolute path of a folder that is moved or replaced; if it is a link, of the link."""
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.{kind}")


def siblings(path: Path, kind: str) -> list[Path]:
    """What lies beside `path` under its temporary names of a kind, 'tmp' or 'old'."""
    try:
        names = [_TEMPORARY.fullmatch(entry.name) for entry in path.parent.iterdir()]
    except OSError:
        return []
    own = [match for match in names if match and (match["name"], match["kind"]) == (path.name, kind)]
    return [path.with_name(match[0]) for match in own]


def sync(path: Path) -> None:
    """Have the disk keep a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # not every file system can do it for folders
            raise
    finally:
        os.close(handle)


def require_parent(path: Path) -> None:
    """OutputError where nothing can be made at `path`, before any work is done for it."""
    parent = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not parent.is_dir():
        raise OutputError(f"{path} can't be written: {parent} is not a folder. Choose another path.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path} can't be written: {parent} is write-protected. Choose another path.")


@contextmanager
def os_faults(error: type[HierdermError]) -> Iterator[None]:
    """What the operating system refuses, as `error` with the path and what to do. Also a decorator of functions."""
    try:
        yield
    except OSError as fault:
        raise error(describe_os_error(fault)) from fault


@contextmanager
def faults_named(path: Path) -> Iterator[None]:
    """Faults of the disk, such as a full one, as an OutputError that names the output."""
    try:
        yield
    except OSError as fault:
        raise OutputError(f"{path} could not be written: {describe_os_error(fault)}") from fault
