"""What stands on the backbone: the neck that makes the embedding, and its two heads."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, one_hot, softmax

from hierderm.config.settings import ModelConfig
from hierderm.taxonomy.tree import Taxonomy


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
    """Discriminants beside beliefs: what `hierderm.training.methods.tree_lda` finds, as a layer.

    The embedding is sqrt(1 - s) * z beside sqrt(s / n_levels) * sqrt(p) for each believed level: z the unit-length
    discriminants, p the probabilities of the level's nodes. The cosine of two pictures is thus (1 - s) times that of
    their discriminants and s times the mean Bhattacharyya coefficient of their beliefs, which lies in [0, 1].
    """

    def __init__(self, dim: int, config: ModelConfig, taxonomy: Taxonomy) -> None:
        super().__init__()
        levels = [taxonomy.level_number(name) for name in config.belief_levels] or list(range(taxonomy.n_levels))
        self.share, self.scale, self.n_levels = config.belief_share, config.classifier_scale, len(levels)
        self.discriminants = nn.Linear(dim, config.embedding_dim)
        self.conditions = nn.Linear(dim, taxonomy.size(-1))
        parents = torch.from_numpy(taxonomy.ancestors)
        nodes = [one_hot(parents[:, level], taxonomy.size(level)) for level in levels]
        self.membership: Tensor  # of conditions in nodes, shape (n_fine, n_nodes), 0 or 1
        self.register_buffer("membership", torch.cat(nodes, dim=1).float())

    @property
    def out_features(self) -> int:
        return self.discriminants.out_features + self.membership.shape[1]

    def logits(self, features: Tensor) -> Tensor:
        """Of the conditions, shape (n, n_fine), with the scale that makes probabilities as sure as they may be."""
        scaled: Tensor = self.scale * self.conditions(features)
        return scaled

    def forward(self, features: Tensor) -> Tensor:
        discriminants = normalize(self.discriminants(features), dim=1)
        beliefs = (softmax(self.conditions(features), dim=1) @ self.membership).sqrt()
        share = self.share
        return torch.cat([math.sqrt(1 - share) * discriminants, math.sqrt(share / self.n_levels) * beliefs], dim=1)


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

    def __init__(self, dim: int, n_classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_classes, dim) / math.sqrt(dim))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.log_scale.exp() * linear(embeddings, normalize(self.weight, dim=1))


def make_neck(config: ModelConfig, dim: int, taxonomy: Taxonomy) -> tuple[nn.Module, int]:
    """The neck on features of length `dim`, and the length of the embedding."""
    if config.neck == "discriminants":
        neck = DiscriminantNeck(dim, config, taxonomy)
        return neck, neck.out_features
    if config.neck == "linear":
        return nn.Linear(dim, config.embedding_dim or dim), config.embedding_dim or dim
    if config.neck == "standardised":
        linear = nn.Linear(dim, config.embedding_dim or dim)
        return nn.Sequential(nn.BatchNorm1d(dim, affine=False), nn.Dropout(config.dropout), linear), linear.out_features
    return (ResidualNeck(dim) if config.neck == "residual" else nn.Identity()), dim


def make_classifier(config: ModelConfig, dim: int, n_classes: int) -> nn.Module | None:
    """The classifier on embeddings of length `dim`, or None where the model has none."""
    if config.classifier == "none":
        return None
    if config.classifier == "cosine":
        return CosineClassifier(dim, n_classes, config.classifier_scale)
    return nn.Linear(dim, n_classes)
