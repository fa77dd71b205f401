"""Features of three of five conditions that are easy to separate, and what a network makes of an analysis of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from scipy.special import softmax

from hierderm.model.heads import Discriminants
from hierderm.model.network import Network
from hierderm.taxonomy.tree import taxonomy_from_paths

RNG = np.random.default_rng(0)
FINE = np.repeat([0, 1, 3], [20, 15, 1])
FEATURES = np.eye(4)[FINE] @ RNG.normal(size=(4, 6)) + RNG.normal(0, 0.1, (36, 6))
TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(5)], ("category", "condition"), id="t")


class FakeBackbone(torch.nn.Module):
    """A backbone of which only the length of its features is asked."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.preprocessing = dim, SimpleNamespace()


def network_outputs(found: Discriminants, features: Any = FEATURES, *, dim: int = 0) -> tuple[Any, Any]:
    """Embeddings and probabilities of the conditions by a network made of an analysis, in float32."""
    width = dim or features.shape[1]
    padded = np.pad(features, ((0, 0), (0, width - features.shape[1])), constant_values=7.0)
    network = Network.from_discriminants(cast(Any, FakeBackbone(width)), found, TREE)
    with torch.no_grad():
        outputs = network.heads(torch.from_numpy(padded).float())
        assert outputs.logits is not None
        return outputs.embedding.numpy(), network.probabilities(outputs.logits, 1).numpy()


def probabilities(found: Discriminants, features: Any = FEATURES) -> Any:
    """Of the conditions, by the analysis itself."""
    return softmax(found.logits(features), axis=1)
