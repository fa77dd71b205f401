"""Cross-entropy with soft labels of the tree: mistakes near the truth are partly right."""

from __future__ import annotations

import torch
from torch import Tensor

from hierderm.errors import ConfigError
from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.losses.fine_labels import FineLogitLoss


class SoftLabelsLoss(FineLogitLoss):
    """Soft labels (Bertinetto et al. 2020, Making Better Mistakes, arXiv 1912.09393, section 3.2, equation 5).

    The mean over images of

        loss = - sum over conditions c of y(c) * log softmax(logits)_c
        y(c) = exp(-beta * h(truth, c) / L), divided by its sum over the conditions

    with h the height of the lowest common ancestor (0 for the truth itself, 1 for a sibling, L, the number of levels,
    where only the root is shared). As beta grows it goes to cross-entropy. The authors' code divides h by the greatest
    one that occurs, which is the same for a tree of two or more top nodes.

    Args:
        taxonomy: a tree of any depth.
        beta: >= 0; the paper tries 4 to 30.

    Call:
        logits: of the conditions, shape (n, n_fine), of any float type; computed in float32 or float64.
        labels: numbers of the conditions (`taxonomy.encode`), shape (n,), integers in [0, n_fine).

    Returns:
        A scalar, at least the entropy of the soft labels; 0 with a gradient of zeros for an empty batch.

    Raises:
        ConfigError: `beta` is negative.
        EmbeddingError: `logits` have another shape, or a label is not a condition of the taxonomy.

    Examples:
        Conditions a1 and a2 of A, b1 of B. With beta = 2 log 2 the soft label of a1 is (4, 2, 1) / 7, so that
        probabilities (1/2, 1/4, 1/4) cost (4 log 2 + 2 log 4 + 1 log 4) / 7 = 10/7 log 2.

        >>> import math
        >>> from hierderm.taxonomy.tree import taxonomy_from_paths
        >>> paths = [("A", "a1"), ("A", "a2"), ("B", "b1")]
        >>> tree = taxonomy_from_paths(paths, ["category", "condition"], id="toy")
        >>> logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
        >>> loss = SoftLabelsLoss(tree, beta=2 * math.log(2))(logits, torch.tensor([0]))
        >>> round(loss.item(), 4), round(10 / 7 * math.log(2), 4)
        (0.9902, 0.9902)
    """

    targets: Tensor

    def __init__(self, taxonomy: Taxonomy, beta: float = 10.0) -> None:
        super().__init__(taxonomy)
        if not beta >= 0:
            raise ConfigError(f"beta must be >= 0, got {beta}.")
        heights = torch.from_numpy(taxonomy.lca_height) / taxonomy.n_levels
        self.register_buffer("targets", torch.softmax(-beta * heights, dim=1), persistent=False)

    def costs(self, log_probabilities: Tensor, nodes: Tensor) -> Tensor:
        targets = self.targets.to(log_probabilities)[nodes[:, -1]]
        return -(targets * log_probabilities).sum(dim=1)
