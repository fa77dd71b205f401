"""What stands on the backbone: the neck that makes the embedding, and its two heads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.special import softmax as numpy_softmax
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, softmax

from hierderm.errors import CheckpointError
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import FloatArray, Floats


@dataclass(frozen=True)
class NetworkShape:
    """The parts of a network and their sizes; stored in the header of a model folder, with no learnt value in it.

    `embedding_dim`: output of a 'linear', 'standardised' or 'discriminants' neck, 0 for the backbone's own length.
    `projection_dim`: 0 for no projection head. `dropout`: of a 'standardised' neck. `probability_levels`: the levels
    whose node probabilities stand in the embedding, by number. `truncated_dim`: length of an embedding that was
    truncated after training, 0 where it was not.
    """

    neck: Literal["identity", "linear", "standardised", "residual", "discriminants"] = "identity"
    embedding_dim: int = 0
    projection_dim: int = 0
    classifier: Literal["none", "cosine", "linear"] = "none"
    dropout: float = 0.0
    probability_levels: tuple[int, ...] = ()
    truncated_dim: int = 0


@dataclass(frozen=True)
class Discriminants:
    """Linear discriminants of features and the logits of the conditions: what methods on frozen features find.

    `weight`: shape (n_discriminants, n_features), and `bias`: (n_discriminants,). `condition_weight`: shape (n_fine,
    n_features), and `condition_bias`: (n_fine,), -inf for conditions without training images. `membership`: of the
    conditions in the nodes of `levels`, shape (n_fine, n_nodes), see `node_membership`. `probability_share`: share of
    the node probabilities in the cosine of two embeddings, in [0, 1). `scale`: factor that calibrates the logits, > 0.
    """

    weight: FloatArray
    bias: FloatArray
    condition_weight: FloatArray
    condition_bias: FloatArray
    membership: FloatArray
    levels: tuple[int, ...] = ()
    probability_share: float = 0.0
    scale: float = 1.0

    @property
    def n_features(self) -> int:
        return int(self.weight.shape[1])

    def logits(self, features: Floats) -> FloatArray:
        """Log-probabilities of the conditions up to a constant, shape (n_images, n_fine), not yet times `scale`."""
        return np.asarray(features @ self.condition_weight.T + self.condition_bias)

    def embed(self, features: Floats) -> FloatArray:
        """Unit-length embeddings of features, shape (n_images, n_features): see `NodeProbabilities`."""
        vectors = features @ self.weight.T + self.bias
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
        if not self.levels:
            return np.asarray(unit)
        share = self.probability_share
        probabilities = numpy_softmax(self.logits(features), axis=1) @ self.membership
        return np.concatenate([np.sqrt(1 - share) * unit, np.sqrt(share / len(self.levels) * probabilities)], axis=1)


def node_membership(taxonomy: Taxonomy, weights: Mapping[int, float], classified_level: int) -> FloatArray:
    """Membership of the classes in the nodes of some levels, shape (n_classes, n_nodes): 0, or the level's weight.

    `weights`: by number of the level, above 0; they are scaled to a mean of 1.
    """
    mean = sum(weights.values()) / len(weights)
    parts = [taxonomy.membership(level, below=classified_level) * (w / mean) for level, w in weights.items()]
    return np.concatenate(parts, axis=1)


class ResidualNeck(nn.Module):
    """x + MLP(LayerNorm(x)), the last layer zero at the start: training begins at the backbone's own embedding."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        last = self.body[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = features + self.body(features)
        return result


