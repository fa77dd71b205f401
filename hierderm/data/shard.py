"""One of several parts of a table, for a process of its own: given as 'i/n', or by what has started the process."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hierderm.errors import ConfigError


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1, of `count` parts of consecutive rows, whose sizes differ by one at most."""

    number: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def rows(self, n_rows: int) -> slice:
        """Its rows among all; ConfigError where there are fewer rows than shards."""
        if n_rows < self.count:
            raise ConfigError(f"there must be a row for each shard, got {n_rows} rows and {self.count} shards.")
        size, longer = divmod(n_rows, self.count)
        start = size * (self.number - 1) + min(self.number - 1, longer)
        return slice(start, start + size + (self.number <= longer))

    def folder(self, out: Path) -> Path:
        """Where it is written beside the folder of all rows."""
        return out.with_name(f"{out.name}.{self.number}-of-{self.count}")


def parse_shard(text: str) -> Shard:
    """The shard of 'i/n'; ConfigError where it is none."""
    numbers = re.fullmatch(r"(\d+)/(\d+)", text)
    if not numbers or not 1 <= int(numbers[1]) <= int(numbers[2]):
        raise ConfigError(f"--shard must be i/n with 1 <= i <= n, such as 2/8, or auto; got '{text}'.")
    return Shard(int(numbers[1]), int(numbers[2]))


def shard_of_process(environment: Mapping[str, str] = os.environ) -> tuple[Shard, str]:
    """The shard of a process of `torchrun` or of a Slurm array, and in words where it is from.

    ConfigError where the process is of neither, or of an array whose numbers do not follow each other.
    """
    names: tuple[str, ...]
    if "TORCHELASTIC_RUN_ID" in environment:
        names = "RANK", "WORLD_SIZE"
        rank, size = (int(environment[name]) for name in names)
        return Shard(rank + 1, size), f"{names[0]} {rank} and {names[1]} {size} of torchrun"
    if "SLURM_ARRAY_TASK_ID" in environment:
        names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT")
        task, first, last, count = (int(environment[name]) for name in names)
        if last - first + 1 != count:
            raise ConfigError(
                f"--shard auto needs an array whose tasks are numbered without gaps, got {count} from {first} to "
                f"{last}. Submit it with --array=1-{count}, or give --shard i/n."
            )
        return Shard(task - first + 1, count), f"task {task} of {first} to {last} of the Slurm array"
    raise ConfigError("--shard auto needs a process of torchrun or of a Slurm array. Give --shard i/n.")
