"""A trained model as a folder: safetensors, a JSON header, the tree it was trained on and a model card.

No pickle is ever read from it. Loading checks the weights' hash, the preprocessing and, where given, the tree.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hierderm.artifacts import file_hash, replacing, write_json
from hierderm.config.settings import ModelConfig
from hierderm.data.preprocessing import Preprocessing
from hierderm.errors import CheckpointError
from hierderm.model.backbone import build_backbone
from hierderm.model.network import Network
from hierderm.taxonomy.file import read_taxonomy, write_taxonomy
from hierderm.taxonomy.tree import Taxonomy

FORMAT = 1
HEADER, WEIGHTS, TREE = "model.json", "model.safetensors", "taxonomy.csv"


def save_model(network: Network, folder: Path, *, split_hash: str = "") -> None:
    """Write the model; the header comes last, so a folder with a header is whole."""
    with replacing(folder / WEIGHTS) as temporary:
        state = {key: value.contiguous().cpu() for key, value in network.state_dict().items()}
        save_file(state, temporary)
    write_taxonomy(network.taxonomy, folder / TREE)
    preprocessing = network.backbone.preprocessing
    write_json(
        folder / HEADER,
        {
            "format": FORMAT,
            "weights_hash": file_hash(folder / WEIGHTS),
            "backbone": network.backbone.architecture,
            "preprocessing": preprocessing.to_dict(),
            "preprocessing_hash": preprocessing.hash,
            "model": asdict(network.config),
            "classified_level": network.classified_level,
            "taxonomy": {
                "id": network.taxonomy.id,
                "version": network.taxonomy.version,
                "hash": network.taxonomy.content_hash,
            },
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


def tree_of_model(folder: Path, taxonomy: Taxonomy | None = None) -> Taxonomy:
    """The tree a model was trained on. CheckpointError where it was changed since, or where it is not `taxonomy`."""
    tree = read_taxonomy(folder / TREE)
    of_header = dict(read_header(folder)["taxonomy"])  # type: ignore[call-overload]
    if tree.content_hash != of_header["hash"]:
        raise CheckpointError(f"{folder / TREE} was changed after the model was saved.")
    if taxonomy is not None and taxonomy.content_hash != tree.content_hash:
        raise CheckpointError(
            f"{folder} was trained on taxonomy {tree.summary()}, but the data have {taxonomy.summary()}. "
            "Use the model's own taxonomy.csv, or train again on this tree."
        )
    return tree


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
    level = int(header["classified_level"])  # type: ignore[call-overload]
    network = Network(backbone, ModelConfig(**header["model"]), tree, level)  # type: ignore[arg-type]
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} does not fit its header ({error}).") from None
    return network.eval()
