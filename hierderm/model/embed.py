"""From pictures to vectors: a backbone's features, or a trained model's embeddings and probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from hierderm.config.methods import Augmentation
from hierderm.data.dataset import PictureDataset
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable, Provenance, unit_length
from hierderm.model.backbone import Backbone, load_vanilla, weights_hash
from hierderm.model.checkpoint import load_model, read_header
from hierderm.model.network import Network
from hierderm.types import Vectors


def best_device() -> torch.device:
    """A GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _batches(pictures: Dataset[tuple[Tensor, int]], batch_size: int, workers: int) -> Iterator[Tensor]:
    loader = DataLoader(pictures, batch_size=batch_size, num_workers=workers)
    for images, _ in tqdm(loader, "Embedding", len(loader), leave=False, delay=2, disable=None):
        yield images


@torch.inference_mode()
def backbone_features(
    backbone: Backbone,
    paths: Sequence[Path],
    *,
    batch_size: int = 64,
    workers: int = 0,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    view: int = 0,
    rows: Sequence[int] | None = None,
) -> Vectors:
    """The backbone's vector of each picture, shape (n_images, dim), float32, not normalised.

    With `augmentation` of the pictures changed by it; `seed`, `view` and a picture's position among `paths` say which
    of the endless changes. `rows`: positions of the pictures that are wanted, by default all.
    """
    device = best_device()
    backbone.eval().to(device)
    pictures = PictureDataset(paths, backbone.preprocessing, augmentation, seed=seed)
    pictures.epoch = view
    wanted = pictures if rows is None else Subset(pictures, rows)
    features = [backbone(images.to(device)).float().cpu() for images in _batches(wanted, batch_size, workers)]
    return torch.cat(features).numpy()


def embed_vanilla(backbone: Backbone, table: CaseTable, *, workers: int = 0) -> EmbeddingTable:
    """The untrained baseline: the backbone's own output at unit length."""
    features = backbone_features(backbone, table.paths, workers=workers)
    provenance = Provenance(
        model=backbone.architecture["name"],
        weights_hash=weights_hash(backbone),
        preprocessing_hash=backbone.preprocessing.hash,
        taxonomy_hash=table.taxonomy.content_hash,
    )
    return EmbeddingTable(unit_length(features), table.frame, provenance)


def embed_saved(
    folder: Path,
    network: Network,
    table: CaseTable,
    *,
    name: str,
    workers: int = 0,
    features: Vectors | None = None,
) -> EmbeddingTable:
    """As `embed_trained`, for the network loaded from the model `folder`, whose header gives the hashes."""
    header = read_header(folder)
    return embed_trained(
        network,
        table,
        name=name,
        weights_hash=str(header["weights_hash"]),
        split_hash=str(header["split_hash"]),
        workers=workers,
        features=features,
    )


def is_model_folder(name: str) -> bool:
    """Whether `name` means a trained model's folder rather than a backbone such as 'hierderm:tiny'."""
    return ":" not in name or Path(name).is_dir()


def embed_by_name(name: str, table: CaseTable, *, workers: int = 0) -> EmbeddingTable:
    """Embed a table with a trained model, named by its folder, or with a vanilla backbone, by its name."""
    if is_model_folder(name):
        return embed_saved(
            Path(name), load_model(Path(name), taxonomy=table.taxonomy), table, name=name, workers=workers
        )
    return embed_vanilla(load_vanilla(name), table, workers=workers)


@torch.inference_mode()
def embed_trained(
    network: Network,
    table: CaseTable,
    *,
    name: str,
    weights_hash: str = "",
    split_hash: str = "",
    batch_size: int = 64,
    workers: int = 0,
    features: Vectors | None = None,
) -> EmbeddingTable:
    """A trained model's embeddings, with condition probabilities where it classifies conditions.

    `features`: the backbone's vectors of the table's pictures, shape (n_images, n_features), where they are known.
    """
    device = best_device()
    network.eval().to(device)
    embeddings, probabilities = [], []
    pictures = PictureDataset(table.paths, network.backbone.preprocessing)
    if features is None:
        passes = (network(images.to(device)) for images in _batches(pictures, batch_size, workers))
    else:
        passes = (network.heads(rows.to(device)) for rows in torch.from_numpy(features).split(4096))
    for outputs in passes:
        embeddings.append(outputs.embedding.float().cpu())
        if network.classifies_conditions and network.classified_level is not None:
            logits = outputs.logits.float()
            probabilities.append(network.probabilities(logits, network.classified_level).cpu())
    provenance = Provenance(
        model=name,
        weights_hash=weights_hash,
        preprocessing_hash=network.backbone.preprocessing.hash,
        taxonomy_hash=network.taxonomy.content_hash if network.taxonomy else "",
        split_hash=split_hash,
    )
    return EmbeddingTable(
        torch.cat(embeddings).numpy(),
        table.frame,
        provenance,
        torch.cat(probabilities).numpy() if probabilities else None,
    )
