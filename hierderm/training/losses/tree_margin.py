"""Cross-entropy in which the truth must win by a margin that grows with the distance in the tree."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hierderm.errors import ConfigError
from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.losses.fine_labels import FineLogitLoss


class TreeMarginLoss(FineLogitLoss):
    """Softmax-margin with the tree as the cost (Gimpel and Smith, NAACL 2010, Softmax-Margin CRFs).

    The mean over images of

        loss = -log( exp(z_t) / sum over conditions c of exp(z_c + margin * h(t, c) / L) )

    with z the logits, t the truth, and h the height of the lowest common ancestor (0 for the truth itself, 1 for a
    sibling, L, the number of levels, where only the root is shared). So each level has its own margin, and conditions
    of another category must lose by more than siblings. A margin of 0 is cross-entropy. The cost of the paper is
    any; that it is the height in the tree is ours.

    Args:
        taxonomy: a tree of any depth.
        margin: what a condition that shares only the root must lose by, in units of the logits; finite, >= 0.

    Call:
        logits: of the conditions, shape (n, n_fine), of any float type; computed in float32 or float64.
        labels: numbers of the conditions (`taxonomy.encode`), shape (n,), integers in [0, n_fine).

    Returns:
        A scalar >= 0; 0 with a gradient of zeros for an empty batch.

    Raises:
        ConfigError: `margin` is negative or not finite.
        EmbeddingError: `logits` have another shape, or a label is not a condition of the taxonomy.

    Examples:
        Conditions a1 and a2 of A, b1 of B, equal logits, truth a1. With a margin of 2 log 2 the sibling counts
        twice and b1 four times: the loss is log(1 + 2 + 4).

        >>> from hierderm.taxonomy.tree import taxonomy_from_paths
        >>> paths = [("A", "a1"), ("A", "a2"), ("B", "b1")]
        >>> tree = taxonomy_from_paths(paths, ["category", "condition"], id="toy")
        >>> loss = TreeMarginLoss(tree, margin=2 * math.log(2))(torch.zeros(1, 3), torch.tensor([0]))
        >>> round(loss.item(), 4), round(math.log(7), 4)
        (1.9459, 1.9459)
    """

    margins: Tensor

    def __init__(self, taxonomy: Taxonomy, margin: float = 2.0) -> None:
        super().__init__(taxonomy)
        if not 0 <= margin < math.inf:
            raise ConfigError(f"margin must be finite and >= 0, got {margin}.")
        heights = torch.from_numpy(taxonomy.lca_height) / taxonomy.n_levels
        self.register_buffer("margins", margin * heights, persistent=False)

    def costs(self, log_probabilities: Tensor, nodes: Tensor) -> Tensor:
        truth = nodes[:, -1]
        margins = self.margins.to(log_probabilities)[truth]
        true = log_probabilities.gather(1, truth[:, None])[:, 0]
        return (log_probabilities + margins).logsumexp(dim=1) - true
