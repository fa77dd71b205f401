"""What stands on the backbone: the neck that makes the embedding, and its two heads."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from hierderm.config import ModelConfig


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


def make_neck(config: ModelConfig, dim: int) -> tuple[nn.Module, int]:
    """The neck on features of length `dim`, and the length of the embedding."""
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
