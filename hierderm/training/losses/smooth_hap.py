"""Hierarchical average precision with smooth ranks, as a loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.losses.embedding_loss import TreeEmbeddingLoss


class SmoothHAPLoss(TreeEmbeddingLoss):
    """1 - hierarchical average precision (H-AP) with a sigmoid in place of each comparison of ranks.

    H-AP is that of HAPPIER (Ramzi et al. 2022, arXiv 2207.04873, section 3.1), the sigmoid that of Smooth-AP (Brown et
    al. 2020, arXiv 2007.12163). For a query with similarities s to all others, and rel_k = levels shared with k / L:

        before_jk = sigmoid((s_j - s_k) / t)
        rank_k = 1 + sum over j != k of before_jk
        H-rank_k = rel_k + sum over j != k of min(rel_j, rel_k) * before_jk
        loss = 1 - (sum over k with rel_k > 0 of H-rank_k / rank_k) / sum over k of rel_k

    averaged over the queries. As t goes to 0, it goes to 1 - the H-AP of `hierderm evaluate` where there are no ties.

    Differences: HAPPIER bounds the rank from above by a steeper function, leaves H-rank a step function, divides rel_k
    by the number of images on its level and adds a clustering loss.

    Args:
        taxonomy: a tree of any depth.
        temperature: > 0, in units of the cosine; Smooth-AP has 0.01.
        **kwargs: of pytorch-metric-learning's losses: distance, reducer, embedding_regularizer.

    Call:
        embeddings: shape (n, dim), of any length and float type; computed in float32 or float64. Memory grows with n
            times the number of pairs that share a node: for batches of some hundreds.
        labels: numbers of the conditions (`taxonomy.encode`), shape (n,), integers in [0, n_fine).

    Returns:
        A scalar in [0, 1]. Queries that share no node with any other do not count; a batch without pairs, or an empty
        one, gives 0 with a gradient of zeros.

    Raises:
        ConfigError: `temperature` is not above 0.
        EmbeddingError: a label is not a condition of the taxonomy.
        ValueError: pairs of a miner or reference embeddings are given.

    Examples:
        Two images of a1 and one of b1, of another category, all orthogonal: the sigmoid is 1/2 for the one other image,
        so that the rank is 1.5, H-rank 1 and H-AP 2/3 for the first two; the third has nothing to find.

        >>> import torch
        >>> from hierderm.taxonomy.tree import taxonomy_from_paths
        >>> tree = taxonomy_from_paths([("A", "a1"), ("B", "b1")], ["category", "condition"], id="toy")
        >>> loss = SmoothHAPLoss(tree)(torch.eye(3), torch.tensor([0, 0, 1]))
        >>> round(loss.item(), 4)
        0.3333
    """

    def __init__(self, taxonomy: Taxonomy, temperature: float = 0.02, **kwargs: Any) -> None:
        super().__init__(taxonomy, temperature, **kwargs)

    def pair_loss(self, similarity: Tensor, depth: Tensor) -> Tensor | None:
        relevance = depth.to(similarity.dtype) / self.fine_labels.n_levels
        query, item = torch.nonzero(relevance, as_tuple=True)
        if not len(query):
            return None
        own = relevance[query, item]  # (n_pairs,)
        before = torch.sigmoid(similarity[query] - similarity[query, item][:, None])  # (n_pairs, n)
        before = before.scatter(1, item[:, None], 0.0)  # the query's own is 0 already, of similarity -inf
        h_rank = own + (torch.minimum(relevance[query], own[:, None]) * before).sum(dim=1)
        sums = torch.zeros_like(relevance[:, 0]).index_add(0, query, h_rank / (1 + before.sum(dim=1)))
        total = relevance.sum(dim=1)
        losses: Tensor = 1 - sums[total > 0] / total[total > 0]
        return losses
