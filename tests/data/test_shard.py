from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierderm.data.shard import Shard, parse_shard, shard_of_process
from hierderm.errors import ConfigError


@given(st.integers(1, 40), st.integers(0, 200))
def test_shards_are_all_rows_once_and_of_equal_size(count: int, more: int) -> None:
    n_rows = count + more
    parts = [Shard(number, count).rows(n_rows) for number in range(1, count + 1)]
    assert [row for part in parts for row in range(n_rows)[part]] == list(range(n_rows))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_by_text() -> None:
    assert parse_shard("2/8") == Shard(2, 8) and str(Shard(2, 8)) == "2/8"
    assert Shard(2, 8).folder(Path("runs/e")) == Path("runs/e.2-of-8")
    for text in ("0/8", "9/8", "2", "2/", "1/0", "-1/2", "a/b"):
        with pytest.raises(ConfigError, match=f"must be i/n with 1 <= i <= n, such as 2/8, or auto; got '{text}'"):
            parse_shard(text)
    with pytest.raises(ConfigError, match="a row for each shard, got 3 rows and 4 shards"):
        Shard(1, 4).rows(3)


def test_of_a_process() -> None:
    torchrun = {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "4"}
    assert shard_of_process(torchrun) == (Shard(2, 4), "RANK 1 and WORLD_SIZE 4 of torchrun")
    array = {f"SLURM_ARRAY_TASK_{name}": value for name, value in (("ID", "7"), ("MIN", "5"), ("MAX", "9"))}
    found, where = shard_of_process({**array, "SLURM_ARRAY_TASK_COUNT": "5"})
    assert found == Shard(3, 5) and where == "task 7 of 5 to 9 of the Slurm array"
    with pytest.raises(ConfigError, match="numbered without gaps, got 3 from 5 to 9. Submit it with --array=1-3"):
        shard_of_process({**array, "SLURM_ARRAY_TASK_COUNT": "3"})
    with pytest.raises(ConfigError, match="needs a process of torchrun or of a Slurm array. Give --shard i/n"):
        shard_of_process({"RANK": "1", "WORLD_SIZE": "4", "SLURM_PROCID": "0"})
