"""Fine labels on a tree: what the losses that take a taxonomy have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hierderm.errors import EmbeddingError
from hierderm.taxonomy.tree import Taxonomy


class FineLabels(nn.Module):
    """Fine labels, shape (n,), to the numbers of their nodes on every level, shape (n, n_levels), coarse first."""

    nodes: Tensor

    def __init__(self, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.n_fine, self.n_levels = taxonomy.ancestors.shape
        self.register_buffer("nodes", torch.from_numpy(taxonomy.ancestors.copy()), persistent=False)

    def forward(self, labels: Tensor) -> Tensor:
        if len(labels) and (labels.is_floating_point() or labels.min() < 0 or labels.max() >= self.n_fine):
            raise EmbeddingError(
                f"labels must be numbers of the taxonomy's conditions, integers in [0, {self.n_fine}), "
                f"got {labels.dtype} from {labels.min().item()} to {labels.max().item()}."
            )
        return self.nodes.to(labels.device)[labels.long()]


class FineLogitLoss(nn.Module):
    """A mean over images of a cost of the log-probabilities of a tree's conditions."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.fine_labels = FineLabels(taxonomy)

    def costs(self, log_probabilities: Tensor, nodes: Tensor) -> Tensor:
        """The cost of each image, shape (n,), from shapes (n, n_fine) and (n, n_levels)."""
        raise NotImplementedError

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        if logits.ndim != 2 or logits.shape[1] != self.fine_labels.n_fine:
            raise EmbeddingError(
                f"logits must have shape (n, {self.fine_labels.n_fine}), a column for each condition of the taxonomy, "
                f"got {tuple(logits.shape)}."
            )
        exact = logits if logits.dtype == torch.float64 else logits.float()
        return mean_or_zero(self.costs(exact.log_softmax(dim=1), self.fine_labels(labels)), logits)


def mean_or_zero(costs: Tensor, logits: Tensor) -> Tensor:
    """The mean, or 0 with a gradient of zeros for an empty batch."""
    return costs.mean() if len(costs) else logits.sum() * 0.0
