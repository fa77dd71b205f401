"""Tree-weighted supervised contrastive loss: the deeper two images agree in the tree, the more they attract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hierderm.errors import ConfigError
from hierderm.taxonomy.levels import level_numbers
from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.losses.contrast import WeightedContrastiveLoss
from hierderm.training.losses.fine_labels import FineLabels


class TreeSupConLoss(WeightedContrastiveLoss):
    """SupCon in which all pairs of a category are positives, with a weight that grows with the depth they share.

    For an anchor i and all others A(i), the mean over anchors with a positive weight of

        L_i = -1/W_i * sum over p in A(i) of w_ip * log( exp(s_ip / t) / sum over a in A(i) of exp(s_ia / t) )
        w_ip = sum of level_weights over the levels on which i and p share a node, W_i = sum over p of w_ip

    with s the cosine and t the temperature: SupCon (Khosla et al. 2020, arXiv 2004.11362, equation 2) with graded
    positives. The grading is ours; HiMulCon (Zhang et al. 2022, arXiv 2204.13207) takes a mean at each level first, as
    SupCon at several levels does. With the weight of one level above 0 it is SupCon on that level.

    Args:
        taxonomy: a tree of any depth.
        temperature: > 0.
        level_weights: the weight, >= 0, of each level by name ('coarse' and 'fine' are always the ends); levels not
            named weigh 0. By default each weighs 1, so that a pair weighs the number of levels that it shares.
        **kwargs: of pytorch-metric-learning's losses: distance, reducer, embedding_regularizer.

    Call:
        embeddings: shape (n, dim), of any length and float type; computed in float32 or float64.
        labels: numbers of the conditions (`taxonomy.encode`), shape (n,), integers in [0, n_fine).

    Returns:
        A scalar >= 0. Anchors without a positive weight do not count; a batch without any, or an empty one, gives 0
        with a gradient of zeros. Pairs that a miner leaves out do not count; those it keeps have their weight of the
        tree, be they its positives or its negatives.

    Raises:
        ConfigError: `temperature` is not above 0, a weight is negative, or none is above 0.
        TaxonomyError: a level is not in the taxonomy.
        EmbeddingError: a label is not a condition of the taxonomy.

    Examples:
        Two images of a1 at the same place, one of a2, its sibling, at a right angle. For a1 the other a1 weighs 2 and
        a2 weighs 1, so with log(e^1 + e^0) = 1.3133 each costs 1.3133 - 2/3; a2, with cosine 0 to both, costs log 2.

        >>> import torch
        >>> from hierderm.taxonomy.tree import taxonomy_from_paths
        >>> tree = taxonomy_from_paths([("A", "a1"), ("A", "a2")], ["category", "condition"], id="toy")
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> loss = TreeSupConLoss(tree, temperature=1.0)(embeddings, torch.tensor([0, 0, 1]))
        >>> round(loss.item(), 4), round((2 * (1.3133 - 2 / 3) + 0.6931) / 3, 4)
        (0.6621, 0.6621)
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        temperature: float = 0.1,
        level_weights: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(temperature, **kwargs)
        chosen = dict.fromkeys(taxonomy.level_names, 1.0) if level_weights is None else dict(level_weights)
        if not (all(weight >= 0 for weight in chosen.values()) and any(chosen.values())):
            raise ConfigError(f"level_weights must be >= 0 and one of them > 0, got {chosen}.")
        weights = {name: weight for name, weight in chosen.items() if weight}
        self.level_weights = dict(zip(level_numbers(taxonomy, weights), weights.values(), strict=True))
        self.fine_labels = FineLabels(taxonomy)

    def levels(self, labels: Tensor) -> list[tuple[float, Tensor]]:
        nodes = self.fine_labels(labels)
        return [(weight, nodes[:, level]) for level, weight in self.level_weights.items()]
