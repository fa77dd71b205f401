"""The log-likelihood of weighted positives against all others: the common core of SupCon and its tree-weighted form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.reducers import AvgNonZeroReducer, BaseReducer
from pytorch_metric_learning.utils import common_functions, loss_and_miner_utils
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

from hierderm.training.losses.embedding_loss import EmbeddingLoss, at_least_single

CPU_BLOCK, GPU_BLOCK = 512, 2048  # rows of a block: on the CPU, so few that it stays in the cache


class WeightedContrastiveLoss(EmbeddingLoss):
    """The mean negative log-likelihood of each anchor's positives, every pair with its weight.

    With cosine similarity and neither miner nor references it goes through the pairs in blocks, and again in the
    backward pass, so that memory grows with n, not with n^2; all other cases take the dense path.
    """

    def levels(self, labels: Tensor) -> list[tuple[float, Tensor]]:
        """Weights and nodes, shape (n,), of levels: a pair weighs the sum of the weights where its nodes are equal."""
        raise NotImplementedError

    def pair_weights(self, labels: Any, ref_labels: Any, positive: Tensor | None) -> Tensor:
        """The weight of every pair, shape (n, n_references); `positive`: those that a miner chose as positives."""
        common_functions.labels_required(labels)
        common_functions.labels_required(ref_labels)
        levels = zip(self.levels(labels), self.levels(ref_labels), strict=True)
        return torch.stack([weight * (own[:, None] == other) for (weight, own), (_, other) in levels]).sum(dim=0)

    def compute_loss(
        self, embeddings: Tensor, labels: Any, indices_tuple: Any, ref_emb: Tensor, ref_labels: Any
    ) -> Any:
        common_functions.labels_or_indices_tuple_required(labels, indices_tuple)
        alone = ref_emb is embeddings and ref_labels is labels and indices_tuple is None
        if alone and _is_plain_cosine(self.distance):
            losses = self._in_blocks(embeddings, labels)
        else:
            losses = self._dense(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        return {"loss": {"losses": losses, "indices": torch.arange(len(losses)), "reduction_type": "element"}}

    def _in_blocks(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        levels = [(weight, nodes.unique(return_inverse=True)[1]) for weight, nodes in self.levels(labels)]
        with torch.autocast(embeddings.device.type, enabled=False):
            unit = normalize(at_least_single(embeddings), dim=1)
            losses: Tensor = _LossInBlocks.apply(unit, levels, self.temperature)
        return losses

    def _dense(self, embeddings: Tensor, labels: Any, indices_tuple: Any, ref_emb: Tensor, ref_labels: Any) -> Tensor:
        similarity = self.similarity(embeddings, ref_emb)
        positive, other = None, torch.ones_like(similarity, dtype=torch.bool)
        if indices_tuple is not None:
            pairs = loss_and_miner_utils.convert_to_pairs(indices_tuple, labels, ref_labels)
            positive = torch.zeros_like(other)
            positive[pairs[0], pairs[1]] = True
            other = positive.clone()
            other[pairs[2], pairs[3]] = True
        elif ref_emb is embeddings:
            other.fill_diagonal_(False)
        weights = self.pair_weights(labels, ref_labels, positive).to(similarity.dtype) * other
        log_sum = torch.where(other, similarity, -torch.inf).logsumexp(dim=1)
        return _likelihood_loss(log_sum, (similarity * weights).sum(dim=1), weights.sum(dim=1))

    def get_default_reducer(self) -> BaseReducer:
        return AvgNonZeroReducer()


def _likelihood_loss(log_sum: Tensor, similarity: Tensor, total: Tensor) -> Tensor:
    """log_sum less the weighted mean similarity, shape (n,); 0 for anchors without positives, whose `total` is 0."""
    has_positive = total > 0
    mean = similarity / torch.where(has_positive, total, 1.0)
    return torch.where(has_positive, torch.where(has_positive, log_sum, 0.0) - mean, 0.0)


class _LossInBlocks(torch.autograd.Function):
    """The loss of each anchor, shape (n,), from unit vectors, shape (n, dim), and levels of weights and nodes from 0.

    Only vectors of length n are kept between the passes: blocks of the symmetric matrix of similarities are computed in
    each. All positives of a node are met at once, as their sum. Gradients are exact.
    """

    @staticmethod
    def forward(ctx: Any, unit: Tensor, levels: list[tuple[float, Tensor]], temperature: float) -> Tensor:
        log_sum = unit.new_full((len(unit),), -torch.inf)
        for rows, columns, similarity in _blocks(unit, temperature):
            log_sum[rows] = torch.logaddexp(log_sum[rows], similarity.logsumexp(dim=1))
            if rows != columns:
                log_sum[columns] = torch.logaddexp(log_sum[columns], similarity.logsumexp(dim=0))
        similarity, total = unit.new_zeros(len(unit)), unit.new_zeros(len(unit))
        for weight, nodes in levels:
            sums = _node_sums(unit, nodes, torch.ones_like(total))
            for rows in _slices(unit):
                others = sums[nodes[rows]] - unit[rows]
                similarity[rows] += weight / temperature * torch.einsum("nd,nd->n", unit[rows], others)
            total += weight * (nodes.bincount()[nodes] - 1)
        ctx.save_for_backward(unit, log_sum, total)
        ctx.levels, ctx.temperature = levels, temperature
        return _likelihood_loss(log_sum, similarity, total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        """With P_ia = exp(similarity_ia - log_sum_i), at most 1, and positives p of weights w_ip summing to W_i:

        gradient_i = sum over a of (u_i P_ia + u_a P_ai) unit_a - sum over p of (u_i / W_i + u_p / W_p) w_ip unit_p

        u is upstream / temperature, 0 for anchors without positives.
        """
        unit, log_sum, total = ctx.saved_tensors
        has_positive = total > 0
        upstream = torch.where(has_positive, upstream, 0.0) / ctx.temperature
        log_sum = torch.where(log_sum == -torch.inf, 0.0, log_sum)  # of an image alone, whose P is 0 and not nan
        share = upstream / torch.where(has_positive, total, 1.0)
        gradient = torch.zeros_like(unit)
        with torch.autocast(unit.device.type, enabled=False):
            for rows, columns, similarity in _blocks(unit, ctx.temperature):
                weights = (similarity - log_sum[rows, None]).exp_().mul_(upstream[rows, None])
                weights += similarity.sub_(log_sum[columns]).exp_().mul_(upstream[columns])
                gradient[rows].addmm_(weights, unit[columns])
                if rows != columns:
                    gradient[columns].addmm_(weights.T, unit[rows])
            for weight, nodes in ctx.levels:
                sums, shares = _node_sums(unit, nodes, torch.ones_like(total)), _node_sums(unit, nodes, share)
                for rows in _slices(unit):
                    others = (
                        sums[nodes[rows]].sub_(unit[rows], alpha=2).mul_(share[rows, None]).add_(shares[nodes[rows]])
                    )
                    gradient[rows].sub_(others, alpha=weight)
        return gradient, None, None


def _node_sums(unit: Tensor, nodes: Tensor, factors: Tensor) -> Tensor:
    """The sum over each node's images of their vectors times their factors, shape (n_nodes, dim)."""
    sums = unit.new_zeros(len(nodes.bincount()), unit.shape[1])
    for rows in _slices(unit):
        sums.index_add_(0, nodes[rows], unit[rows] * factors[rows, None])
    return sums


def _slices(unit: Tensor) -> list[slice]:
    size = CPU_BLOCK if unit.device.type == "cpu" else GPU_BLOCK
    return [slice(start, start + size) for start in range(0, len(unit), size)]


def _blocks(unit: Tensor, temperature: float) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows, columns and similarities / temperature of the blocks on and above the diagonal, which is -inf itself."""
    slices = _slices(unit)
    for number, rows in enumerate(slices):
        for columns in slices[number:]:
            similarity = (unit[rows] @ unit[columns].T).div_(temperature)
            if rows == columns:
                similarity.fill_diagonal_(-torch.inf)
            yield rows, columns, similarity


def _is_plain_cosine(distance: Any) -> bool:
    return type(distance) is CosineSimilarity and (distance.p, distance.power) == (2, 1) and not distance.collect_stats
