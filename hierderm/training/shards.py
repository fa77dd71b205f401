"""An array whose rows come one after another, on the disk in shards, so that a killed run goes on where it was.

Memory holds one shard. The rows of an array that is whole lie in one `.npy` file, those not known are NaN.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from hierderm.files import locked, replacing
from hierderm.types import IntArray, Mask, Vectors

SHARD_ROWS, SHARD_SECONDS = 4096, 60.0  # a shard is written after so many rows, or so long


@dataclass(frozen=True)
class RowFile:
    """Rows of float32 in the file `path`, shape (n_rows, dim); until `join`, new ones lie in shards beside it."""

    path: Path
    n_rows: int
    dim: int

    @property
    def shards(self) -> list[Path]:
        """Rows that are not in the file yet, named by the first."""
        return sorted(self.path.parent.glob(f"{self.path.stem}.*.npz"))

    def known(self) -> Mask:
        """Which rows are on the disk, shape (n_rows,)."""
        found = np.zeros(self.n_rows, dtype=bool)
        if self.path.is_file():
            found |= ~np.isnan(self._file()[:, 0])
        for shard in self.shards:
            found[_read(shard)[0]] = True
        return found

    def write_shard(self, rows: IntArray, values: Vectors) -> None:
        """Write the vectors of some rows, shape (n, dim)."""
        shard = self.path.with_name(f"{self.path.stem}.{rows[0]:09d}.npz")
        with replacing(shard) as temporary, temporary.open("wb") as handle:
            np.savez(handle, rows=rows, values=values)

    def join(self) -> Vectors:
        """All rows in one file, shape (n_rows, dim): a map of it into memory, which changes do not reach."""
        with locked(self.path):  # another process may bring rows of its own
            if shards := self.shards:
                with replacing(self.path) as temporary:
                    self._merge(temporary, shards)
                for shard in shards:
                    shard.unlink(missing_ok=True)
            return self._file()

    def _merge(self, target: Path, shards: list[Path]) -> None:
        whole = open_memmap(target, mode="w+", dtype=np.float32, shape=(self.n_rows, self.dim))
        whole[:] = self._file() if self.path.is_file() else np.nan
        for shard in shards:
            rows, values = _read(shard)
            whole[rows] = values
        whole.flush()

    def _file(self) -> Vectors:
        return np.asarray(np.load(self.path, mmap_mode="c", allow_pickle=False))


def write_rows(files: Sequence[RowFile], rows: IntArray, batches: Iterable[Vectors]) -> None:
    """Write to `files` the vectors of `rows`, which come in `batches`, those of a row one after another.

    What has come is kept whatever stops it.
    """
    held: list[Vectors] = []
    done, last = 0, time.monotonic()
    try:
        for batch in batches:
            held.append(batch)
            if sum(map(len, held)) >= SHARD_ROWS or time.monotonic() - last >= SHARD_SECONDS:
                held, n = _written(files, rows[done:], held)
                done, last = done + n, time.monotonic()
    finally:
        _written(files, rows[done:], held)


def _written(files: Sequence[RowFile], rows: IntArray, held: list[Vectors]) -> tuple[list[Vectors], int]:
    """A shard of each file. What is left of a row that has not come whole, and the number of rows that were written."""
    values = np.concatenate([np.zeros((0, files[0].dim), dtype=np.float32), *held])
    n = len(values) // len(files)
    if n:
        for file, of_file in zip(
            files, values[: n * len(files)].reshape(n, len(files), -1).swapaxes(0, 1), strict=True
        ):
            file.write_shard(rows[:n], of_file)
    return [values[n * len(files) :]], n


def _read(shard: Path) -> tuple[IntArray, Vectors]:
    with np.load(shard, allow_pickle=False) as content:
        return content["rows"], content["values"]
