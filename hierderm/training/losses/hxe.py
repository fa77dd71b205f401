"""Hierarchical cross-entropy: one term for each step down the tree."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hierderm.errors import ConfigError
from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.losses.fine_labels import FineLogitLoss


class HXELoss(FineLogitLoss):
    """Hierarchical cross-entropy, HXE (Bertinetto et al. 2020, Making Better Mistakes, arXiv 1912.09393, section 3.1).

    With p(node) the softmax over the conditions summed up the tree, and C_0, ..., C_(L-1) the true nodes from the
    coarsest level to the condition (C_(-1) is the root, p = 1), the mean over images of

        loss = - sum over l of lambda_l * log( p(C_l) / p(C_(l-1)) )
        lambda_l = exp(-alpha * l) for alpha >= 0, exp(alpha * (L - 1 - l)) for alpha < 0

    The largest weight is 1, and alpha = 0 is cross-entropy. The greater alpha, the more the coarse levels count. So the
    paper describes it, and the authors' code weighs a step by exp(-alpha * its distance from the root), divided by the
    sum over all nodes, which only scales the loss. Equation 4 of the paper uses the height of a node: read as the
    height above the conditions, that is the opposite, and what a negative alpha does here.

    Args:
        taxonomy: a tree of any depth.
        alpha: finite; the paper tries 0.1 to 0.9.

    Call:
        logits: of the conditions, shape (n, n_fine), of any float type; computed in float32 or float64.
        labels: numbers of the conditions (`taxonomy.encode`), shape (n,), integers in [0, n_fine).

    Returns:
        A scalar >= 0; 0 with a gradient of zeros for an empty batch.

    Raises:
        ConfigError: `alpha` is not finite.
        EmbeddingError: `logits` have another shape, or a label is not a condition of the taxonomy.

    Examples:
        Conditions a1 and a2 of A, b1 of B, equal logits, truth a1: p(A) = 2/3 and p(a1 | A) = 1/2. With alpha = log 2
        the loss is log(3/2) + 1/2 log(2).

        >>> from hierderm.taxonomy.tree import taxonomy_from_paths
        >>> paths = [("A", "a1"), ("A", "a2"), ("B", "b1")]
        >>> tree = taxonomy_from_paths(paths, ["category", "condition"], id="toy")
        >>> loss = HXELoss(tree, alpha=math.log(2))(torch.zeros(1, 3), torch.tensor([0]))
        >>> round(loss.item(), 4)
        0.752
    """

    def __init__(self, taxonomy: Taxonomy, alpha: float = 0.5) -> None:
        super().__init__(taxonomy)
        if not math.isfinite(alpha):
            raise ConfigError(f"alpha must be finite, got {alpha}.")
        first = 0 if alpha >= 0 else taxonomy.n_levels - 1  # the level that weighs most
        weights = [math.exp(-alpha * (level - first)) for level in range(taxonomy.n_levels)]
        # Each log p(node) is in its own step and, with the other sign, in the next one.
        self.factors = [weight - finer for weight, finer in zip(weights, [*weights[1:], 0.0], strict=True)]

    def costs(self, log_probabilities: Tensor, nodes: Tensor) -> Tensor:
        conditions = self.fine_labels.nodes.to(nodes.device)
        total = torch.zeros_like(log_probabilities[:, 0])
        for level, factor in enumerate(self.factors):
            outside = conditions[None, :, level] != nodes[:, level, None]  # (n, n_fine)
            total = total - factor * log_probabilities.masked_fill(outside, -torch.inf).logsumexp(dim=1)
        return total
