"""Processes that train one model together, as `torchrun` starts them: who is the first, and who waits for whom."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, distributed

from hierderm.errors import HierdermError
from hierderm.types import FloatArray

PATIENCE = timedelta(days=1)  # of those that wait for the first, which may have much to embed


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def world_size() -> int:
    """The number of processes; 1 outside `together`."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def started_by_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `torchrun` has started this process, beside others or alone."""
    return "TORCHELASTIC_RUN_ID" in environment and "WORLD_SIZE" in environment


@contextmanager
def together() -> Iterator[None]:
    """The processes of a `torchrun` know each other while the block runs; otherwise nothing happens.

    HierdermError where another one ends before: what it says stands in its own message.
    """
    if not started_by_torchrun() or world_size() > 1:
        yield
        return
    distributed.init_process_group(timeout=PATIENCE)  # by gloo on CPUs, by NCCL on GPUs
    try:
        yield
    except RuntimeError as error:  # torch has no type for it
        if not re.search("(closed|reset) by peer|remote process exited", str(error)):
            raise
        raise HierdermError(
            f"process {rank()} of {world_size()} stops, because another one has ended, or can't be reached. What that "
            "one says is the reason."
        ) from None
    finally:
        distributed.destroy_process_group()


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process goes through the block alone, then the others, which find what it has left."""
    if rank() > 0:
        wait_for_all()
    yield
    if rank() == 0:
        wait_for_all()


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if world_size() > 1:
        distributed.all_reduce(torch.zeros(1))  # a barrier of NCCL would need a device


def added_up(sums: FloatArray) -> FloatArray:
    """The sum of an array over the processes, the same to the last bit in all."""
    if world_size() == 1:
        return sums
    total = torch.from_numpy(np.ascontiguousarray(sums, dtype=np.float64).copy())
    distributed.all_reduce(total)
    return total.numpy()


def averaged(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean of numbers over the processes, the same to the last bit in all."""
    if world_size() == 1:
        return values
    means = added_up(np.array([float(value) for value in values.values()])) / world_size()
    return {name: torch.tensor(mean, dtype=torch.float32) for name, mean in zip(values, means, strict=True)}


def joined(rows: Tensor) -> Tensor:
    """The rows of all processes in the order of their numbers, shape (n, ...); each may have another number of them.

    The gradient of a value that every process computes alike is that of one process with all rows, once gradients of
    weights are averaged over the processes, as DistributedDataParallel does.
    """
    if world_size() == 1:
        return rows
    found: Tensor = _Joined.apply(rows)
    return found


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: Tensor) -> Tensor:
        size = torch.tensor([len(rows)], device=rows.device)
        sizes = [torch.empty_like(size) for _ in range(world_size())]
        distributed.all_gather(sizes, size)
        lengths = [int(one) for one in sizes]
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])  # a collective takes equal shapes
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in lengths]
        distributed.all_gather(parts, padded)
        ctx.place = slice(sum(lengths[: rank()]), sum(lengths[: rank() + 1]))  # type: ignore[attr-defined]
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        """All processes have the same gradient of all rows: their sum is a multiple, of which the average is taken."""
        return gradient[ctx.place] * world_size()  # type: ignore[attr-defined]
