"""What the losses on embeddings have in common: a cosine, a temperature and, for some, a tree."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import BaseMetricLossFunction
from pytorch_metric_learning.utils import common_functions
from torch import Tensor

from hierderm.errors import ConfigError
from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.losses.fine_labels import FineLabels


class EmbeddingLoss(BaseMetricLossFunction):  # type: ignore[misc]  # pytorch-metric-learning has no types
    """A loss of pytorch-metric-learning on similarities / `temperature`, cosines unless `distance` says otherwise."""

    def __init__(self, temperature: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not temperature > 0:
            raise ConfigError(f"temperature must be > 0, got {temperature}.")
        self.temperature = temperature
        self.add_to_recordable_attributes(list_of_names=["temperature"], is_stat=False)

    def get_default_distance(self) -> Any:
        return CosineSimilarity()

    def similarity(self, embeddings: Tensor, ref_emb: Tensor) -> Tensor:
        """Similarity / temperature, shape (n, n_references), float32 or float64 whatever the precision of training."""
        same = ref_emb is embeddings
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = at_least_single(embeddings)
            found: Tensor = self.distance(embeddings, embeddings if same else at_least_single(ref_emb))
        return (found if self.distance.is_inverted else -found) / self.temperature


class TreeEmbeddingLoss(EmbeddingLoss):
    """A loss of all pairs of a batch by the depth that they share in a tree; without miners and references."""

    def __init__(self, taxonomy: Taxonomy, temperature: float, **kwargs: Any) -> None:
        super().__init__(temperature, **kwargs)
        self.fine_labels = FineLabels(taxonomy)

    def pair_loss(self, similarity: Tensor, depth: Tensor) -> Tensor | None:
        """The loss from similarities / temperature, (n, n), diagonal -inf, and shared levels, (n, n), diagonal 0.

        Shape (), or (n_losses,) for the `reducer`; None where no pair shares a node.
        """
        raise NotImplementedError

    def compute_loss(
        self, embeddings: Tensor, labels: Any, indices_tuple: Any, ref_emb: Tensor, ref_labels: Any
    ) -> Any:
        common_functions.labels_required(labels)
        common_functions.indices_tuple_not_supported(indices_tuple)
        common_functions.ref_not_supported(embeddings, labels, ref_emb, ref_labels)
        nodes = self.fine_labels(labels)
        depth = (nodes[:, None, :] == nodes[None, :, :]).sum(dim=2).fill_diagonal_(0)
        own = torch.eye(len(nodes), dtype=torch.bool, device=depth.device)
        losses = self.pair_loss(self.similarity(embeddings, embeddings).masked_fill(own, -torch.inf), depth)
        if losses is None:
            return self.zero_losses()
        kind = "element" if losses.ndim else "already_reduced"
        indices = torch.arange(len(losses)) if losses.ndim else None
        return {"loss": {"losses": losses, "indices": indices, "reduction_type": kind}}


def at_least_single(values: Tensor) -> Tensor:
    """float64 as it is, all other types as float32."""
    return values if values.dtype == torch.float64 else values.float()
