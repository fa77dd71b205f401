"""Cross-entropy that makes up for a long tail of rare classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hierderm.errors import ConfigError
from hierderm.training.losses.fine_labels import mean_or_zero


class LogitAdjustedLoss(nn.Module):
    """Logit-adjusted cross-entropy (Menon et al. 2021, arXiv 2007.07314, equation 10).

    The mean over images of

        loss = cross_entropy(logits + tau * log(prior), label)

    with the prior of a class its share of the training images. Rare classes must win by a margin in training, so that
    they are not drowned in use, where the logits are taken as they are. Classes without images count as one image.

    Args:
        class_counts: images of each class, shape (n_classes,), >= 0.
        tau: >= 0; 1 is the paper's, 0 plain cross-entropy.
        label_smoothing: in [0, 1], as in torch's cross-entropy.

    Call:
        logits: shape (n, n_classes), of any float type.
        labels: classes, shape (n,), int64 in [0, n_classes).

    Returns:
        A scalar >= 0; 0 with a gradient of zeros for an empty batch.

    Raises:
        ConfigError: a count or `tau` is negative, or `label_smoothing` is outside [0, 1].

    Examples:
        Priors 3/4 and 1/4, equal logits: the rare class costs log 4.

        >>> loss = LogitAdjustedLoss(torch.tensor([3, 1]))(torch.zeros(1, 2), torch.tensor([1]))
        >>> round(loss.item(), 4)
        1.3863
    """

    adjustment: Tensor

    def __init__(self, class_counts: Tensor, tau: float = 1.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        counts = torch.as_tensor(class_counts)
        if counts.ndim != 1 or (counts < 0).any():
            raise ConfigError(f"class_counts must have shape (n_classes,) and be >= 0, got {counts.tolist()}.")
        if not tau >= 0:
            raise ConfigError(f"tau must be >= 0, got {tau}.")
        if not 0 <= label_smoothing <= 1:
            raise ConfigError(f"label_smoothing must be in [0, 1], got {label_smoothing}.")
        counts = counts.clamp(min=1).float()
        self.label_smoothing = label_smoothing
        self.register_buffer("adjustment", tau * (counts / counts.sum()).log(), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        adjusted = logits + self.adjustment.to(logits.device)
        costs = cross_entropy(adjusted, labels, label_smoothing=self.label_smoothing, reduction="none")
        return mean_or_zero(costs, logits)
