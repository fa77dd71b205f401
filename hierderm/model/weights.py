"""Weights: read from files, checked against the encoder they are for, and named by a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from threading import RLock

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hierderm.errors import CheckpointError, some_of
from hierderm.files import os_faults

LOADING = RLock()  # libraries load and initialise under settings of the whole process, so one thread at a time


@os_faults(CheckpointError)
def read_safetensors(name: str, path: Path) -> dict[str, Tensor]:
    """The tensors of a file; CheckpointError where it is missing or damaged."""
    if not path.is_file():
        raise CheckpointError(f"{name}: the weights file {path} does not exist.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{name}: {path} is not a whole safetensors file ({error}).") from None


def require_complete(name: str, missing: Collection[object], mismatched: Collection[object]) -> None:
    """CheckpointError where weights are `missing` from a file, or are there in another shape."""
    if missing or mismatched:
        raise CheckpointError(
            f"{name}: the file does not hold these weights of the vision tower, or in another shape: "
            f"{some_of([str(key) for key in [*missing, *mismatched]])}. Is it another model?"
        )


def not_loaded(name: str, error: Exception, local: str) -> CheckpointError:
    """The error of a model that could not be loaded; `local`: how to give local weights."""
    return CheckpointError(
        f"{name}: could not be loaded ({reason_of(error)}). Without internet give local weights: {local}."
    )


def reason_of(error: Exception) -> str:
    """The first line of an error's text, or its kind where it has none."""
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


def weights_hash(module: nn.Module) -> str:
    """Twelve hex digits over the names, types and values of a module's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()[:12]
