"""Damage what the package reads, and look at how each reader takes it.

A reader may refuse (a HierdermError), or read what is sound. Anything else raised is a traceback, more than ten seconds
a hang. What was read although its checksum differs, or although it makes no sense, is counted as wrong; values that
changed in a file without a checksum, such as a user's own CSV, are another valid input.
"""

from __future__ import annotations

import io
import json
import logging
import random
import shutil
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soak.table import Row
from hierderm.artifacts import HEADER
from hierderm.errors import HierdermError
from hierderm.files import file_hash

LIMIT = 10  # seconds until an attempt counts as a hang
ODD_VALUES: list[Any] = [
    None,
    "",
    "nan",
    -1,
    0,
    1e308,
    2**70,
    True,
    [],
    {},
    [[]],
    "x" * 5000,
    "../../etc/passwd",
    "\u202e",
]
ODD_BYTES = [
    b"\x00",
    b"\xff\xfe",
    b'"',
    b"\n",
    b"\r",
    b";",
    b"\t",
    b"=1+1",
    b"1E5",
    b"nan",
    "é".encode("latin-1"),
    b"\xe2\x80\xae",
]


class _TooLongError(BaseException):  # which no reader takes for a fault of its file
    """The alarm rang."""


@dataclass(frozen=True)
class Target:
    """A reader.

    `sample`: a file or folder as it should be. `read`: reads a damaged copy and returns what is wrong with what it
    accepted, '' if nothing. `sealed`: a folder with checksums, so damage must be refused unless they are made anew.
    """

    name: str
    sample: Path
    read: Callable[[Path], str]
    sealed: bool = False


def attack(targets: list[Target], attempts: int, seed: int) -> list[Row]:
    """`attempts` damaged inputs, spread over the targets."""
    rng, rows = random.Random(seed), []
    for number, target in enumerate(targets):
        row = Row("fuzz", target.name)
        if problem := target.read(target.sample):
            raise RuntimeError(f"{target.name}: the sample itself is wrong: {problem}")
        share = attempts // len(targets) + (number < attempts % len(targets))
        with tempfile.TemporaryDirectory() as place:
            for attempt in range(share):
                copy = Path(place) / f"{attempt}{target.sample.suffix}"
                sealed = _damaged_copy(target, copy, rng)
                row.add(*_outcome(target, copy, sealed))
                shutil.rmtree(copy) if copy.is_dir() else copy.unlink(missing_ok=True)
        rows.append(row)
    return rows


def _outcome(target: Target, copy: Path, sealed: bool) -> tuple[str, str]:
    try:
        with warnings.catch_warnings(), _quiet(), _alarm():
            warnings.simplefilter("ignore")
            problem = target.read(copy)
    except HierdermError:
        return "refused", ""
    except _TooLongError:
        return "hang", str(copy.name)
    except BaseException:
        return "traceback", traceback.format_exc()[-500:]
    if sealed:
        return "wrong", "damage below an unchanged checksum was read"
    return ("wrong", problem) if problem else ("survived", "")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what readers log of ten thousand inputs."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _TooLongError

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)


# --- damage ------------------------------------------------------------------------------------------------------


def _damaged_copy(target: Target, copy: Path, rng: random.Random) -> bool:
    """Make a damaged copy; whether its checksums show the damage."""
    if not target.sample.is_dir():
        copy.write_bytes(damaged(target.sample.read_bytes(), target.sample.suffix, rng))
        return False
    shutil.copytree(target.sample, copy)
    files = sorted(path for path in copy.rglob("*") if path.is_file() and not path.name.startswith("."))
    file = rng.choice([*files, copy / HEADER] if (copy / HEADER).is_file() else files)
    before = file.read_bytes()
    if rng.random() < 0.05 and file.name != HEADER:
        file.unlink()
    else:
        file.write_bytes(damaged(before, file.suffix, rng))
    if not target.sealed or file.name in (HEADER, "README.md"):
        return False
    if rng.random() < 0.5 and file.exists():  # a well-meant edit, or an attacker's
        header = json.loads((copy / HEADER).read_text(encoding="utf-8"))
        header["files"][file.relative_to(copy).as_posix()] = file_hash(file)
        (copy / HEADER).write_text(json.dumps(header), encoding="utf-8")
        return False
    return not file.exists() or file.read_bytes() != before


