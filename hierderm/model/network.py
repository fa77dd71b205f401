"""The two-head model: one unit-length embedding, a projection for the contrastive loss, a classifier on the tree."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn, softmax
from torch.nn.functional import normalize

from hierderm.model.backbone import Backbone
from hierderm.model.heads import (
    DiscriminantNeck,
    Discriminants,
    NetworkShape,
    ProjectionHead,
    make_classifier,
    make_neck,
)
from hierderm.taxonomy.tree import Taxonomy


class Outputs(NamedTuple):
    """`embedding` (n, dim) and `projection` (n, projection_dim): unit length; `logits` (n, n_classes) or None."""

    embedding: Tensor
    projection: Tensor
    logits: Tensor | None


class Network(nn.Module):
    """Backbone, neck and heads.

    `classified_level`: the level of `taxonomy` whose nodes are the classes. Both are None for a network without
    labels: a backbone as it is has the default shape, an identity neck and no heads.
    """

    def __init__(
        self,
        backbone: Backbone,
        shape: NetworkShape | None = None,
        taxonomy: Taxonomy | None = None,
        classified_level: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.shape, self.taxonomy = backbone, shape or NetworkShape(), taxonomy
        self.classified_level = classified_level
        self.neck, self.dim = make_neck(self.shape, backbone.dim, taxonomy)
        size = self.shape.projection_dim
        self.projection = ProjectionHead(self.dim, size) if size else nn.Identity()
        n_classes = 0 if taxonomy is None or classified_level is None else taxonomy.size(classified_level)
        self.classifier = make_classifier(self.shape, self.dim, n_classes)

    @classmethod
    def from_discriminants(cls, backbone: Backbone, found: Discriminants, taxonomy: Taxonomy) -> Network:
        """The network that embeds and classifies as `found` does, on all features of the backbone or the first."""
        shape = NetworkShape("discriminants", embedding_dim=len(found.weight), probability_levels=found.levels)
        network = cls(backbone, shape, taxonomy, taxonomy.fine_level)
        assert isinstance(network.neck, DiscriminantNeck)
        network.neck.set_to(found)
        return network

    @property
    def probability_level(self) -> int | None:
        """The finest level that has probabilities, and so have all coarser ones; None where there are no logits."""
        has_logits = self.classifier is not None or isinstance(self.neck, DiscriminantNeck)
        return self.classified_level if has_logits else None

    def embed(self, features: Tensor) -> Tensor:
        """Features of the backbone to embeddings, shape (n, dim), unit length."""
        return normalize(self.neck(features), dim=1)

    def heads(self, features: Tensor) -> Outputs:
        """All outputs from features of the backbone: the path of frozen-feature training."""
        embedding = self.embed(features)
        return Outputs(embedding, self.projection(embedding), self._logits(features, embedding))

    def _logits(self, features: Tensor, embedding: Tensor) -> Tensor | None:
        if isinstance(self.neck, DiscriminantNeck):
            return self.neck.logits(features)
        return self.classifier(embedding) if self.classifier is not None else None

    def forward(self, images: Tensor) -> Outputs:
        """All outputs from preprocessed images, shape (n, 3, size, size)."""
        return self.heads(self.backbone(images))

    def probabilities(self, logits: Tensor, level: int) -> Tensor:
        """Node probabilities of a level, shape (n, n_level): those of the classified level summed up the tree.

        So the levels can't contradict each other. `level` must not be finer than the classified one.
        """
        if self.taxonomy is None or self.classified_level is None:
            raise ValueError("a network without a taxonomy has no classes.")
        if level > self.classified_level:
            raise ValueError(f"level {level} is finer than the classified level {self.classified_level}.")
        probabilities = softmax(logits, dim=1)
        if level == self.classified_level:
            return probabilities
        membership = torch.from_numpy(self.taxonomy.membership(level, below=self.classified_level))
        return probabilities @ membership.to(probabilities)
