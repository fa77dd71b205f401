"""Models by name: folders, files, repositories of the hub, backbones. torch is imported where one needs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from hierderm.config.settings import BackboneConfig, ForwardEngine
from hierderm.embeddings import Provenance
from hierderm.errors import CheckpointError, ModelError
from hierderm.files import os_faults
from hierderm.model.hub import at_revision, downloaded, is_hub_name
from hierderm.taxonomy.tree import Taxonomy

if TYPE_CHECKING:
    from hierderm.model.encoder import Encoder

KIND = "model"  # of a folder


def load(name: str | Path, *, revision: str = "", device: str = "auto", engine: ForwardEngine = "auto") -> Encoder:
    """Load a trained model, or a backbone by name.

    Args:
        name: The folder of a model, the folder of a run that holds one in `model`, a file that `Encoder.export` wrote
            (.onnx, needs no torch), a model's repository of the hub (`user/name` or `user/name@revision`), or a
            backbone: `hierderm:tiny`, `hierderm:lite0`, `timm:<model>`, `hf:<repository or folder>`, and with other
            weights than those of its name `<backbone>@random` (the same each time) or
            `<backbone>@<file>.safetensors` (timm).
        revision: Branch, tag or commit of the repository; '' for the newest. Of hierderm models only.
        device: 'auto' is a GPU where there is one, else the CPU; or a device of torch such as 'cuda:1'.
        engine: What computes vectors on a CPU: 'torch', 'onnx' (ONNX Runtime, from hierderm[onnx]), or 'auto', the
            faster where there are many images. The vectors are the same, to about 1e-5.

    Returns:
        The encoder, ready to use.

    Raises:
        CheckpointError: There is no such model, or its files are damaged or do not fit.
        ModelError: The device, the engine or the revision can't be used.
    """
    if engine not in (known := get_args(ForwardEngine)):
        raise ModelError(f"engine must be of {list(known)}, got '{engine}'.")
    name = at_revision(str(name), revision) if revision else name
    if Path(name).suffix == ".onnx":
        from hierderm.model.onnx_encoder import OnnxEncoder

        return OnnxEncoder(Path(name))
    from hierderm.model.checkpoint import load_model
    from hierderm.model.encoder import Encoder
    from hierderm.model.forward import load_as_network

    folder = model_folder(str(name))
    if folder is None:
        if is_hub_name(str(name)) and "@" in str(name):
            raise ModelError(f"{name} holds no model of hierderm, and a backbone of the hub is taken as it is now.")
        text = f"hf:{name}" if is_hub_name(str(name)) else str(name)  # a repository that holds no hierderm model
        encoder = Encoder(*load_as_network(BackboneConfig.parse(text)), device=device)
    else:
        network, own_hash, split_hash, card, seen = load_model(folder)
        tree_hash = network.taxonomy.content_hash if network.taxonomy else ""
        place = str(name) if is_hub_name(str(name)) else str(folder)
        provenance = Provenance(place, own_hash, network.backbone.preprocessing.hash, tree_hash, split_hash)
        encoder = Encoder(network, provenance, device=device, card=card, seen=seen)
    encoder.network.backbone.engine = engine
    return encoder


@os_faults(CheckpointError)
def model_folder(name: str) -> Path | None:
    """The folder of the trained model that `name` means; None where it means a backbone such as 'hierderm:tiny'.

    A model of the hub is downloaded, unless it is in the hub's cache.
    """
    folder = Path(name)
    if is_hub_name(name):
        return downloaded(name, KIND)
    if ":" in name and not folder.is_dir():
        return None
    if not folder.is_dir():
        raise CheckpointError(
            f"a model must be a model folder, a backbone such as 'hierderm:tiny', or a repository of the hub, got "
            f"'{name}', which is none."
        )
    return folder / "model" if (folder / "model").is_dir() else folder


def tree_of_model(name: str, taxonomy: Taxonomy | None = None) -> Taxonomy | None:
    """The tree that the model of a name was trained on, None where it has learnt nothing.

    CheckpointError where the tree was changed since, or where it is not `taxonomy`.
    """
    if Path(name).suffix == ".onnx":
        tree = load(name).taxonomy
        if tree is not None and taxonomy is not None:
            require_taxonomy(name, tree, taxonomy)
        return tree
    from hierderm.model.checkpoint import tree_of_folder

    folder = model_folder(name)
    return None if folder is None else tree_of_folder(folder, taxonomy)


def require_taxonomy(model: str, own: Taxonomy, other: Taxonomy) -> None:
    """CheckpointError where data have another taxonomy than the model's own."""
    if other.content_hash != own.content_hash:
        raise CheckpointError(
            f"{model} was trained on taxonomy {own.summary()}, but the data have {other.summary()}. "
            "Use the model's own taxonomy.csv, or train again on this tree."
        )