def damaged(content: bytes, suffix: str, rng: random.Random) -> bytes:
    """The bytes of a file with one to three faults."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        if suffix == ".json" and rng.random() < 0.7:
            content = _damaged_json(content, rng)
        elif suffix == ".npy" and rng.random() < 0.4:
            content = _damaged_array(content, rng)
        elif suffix in (".csv", ".toml") and rng.random() < 0.6:
            content = _damaged_lines(content, suffix, rng)
        else:
            content = _damaged_bytes(content, rng)
    return content


def _damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    match rng.randrange(5):
        case 0:
            return content[:place]
        case 1:
            return content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
        case 2:
            return content[:place] + rng.choice(ODD_BYTES) + content[place:]
        case 3:
            return content[:place] + content[place + rng.randrange(1, 64) :]
        case _:
            return content + rng.choice(ODD_BYTES) * rng.randrange(1, 9)


def _damaged_json(content: bytes, rng: random.Random) -> bytes:
    """Another value somewhere in the tree, or one that is missing."""
    try:
        tree = json.loads(content)
    except ValueError:
        return _damaged_bytes(content, rng)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in inner:
            places.append((node, key))
            walk(value)

    walk(tree)
    if not places:
        return json.dumps(rng.choice(ODD_VALUES)).encode()
    node, key = rng.choice(places)
    if rng.random() < 0.3:
        del node[key]
    else:
        node[key] = rng.choice(ODD_VALUES)
    return json.dumps(tree).encode()


def _damaged_array(content: bytes, rng: random.Random) -> bytes:
    """A NaN, an infinity, a row of zeros, another shape or type."""
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return _damaged_bytes(content, rng)
    if not array.size or array.dtype.kind not in "iuf":  # damaged before
        return _damaged_bytes(content, rng)
    with np.errstate(all="ignore"):
        array = _damaged_values(array, rng)
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _damaged_values(array: Any, rng: random.Random) -> Any:
    match rng.randrange(6):
        case 0:
            array = array.astype(np.float64)
            array.flat[rng.randrange(array.size)] = rng.choice([np.nan, np.inf, 1e300])
        case 1:
            array = array.copy()
            array[rng.randrange(len(array))] = 0
        case 2:
            array = array[:-1]
        case 3:
            array = array.astype(rng.choice([np.int8, np.complex64, np.float16, "U5"]))
        case 4:
            array = array.reshape(-1)
        case _:
            array = array[:, :1] if array.ndim == 2 else array[:0]
    return array


def _damaged_lines(content: bytes, suffix: str, rng: random.Random) -> bytes:
    """A line or a cell that is missing, doubled, odd, or in another's place."""
    lines, sign = content.split(b"\n"), b"," if suffix == ".csv" else b"="
    line = rng.randrange(len(lines))
    cells = lines[line].split(sign)
    cell = rng.randrange(len(cells))
    match rng.randrange(6):
        case 0:
            del lines[line]
        case 1:
            lines.insert(line, lines[rng.randrange(len(lines))])
        case 2:
            cells[cell] = str(rng.choice(ODD_VALUES)).encode()
        case 3:
            cells.pop(cell)
        case 4:
            cells.append(rng.choice(ODD_BYTES))
        case _:
            cells[cell] = rng.choice(ODD_BYTES) + cells[cell]
    if line < len(lines) and cells != lines[line].split(sign):
        lines[line] = sign.join(cells)
    return b"\n".join(lines)
