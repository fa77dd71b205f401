"""Rows on the disk: what was computed before a kill is kept, and the file is that of an unbroken run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hierderm.training import shards
from hierderm.training.shards import RowFile, write_rows
from hierderm.types import Vectors
from tests.killing import kill_at_every_change

ROWS, DIM, BATCH = 10, 3, 2


def batches(rows: list[int]) -> Iterator[Vectors]:
    for start in range(0, len(rows), BATCH):
        yield np.array([[row, row + 0.5, -row] for row in rows[start : start + BATCH]], dtype=np.float32)


def write_all(path: Path) -> None:
    """What a run does: the rows that are missing, then one file."""
    shards.SHARD_ROWS = 4
    file = RowFile(path, ROWS, DIM)
    missing = np.flatnonzero(~file.known())
    write_rows([file], missing, batches(missing.tolist()))
    file.join()


def test_shards_are_written_as_rows_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_ROWS", 4)
    file, rows = RowFile(tmp_path / "a.npy", ROWS, DIM), np.arange(1, ROWS)
    seen: list[list[bool]] = []

    def watched() -> Iterator[Vectors]:
        for batch in batches(rows.tolist()):
            seen.append(file.known().tolist())
            yield batch

    write_rows([file], rows, watched())
    assert [sum(known) for known in seen] == [0, 0, 4, 4, 8]
    assert seen[2] == [False, True, True, True, True, *[False] * 5]
    whole = file.join()
    assert np.isnan(whole[0]).all() and file.shards == []
    np.testing.assert_array_equal(whole[1:], np.concatenate([*batches(rows.tolist())]))
    whole[1] = 7  # of the array alone
    assert file.join()[1, 0] == 1
    write_rows([file], np.array([0]), batches([0]))  # one more, of another run
    np.testing.assert_array_equal(file.join(), np.concatenate([*batches(list(range(ROWS)))]))
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["a.npy"]


def test_an_error_keeps_what_came_before(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "a.npy", ROWS, DIM)

    with pytest.raises(KeyboardInterrupt):
        write_rows([file], np.arange(ROWS), stopped_after([*batches([0, 1, 2])]))
    assert file.known().tolist() == [True] * 3 + [False] * 7


def test_rows_of_several_files_come_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3 rows and a half in 2 files, in batches of 3 vectors; half a row is not kept."""
    monkeypatch.setattr(shards, "SHARD_ROWS", 4)
    files = [RowFile(tmp_path / name, ROWS, DIM) for name in ("a.npy", "b.npy")]
    values = np.arange(21, dtype=np.float32).reshape(7, DIM)
    with pytest.raises(KeyboardInterrupt):
        write_rows(files, np.array([2, 5, 6, 9]), stopped_after([values[:3], values[3:6], values[6:]]))
    for number, file in enumerate(files):
        assert [len(np.load(shard)["rows"]) for shard in file.shards] == [3]
        np.testing.assert_array_equal(file.join()[[2, 5, 6]], values[number:6:2])
        assert np.isnan(file.join()[9]).all()


def stopped_after(batches: list[Vectors]) -> Iterator[Vectors]:
    yield from batches
    raise KeyboardInterrupt


def test_time_alone_writes_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_SECONDS", 0.0)
    file = RowFile(tmp_path / "a.npy", 4, DIM)
    write_rows([file], np.arange(4), batches([0, 1, 2, 3]))
    assert len(file.shards) == 2


@pytest.mark.together("processes")
def test_a_killed_run_goes_on_to_the_same_file(tmp_path: Path) -> None:
    write_all(tmp_path / "whole" / "w")
    expected = (tmp_path / "whole" / "w").read_bytes()
    (tmp_path / "killed").mkdir()
    places = kill_at_every_change(tmp_path / "killed", None, write_all)
    assert len(places) > 8
    n_known = []
    for place in places:
        n_known.append(int(RowFile(place, ROWS, DIM).known().sum()))
        write_all(place)
        assert place.read_bytes() == expected and not RowFile(place, ROWS, DIM).shards
    assert set(n_known) == {0, 4, 8, 10}  # what was written before the kill was not computed again
