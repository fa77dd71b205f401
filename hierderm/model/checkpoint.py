"""A model as a folder: safetensors, a JSON header, the tree it was trained on, where it was, and a model card.

No pickle is ever read from it. Loading checks the weights' hash, the preprocessing and, where given, the tree.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hierderm.artifacts import file_hash, replacing, write_json
from hierderm.data.preprocessing import Preprocessing
from hierderm.errors import CheckpointError
from hierderm.model.backbone import build_backbone
from hierderm.model.heads import NetworkShape
from hierderm.model.network import Network
from hierderm.taxonomy.file import read_taxonomy, write_taxonomy
from hierderm.taxonomy.tree import Taxonomy

FORMAT = 2
HEADER, WEIGHTS, TREE = "model.json", "model.safetensors", "taxonomy.csv"


def save_model(network: Network, folder: Path, *, split_hash: str = "") -> None:
    """Write the model; the header comes last, so a folder with a header is whole."""
    with replacing(folder / WEIGHTS) as temporary:
        state = {key: value.contiguous().cpu() for key, value in network.state_dict().items()}
        save_file(state, temporary)
    tree = network.taxonomy
    if tree is not None:
        write_taxonomy(tree, folder / TREE)
    preprocessing = network.backbone.preprocessing
    write_json(
        folder / HEADER,
        {
            "format": FORMAT,
            "weights_hash": file_hash(folder / WEIGHTS),
            "backbone": network.backbone.architecture,
            "preprocessing": preprocessing.to_dict(),
            "preprocessing_hash": preprocessing.hash,
            "shape": asdict(network.shape),
            "classified_level": network.classified_level,
            "taxonomy": {"id": tree.id, "version": tree.version, "hash": tree.content_hash} if tree else None,
            "split_hash": split_hash,
        },
    )


def read_header(folder: Path) -> dict[str, object]:
    """The header of a model folder; CheckpointError where there is none."""
    path = folder / HEADER
    if not path.is_file():
        raise CheckpointError(f"{folder} must be the model folder of a finished run, it has no {HEADER}.")
    try:
        header: dict[str, object] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is damaged ({error}).") from None
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {header.get('format')}, this hierderm reads format {FORMAT}.")
    return header


def tree_of_model(folder: Path, taxonomy: Taxonomy | None = None) -> Taxonomy | None:
    """The tree a model was trained on, None where no label was used.

    CheckpointError where the tree was changed since, or where it is not `taxonomy`.
    """
    saved = read_header(folder)["taxonomy"]
    if saved is None:
        return None
    tree = read_taxonomy(folder / TREE)
    if tree.content_hash != dict(saved)["hash"]:  # type: ignore[call-overload]
        raise CheckpointError(f"{folder / TREE} was changed after the model was saved.")
    if taxonomy is not None:
        require_taxonomy(str(folder), tree, taxonomy)
    return tree


def require_taxonomy(model: str, own: Taxonomy, other: Taxonomy) -> None:
    """CheckpointError where data have another taxonomy than the model's own."""
    if other.content_hash != own.content_hash:
        raise CheckpointError(
            f"{model} was trained on taxonomy {own.summary()}, but the data have {other.summary()}. "
            "Use the model's own taxonomy.csv, or train again on this tree."
        )


def load_model(
    folder: Path, *, taxonomy: Taxonomy | None = None, preprocessing: Preprocessing | None = None
) -> Network:
    """Read a model. Another tree than `taxonomy`, or other preprocessing than `preprocessing`, is refused."""
    header = read_header(folder)
    if not (folder / WEIGHTS).is_file() or file_hash(folder / WEIGHTS) != header["weights_hash"]:
        raise CheckpointError(f"{folder / WEIGHTS} is missing or damaged: its hash is not the one in {HEADER}.")
    saved = Preprocessing.from_dict(header["preprocessing"])  # type: ignore[arg-type]
    if saved.hash != header["preprocessing_hash"]:
        raise CheckpointError(f"{folder / HEADER}: the preprocessing was changed after the model was saved.")
    if preprocessing is not None and preprocessing != saved:
        raise CheckpointError(f"{folder} was trained with {saved}, but {preprocessing} is asked for. Use its own.")
    tree = tree_of_model(folder, taxonomy)
    backbone = build_backbone(header["backbone"], saved)  # type: ignore[arg-type]
    shape = dict(header["shape"])  # type: ignore[call-overload]
    shape["probability_levels"] = tuple(shape["probability_levels"])
    level = header["classified_level"]
    network = Network(backbone, NetworkShape(**shape), tree, level)  # type: ignore[arg-type]
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} does not fit its header ({error}).") from None
    return network.eval()
