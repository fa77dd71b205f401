"""HiMulConE: a contrastive loss at every level, none of which may cost less than a finer one."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from hierderm.errors import ConfigError
from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.losses.embedding_loss import TreeEmbeddingLoss


class HiMulConELoss(TreeEmbeddingLoss):
    """Hierarchical multi-label, constraint-enforcing contrastive loss (Zhang et al. 2022, arXiv 2204.13207).

    With s the cosine, t the temperature, levels l = 1 (coarsest) to L, and P_l(i) the images whose lowest common
    ancestor with i is on level l:

        cost_ip = -log( exp(s_ip / t) / sum over a != i of exp(s_ia / t) )
        floor_l = the greatest cost_ip of all pairs on levels finer than l; none for the finest
        loss = 1/L * sum over l of lambda_l * mean over i of mean over p in P_l(i) of max(cost_ip, floor_l)
        lambda_l = exp(1 / (L - l + 1)), so that finer levels weigh more

    The gradient is that of the formula: a pair below the floor hands its own to the pair that sets the floor. In a
    large batch nearly all coarse pairs lie below it, so that one pair has great weight. `constraint="level"` is milder:
    as in the authors' code, the mean of a level may not lie below those of finer ones.

    Differences: the paper sums over anchors. The authors' code takes as positives of a level all pairs that share its
    node, finer ones too, keeps one image of each node when it goes up a level, and has lambda_l = 2^(1 / (L - l + 1)).

    Args:
        taxonomy: a tree of any depth.
        temperature: > 0.
        constraint: 'pair', the paper's, or 'level'.
        **kwargs: of pytorch-metric-learning's losses: distance, embedding_regularizer.

    Call:
        embeddings: shape (n, dim), of any length and float type; computed in float32 or float64.
        labels: numbers of the conditions (`taxonomy.encode`), shape (n,), integers in [0, n_fine).

    Returns:
        A scalar >= 0. Anchors without a pair on a level do not count there, and a level without pairs adds nothing; a
        batch without pairs, or an empty one, gives 0 with a gradient of zeros.

    Raises:
        ConfigError: `temperature` is not above 0, or `constraint` is neither 'pair' nor 'level'.
        EmbeddingError: a label is not a condition of the taxonomy.
        ValueError: pairs of a miner or reference embeddings are given.

    Examples:
        Two images of a1 and one of a2, its sibling, all orthogonal: every cost is log 2, and the loss
        1/2 (e^1 + e^(1/2)) log 2.

        >>> import torch
        >>> from hierderm.taxonomy.tree import taxonomy_from_paths
        >>> tree = taxonomy_from_paths([("A", "a1"), ("A", "a2")], ["category", "condition"], id="toy")
        >>> loss = HiMulConELoss(tree)(torch.eye(3), torch.tensor([0, 0, 1]))
        >>> round(loss.item(), 4)
        1.5135
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        temperature: float = 0.1,
        constraint: Literal["pair", "level"] = "pair",
        **kwargs: Any,
    ) -> None:
        super().__init__(taxonomy, temperature, **kwargs)
        if constraint not in ("pair", "level"):
            raise ConfigError(f"constraint must be 'pair' or 'level', got '{constraint}'.")
        self.constraint = constraint

    def pair_loss(self, similarity: Tensor, depth: Tensor) -> Tensor | None:
        cost = similarity.logsumexp(dim=1, keepdim=True) - similarity  # inf on the diagonal, which is no pair
        n_levels = self.fine_labels.n_levels
        losses: list[Tensor] = []
        floor = cost.new_tensor(-torch.inf)
        for height, level in enumerate(range(n_levels, 0, -1), start=1):  # the finest first
            pairs = depth == level
            if not pairs.any():
                continue
            if self.constraint == "pair":
                loss = _mean_over_anchors(torch.maximum(cost, floor), pairs)
                floor = torch.maximum(floor, cost[pairs].max())
            else:
                loss = floor = torch.maximum(floor, _mean_over_anchors(cost, pairs))
            losses.append(math.exp(1 / height) * loss)
        return torch.stack(losses).sum() / n_levels if losses else None


def _mean_over_anchors(cost: Tensor, pairs: Tensor) -> Tensor:
    """The mean over anchors that have pairs of the mean cost of their pairs."""
    count = pairs.sum(dim=1)
    sums = torch.where(pairs, cost, 0.0).sum(dim=1)
    return (sums[count > 0] / count[count > 0]).mean()
