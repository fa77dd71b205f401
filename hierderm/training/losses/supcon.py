"""Supervised contrastive loss: images of one class near each other, all others far."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hierderm.training.losses.contrast import WeightedContrastiveLoss


class SupConLoss(WeightedContrastiveLoss):
    """Supervised contrastive loss (SupCon), L_out of Khosla et al. 2020 (arXiv 2004.11362, equation 2).

    For an anchor i with positives P(i), the others of its class, and all others A(i), the mean over anchors that have
    positives of

        L_i = -1/|P(i)| * sum over p in P(i) of log( exp(s_ip / t) / sum over a in A(i) of exp(s_ia / t) )

    with s the cosine and t the temperature. Values and gradients are those of pytorch-metric-learning's SupConLoss, but
    for a batch of one class, which costs 0 there and follows the formula here; its cost compared with theirs:
    benchmarks/supcon.py. The authors' code also multiplies by temperature / base_temperature, a constant.

    Miners (pairs they leave out leave P and A), reference embeddings, cross-batch memory and other distances of
    pytorch-metric-learning work, on a dense path whose memory grows with n^2.

    Args:
        temperature: > 0; the lower, the more the nearest others count.
        **kwargs: of pytorch-metric-learning's losses: distance, reducer, embedding_regularizer.

    Call:
        embeddings: shape (n, dim), of any length and float type; computed in float32 or float64.
        labels: classes, shape (n,), integers.

    Returns:
        A scalar >= 0. Anchors without positives do not count; a batch without any, or an empty one, gives 0 with a
        gradient of zeros.

    Raises:
        ConfigError: `temperature` is not above 0.

    Examples:
        Two images of one class at the same place and one of another class at a right angle: each of the two costs
        log(e^1 + e^0) - 1, the third has no positive.

        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> loss = SupConLoss(temperature=1.0)(embeddings, torch.tensor([0, 0, 1]))
        >>> round(loss.item(), 4)
        0.3133
    """

    def __init__(self, temperature: float = 0.1, **kwargs: Any) -> None:
        super().__init__(temperature, **kwargs)

    def levels(self, labels: Tensor) -> list[tuple[float, Tensor]]:
        return [(1.0, labels)]

    def pair_weights(self, labels: Any, ref_labels: Any, positive: Tensor | None) -> Tensor:
        return super().pair_weights(labels, ref_labels, positive) if positive is None else positive
