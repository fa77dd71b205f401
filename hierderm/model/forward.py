"""Features through the heads of a network, on a device."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from hierderm.config.settings import BackboneConfig
from hierderm.embeddings import Provenance
from hierderm.errors import EmbeddingError, ModelError
from hierderm.evaluation.compression import principal_axes
from hierderm.model.backbone import load_backbone
from hierderm.model.features import best_device
from hierderm.model.network import Network
from hierderm.model.weights import LOADING, weights_hash
from hierderm.types import Vectors


def chosen_device(name: str) -> torch.device:
    """The device of a name; of 'auto' the best one. ModelError where torch has none of that name."""
    try:
        device = best_device() if name == "auto" else torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"device must be 'auto' or one that torch has, got '{name}' ({reason}).") from None
    return device


def through_heads(
    network: Network, device: torch.device, batches: Iterable[Tensor | Vectors], level: int | None
) -> tuple[Vectors, Vectors | None]:
    """The embeddings of batches of features, and the probabilities of a level unless it is None."""
    embeddings = [torch.zeros(0, network.dim)]
    probabilities = []
    if level is not None:
        assert network.taxonomy is not None  # else there is no level
        probabilities.append(torch.zeros(0, network.taxonomy.size(level)))
    for given in batches:
        features = given if isinstance(given, Tensor) else torch.tensor(given)
        with torch.inference_mode():
            outputs = network.heads(features.to(device))
            embeddings.append(outputs.embedding.float().cpu())
            if level is not None and outputs.logits is not None:
                probabilities.append(network.probabilities(outputs.logits.float(), level).cpu())
    return torch.cat(embeddings).numpy(), torch.cat(probabilities).numpy() if probabilities else None


def load_as_network(config: BackboneConfig) -> tuple[Network, Provenance]:
    """A backbone as it is, and what names it; one with random weights is the same each time."""
    if config.weights == "random":
        with LOADING, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            backbone = load_backbone(config)
    else:
        backbone = load_backbone(config)
    return Network(backbone), Provenance(str(config), weights_hash(backbone), backbone.preprocessing.hash)


def truncated(network: Network, embeddings: Vectors, dim: int) -> tuple[Network, str]:
    """A network that embeds on the first `dim` principal axes of its embeddings, and the hash of its weights."""
    if network.shape.truncated_dim:
        raise ModelError("the model is truncated already. Truncate the one that it was made of.")
    if embeddings.ndim != 2 or embeddings.shape[1] != network.dim:
        raise EmbeddingError(f"embeddings must have shape (n_images, {network.dim}), got {embeddings.shape}.")
    made = network.truncated(principal_axes(embeddings, dim))
    return made, weights_hash(made)