class DiscriminantNeck(nn.Module):
    """Linear discriminants, and the logits of the conditions, both linear functions of the same features.

    Features are standardised by `centre` and `spread`, constants, so that the weights can be trained at one rate.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, dim: int, embedding_dim: int, n_fine: int) -> None:
        super().__init__()
        self.discriminants, self.conditions = nn.Linear(dim, embedding_dim), nn.Linear(dim, n_fine)
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("spread", torch.ones(dim))

    def set_to(self, found: Discriminants, centre: Floats, spread: Floats) -> None:
        """Take the values of an analysis. If it uses only the first features, the others get weight 0."""
        unused = ((0, 0), (0, self.discriminants.in_features - found.n_features))
        values = {"centre": centre, "spread": spread}
        for name, weight, bias in (
            ("discriminants", found.weight, found.bias),
            ("conditions", found.condition_weight, found.condition_bias),
        ):
            whole = np.pad(weight, unused)
            values |= {f"{name}.weight": whole * spread, f"{name}.bias": bias + whole @ centre}
        self.load_state_dict({name: torch.from_numpy(value).float() for name, value in values.items()})

    def logits(self, features: Tensor) -> Tensor:
        """Logits of the conditions, shape (n, n_fine)."""
        logits: Tensor = self.conditions(self._standardised(features))
        return logits

    def forward(self, features: Tensor) -> Tensor:
        """The discriminants, shape (n, embedding_dim), of any length."""
        discriminants: Tensor = self.discriminants(self._standardised(features))
        return discriminants

    def _standardised(self, features: Tensor) -> Tensor:
        return (features - self.centre) / self.spread


class NodeProbabilities(nn.Module):
    """Puts the node probabilities p of some levels into an embedding z, as sqrt(s w / n_levels) * sqrt(p) of each.

    The embedding is sqrt(1 - s) * z, then these, and of unit length again. The cosine of two images is thus (1 - s)
    times that of z plus s times the mean, weighted by w, of the Bhattacharyya coefficients of their node probabilities,
    which are in [0, 1]. `share`: s, in [0, 1). `membership` holds w, 1 at first: see `node_membership`. Its values
    follow the classes, the nodes of `classified_level`.
    """

    membership: Tensor
    share: Tensor

    def __init__(self, taxonomy: Taxonomy, levels: tuple[int, ...], classified_level: int) -> None:
        super().__init__()
        self.n_levels = len(levels)
        members = node_membership(taxonomy, dict.fromkeys(levels, 1.0), classified_level)
        self.register_buffer("membership", torch.from_numpy(members).float())
        self.register_buffer("share", torch.tensor(0.0))

    def forward(self, unit: Tensor, logits: Tensor) -> Tensor:
        roots = (softmax(logits, dim=1) @ self.membership).sqrt()
        return torch.cat([(1 - self.share).sqrt() * unit, (self.share / self.n_levels).sqrt() * roots], dim=1)


class ProjectionHead(nn.Module):
    """The two-layer head of supervised contrastive learning (Khosla et al. 2020, arXiv 2004.11362, section 3.1)."""

    def __init__(self, dim: int, projection_dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, projection_dim))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Unit-length projections, shape (n, projection_dim)."""
        return normalize(self.body(embeddings), dim=1)


class CosineClassifier(nn.Module):
    """Logits = scale * cosine between embedding and class weight; the scale is learnt in log space."""

    def __init__(self, dim: int, n_classes: int, scale: float = 16.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_classes, dim) / math.sqrt(dim))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.log_scale.exp() * linear(embeddings, normalize(self.weight, dim=1))


def make_neck(shape: NetworkShape, dim: int, taxonomy: Taxonomy | None) -> tuple[nn.Module, int]:
    """The neck on features of length `dim`, and the length of what it gives."""
    if shape.neck == "discriminants":
        if taxonomy is None:
            raise CheckpointError("a 'discriminants' neck must have a taxonomy, got none.")
        return DiscriminantNeck(dim, shape.embedding_dim, taxonomy.size(-1)), shape.embedding_dim
    if shape.neck == "linear":
        return nn.Linear(dim, shape.embedding_dim or dim), shape.embedding_dim or dim
    if shape.neck == "standardised":
        linear = nn.Linear(dim, shape.embedding_dim or dim)
        return nn.Sequential(nn.BatchNorm1d(dim, affine=False), nn.Dropout(shape.dropout), linear), linear.out_features
    return (ResidualNeck(dim) if shape.neck == "residual" else nn.Identity()), dim


def make_classifier(shape: NetworkShape, dim: int, n_classes: int) -> nn.Module | None:
    """The classifier on embeddings of length `dim`, or None where the network has none."""
    if shape.classifier == "none":
        return None
    return CosineClassifier(dim, n_classes) if shape.classifier == "cosine" else nn.Linear(dim, n_classes)
