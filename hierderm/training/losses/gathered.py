"""A loss of the images of all processes, not of one process's part of the batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hierderm.training.ranks import joined


class Gathered(nn.Module):
    """Any loss of (rows, labels), computed on the rows of all processes of torch.distributed.

    Every process computes the same loss. Under DistributedDataParallel, which averages gradients over the processes,
    the gradients are those of one process with the joined batch, also those of weights of the loss itself. Parts may
    differ in length. With one process, and in evaluation mode, it is the loss itself.

    Args:
        loss: A contrastive loss of ours or of pytorch-metric-learning, or a loss of logits.

    Call:
        rows: Embeddings or logits of this process, shape (n, dim).
        labels: Their labels, shape (n,), integers, on the same device.

    Returns:
        What `loss` returns, a scalar.

    Example:
        >>> import torch
        >>> from hierderm.training.losses.gathered import Gathered
        >>> from hierderm.training.losses.supcon import SupConLoss
        >>> embeddings, labels = torch.eye(3), torch.tensor([0, 0, 1])
        >>> bool(Gathered(SupConLoss())(embeddings, labels) == SupConLoss()(embeddings, labels))
        True
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, rows: Tensor, labels: Tensor) -> Any:
        return self.loss(joined(rows), joined(labels)) if self.training else self.loss(rows, labels)
