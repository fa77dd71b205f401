"""A backbone in two parts: a stem that does not learn, and the blocks behind it, which then can be trained in seconds.

What leaves the stem is computed once for each image and each augmented copy of it, and cached. The tail runs the
encoder on one blank image and replaces what enters its first learning block by what was cached, so it works for any
encoder whose blocks follow each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hierderm.model.backbone import Backbone


@dataclass
class _Gate:
    """What enters the block: `seen` by a stem, `given` by a tail."""

    given: Tensor | None = None
    seen: Tensor | None = None


_GATE: ContextVar[_Gate | None] = ContextVar("gate", default=None)


class Stem(nn.Module):
    """What enters one of the last blocks of a backbone and the statistics of the layers before, as a vector an image.

    It has what the feature store asks of a backbone. `n_blocks`: how many of the last blocks are not in it, >= 1.
    """

    def __init__(self, backbone: Backbone, n_blocks: int) -> None:
        super().__init__()
        blocks = backbone.blocks
        self.backbone, self.block = backbone, max(len(blocks) - n_blocks, 0)
        blocks[self.block].register_forward_pre_hook(_pass_gate, with_kwargs=True)
        self.preprocessing, self.engine, self.mirrors = backbone.preprocessing, "torch", False
        self.architecture = {
            **backbone.architecture,
            "features": f"{backbone.features} before block {self.block}",
        }
        side = backbone.preprocessing.size
        with torch.no_grad():
            statistics, entered = self._parts(torch.zeros(1, 3, side, side))
        self.n_statistics, self.shape = statistics.shape[1], entered.shape[1:]
        self.dim = self.output_dim = self.n_statistics + self.shape.numel()

    def forward(self, images: Tensor) -> Tensor:
        """Preprocessed images to vectors, shape (n, dim)."""
        return self.vectors(images)

    def vectors(self, images: Tensor) -> Tensor:
        """The same: a stem knows no mirror images."""
        statistics, entered = self._parts(images)
        return torch.cat([statistics, entered.flatten(1)], dim=1)

    def _parts(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with _gate(_Gate()) as gate:
            _, layers = self.backbone.collected(images)
        assert gate.seen is not None
        before = [self.backbone.statistics(values) for values in layers[: self.block + 1]]
        return torch.cat([images.new_zeros(len(images), 0), *before], dim=1), gate.seen


class Tail:
    """The rest of the backbone of a `Stem`: its vectors to those of the backbone. The weights are the backbone's."""

    def __init__(self, stem: Stem) -> None:
        self.stem = stem

    def __call__(self, vectors: Tensor) -> Tensor:
        """Vectors of the stem, shape (n, stem.dim), to vectors of the backbone, shape (n, backbone.dim)."""
        stem, backbone = self.stem, self.stem.backbone
        side = backbone.preprocessing.size
        statistics, entered = vectors.split([stem.n_statistics, stem.shape.numel()], dim=1)
        with _gate(_Gate(given=entered.unflatten(1, stem.shape))):
            output, layers = backbone.collected(vectors.new_zeros(1, 3, side, side))
        if backbone.features == "output":
            return output
        return torch.cat([output, statistics, *map(backbone.statistics, layers[stem.block + 1 :])], dim=1)


@contextmanager
def _gate(gate: _Gate) -> Iterator[_Gate]:
    token = _GATE.set(gate)
    try:
        yield gate
    finally:
        _GATE.reset(token)


def _pass_gate(_: nn.Module, values: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    gate = _GATE.get()
    if gate is None:
        return values, named
    gate.seen = values[0] if values else named["hidden_states"]
    if gate.given is None:
        return values, named
    return ((gate.given, *values[1:]), named) if values else (values, {**named, "hidden_states": gate.given})
