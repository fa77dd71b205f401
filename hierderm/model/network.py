"""The two-head model: one unit-length embedding, a projection for the contrastive loss, a classifier on the tree."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn, softmax, tensor
from torch.nn.functional import normalize

from hierderm.config.settings import ModelConfig
from hierderm.model.backbone import Backbone
from hierderm.model.heads import DiscriminantNeck, ProjectionHead, make_classifier, make_neck
from hierderm.taxonomy.tree import Taxonomy


class Outputs(NamedTuple):
    """`embedding` (n, dim) and `projection` (n, projection_dim): unit length; `logits` (n, n_classes) or None."""

    embedding: Tensor
    projection: Tensor
    logits: Tensor | None


class Network(nn.Module):
    """Backbone, neck and heads. `classified_level` is the level of the tree that the classifier tells apart."""

    def __init__(self, backbone: Backbone, config: ModelConfig, taxonomy: Taxonomy, classified_level: int) -> None:
        super().__init__()
        self.backbone, self.config, self.taxonomy = backbone, config, taxonomy
        self.classified_level = classified_level
        self.neck, self.dim = make_neck(config, backbone.dim, taxonomy)
        self.projection = ProjectionHead(self.dim, config.projection_dim) if config.projection_dim else nn.Identity()
        self.classifier = make_classifier(config, self.dim, taxonomy.size(classified_level))

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
        """Probabilities of a level, shape (n, n_level): those of the classified level summed up the tree.

        So the levels can't contradict each other. `level` must not be finer than the classified one.
        """
        if level > self.classified_level:
            raise ValueError(f"level {level} is finer than the classified level {self.classified_level}.")
        probabilities = softmax(logits, dim=1)
        if level == self.classified_level:
            return probabilities
        pairs = {(int(row[self.classified_level]), int(row[level])) for row in self.taxonomy.ancestors}
        parent = tensor([parent for _, parent in sorted(pairs)], device=logits.device)
        summed = probabilities.new_zeros(len(logits), self.taxonomy.size(level))
        return summed.index_add_(1, parent, probabilities)
