"""The two-head model: one unit-length embedding, a projection for the contrastive loss, a classifier on the tree."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn, softmax
from torch.nn.functional import normalize

from hierderm.model.backbone import Backbone
from hierderm.model.heads import (
    DiscriminantNeck,
    Discriminants,
    NetworkShape,
    NodeProbabilities,
    ProjectionHead,
    make_classifier,
    make_neck,
)
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Floats, Vectors


class Outputs(NamedTuple):
    """What a pass gives of n images.

    `embedding`: shape (n, dim), unit length; `projection`: (n, projection_dim), unit length, of the embedding without
    node probabilities; `logits`: calibrated, (n, n_classes), or None.
    """

    embedding: Tensor
    projection: Tensor
    logits: Tensor | None


class Network(nn.Module):
    """Backbone, neck and heads.

    `classified_level`: the level of `taxonomy` whose nodes are the classes. Both are None for a network without
    labels: a backbone as it is has the default shape, an identity neck and no heads. `scale`: factor that calibrates
    the logits, > 0; the node probabilities in the embedding are those without it. `axes`: those that a truncated
    embedding keeps, shape (full_dim, dim).
    """

    scale: Tensor
    axes: Tensor | None

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
        self.node_probabilities: NodeProbabilities | None = None
        if taxonomy is not None and self.probability_level is not None:
            self.register_buffer("scale", torch.tensor(1.0))
            if levels := self.shape.probability_levels:
                self.node_probabilities = NodeProbabilities(taxonomy, levels, self.probability_level)
                self.dim += self.node_probabilities.membership.shape[1]
        kept = self.shape.truncated_dim
        self.register_buffer("axes", torch.eye(self.dim)[:, :kept] if kept else None)
        self.dim = kept or self.dim

    @classmethod
    def from_discriminants(
        cls,
        backbone: Backbone,
        found: Discriminants,
        taxonomy: Taxonomy,
        *,
        centre: Floats | float = 0.0,
        spread: Floats | float = 1.0,
        projection_dim: int = 0,
    ) -> Network:
        """The network that embeds and classifies as `found` does, on all features of the backbone or the first.

        `centre` and `spread`: constants by which it standardises the features, shape (dim,), for training to go on;
        they change no output.
        """
        shape = NetworkShape("discriminants", len(found.weight), projection_dim, probability_levels=found.levels)
        network = cls(backbone, shape, taxonomy, taxonomy.fine_level)
        assert isinstance(network.neck, DiscriminantNeck)
        ones = np.ones(backbone.dim)
        network.neck.set_to(found, centre * ones, spread * ones)
        network.scale.fill_(found.scale)
        if network.node_probabilities is not None:
            network.node_probabilities.share.fill_(found.probability_share)
            network.node_probabilities.membership.copy_(torch.from_numpy(found.membership))  # of a shuffled tree
        return network

    def truncated(self, axes: Vectors) -> Network:
        """A network that embeds as this one does, on `axes`, orthonormal columns, shape (dim, truncated_dim)."""
        shape = replace(self.shape, truncated_dim=axes.shape[1])
        made = Network(self.backbone, shape, self.taxonomy, self.classified_level)
        made.load_state_dict({**self.state_dict(), "axes": torch.from_numpy(axes)})
        return made

    @property
    def probability_level(self) -> int | None:
        """The finest level that has probabilities, and so have all coarser ones; None where there are no logits."""
        has_logits = self.classifier is not None or isinstance(self.neck, DiscriminantNeck)
        return self.classified_level if has_logits else None

    def embed(self, features: Tensor) -> Tensor:
        """Features of the backbone to embeddings, shape (n, dim), unit length."""
        return self.heads(features).embedding

    def heads(self, features: Tensor) -> Outputs:
        """All outputs from features of the backbone: the path of frozen-feature training."""
        unit = normalize(self.neck(features), dim=1)
        logits, embedding = self._logits(features, unit), unit
        if logits is not None:
            embedding = unit if self.node_probabilities is None else self.node_probabilities(unit, logits)
            logits = self.scale * logits
        if self.axes is not None:
            embedding = normalize(embedding @ self.axes, dim=1)
        return Outputs(embedding, self.projection(unit), logits)

    def _logits(self, features: Tensor, unit: Tensor) -> Tensor | None:
        if isinstance(self.neck, DiscriminantNeck):
            return self.neck.logits(features)
        return self.classifier(unit) if self.classifier is not None else None

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
