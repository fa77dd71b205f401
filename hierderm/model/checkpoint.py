"""A model as a folder: safetensors, the tree it was trained on (where it was), a model card and a header.

No pickle is ever read from it. Loading checks the files' hashes, the preprocessing and, where given, the tree.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from hierderm.artifacts import Card, Header, read_folder, read_header, write_folder
from hierderm.data.preprocessing import Preprocessing
from hierderm.data.seen import Seen
from hierderm.errors import CheckpointError, HierdermError, some_of
from hierderm.model.backbone import build_backbone
from hierderm.model.heads import NetworkShape
from hierderm.model.loading import KIND, require_taxonomy
from hierderm.model.network import Network
from hierderm.model.weights import reason_of
from hierderm.taxonomy.file import read_taxonomy, write_taxonomy
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Count

WEIGHTS, TREE, SEEN = "model.safetensors", "taxonomy.csv", "seen.safetensors"


@dataclass(frozen=True)
class _Tree:
    id: str
    version: str
    hash: str


@dataclass(frozen=True)
class _Content:
    """What the header of a model says."""

    backbone: dict[str, Any]
    preprocessing: Preprocessing
    preprocessing_hash: str
    shape: NetworkShape
    classified_level: Count | None
    taxonomy: _Tree | None
    split_hash: str


def save_model(
    network: Network,
    folder: Path,
    *,
    split_hash: str = "",
    card: Card = Card(),  # noqa: B008  # immutable
    seen: Seen | None = None,
    replace: bool = False,
) -> None:
    """Write the model, whole or not at all; `seen`: what it was trained on.

    OutputError where `folder` holds anything else than, with `replace`, a model.
    """

    def write(place: Path) -> None:
        save_file({key: value.contiguous().cpu() for key, value in network.state_dict().items()}, place / WEIGHTS)
        if tree is not None:
            write_taxonomy(tree, place / TREE)
        card.write(place)
        if seen is not None:
            seen.save(place / SEEN)

    tree, preprocessing = network.taxonomy, network.backbone.preprocessing
    content = {
        "backbone": network.backbone.architecture,
        "preprocessing": preprocessing.to_dict(),
        "preprocessing_hash": preprocessing.hash,
        "shape": asdict(network.shape),
        "classified_level": network.classified_level,
        "taxonomy": {"id": tree.id, "version": tree.version, "hash": tree.content_hash} if tree else None,
        "split_hash": split_hash,
    }
    write_folder(folder, KIND, content, write, replace=replace)


def tree_of_folder(folder: Path, taxonomy: Taxonomy | None = None) -> Taxonomy | None:
    """The tree a model was trained on, None where it has learnt nothing.

    CheckpointError where the tree was changed since, or where it is not `taxonomy`.
    """
    tree = _tree(read_header(folder, KIND, error=CheckpointError))
    if tree is not None and taxonomy is not None:
        require_taxonomy(str(folder), tree, taxonomy)
    return tree


def _tree(header: Header) -> Taxonomy | None:
    saved = header.parsed(_Content).taxonomy
    if saved is None:
        return None
    tree = read_taxonomy(header.file(TREE))
    if tree.content_hash != saved.hash:
        raise CheckpointError(f"{header.folder / TREE} was changed after the model was saved.")
    return tree


class SavedModel(NamedTuple):
    """A model and what its folder says of it: hashes of weights and split, its card, what it has seen."""

    network: Network
    weights_hash: str
    split_hash: str
    card: Card
    seen: Seen | None


def load_model(folder: Path) -> SavedModel:
    """Read a model, on its own tree and with its own preprocessing."""

    def read(header: Header) -> SavedModel:
        content = header.parsed(_Content)
        saved = content.preprocessing
        if saved.hash != content.preprocessing_hash:
            raise CheckpointError(f"{folder}: the preprocessing was changed after the model was saved.")
        tree = _tree(header)
        try:
            backbone = build_backbone(content.backbone, saved)
            network = Network(backbone, content.shape, tree, content.classified_level)
            network.load_state_dict(load_file(header.file(WEIGHTS)))
        except HierdermError:
            raise
        except Exception as error:  # libraries raise errors of all kinds on an architecture that is none
            raise CheckpointError(f"{folder / WEIGHTS} does not fit its header ({reason_of(error)}).") from None
        _require_finite(network, folder / WEIGHTS)
        seen = Seen.load(path) if (path := header.optional(SEEN)) else None
        return SavedModel(network.eval(), header.files[WEIGHTS], content.split_hash, Card.read(header), seen)

    return read_folder(folder, KIND, read, error=CheckpointError)


def _require_finite(network: Network, path: Path) -> None:
    """CheckpointError where weights are not finite; -inf is a condition without training images."""
    wrong = [
        name
        for name, value in network.state_dict().items()
        if value.is_floating_point()
        and not (value.isfinite() | ((value == -torch.inf) & (name == "neck.conditions.bias"))).all()
    ]
    if wrong:
        raise CheckpointError(f"{path} must hold finite weights, these are not: {some_of(wrong)}. Train again.")
