from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hierderm.training.losses import LogitAdjustedLoss

LABELS = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5])


def test_by_hand() -> None:
    # Priors 3/4 and 1/4, equal logits: the rare class must beat a handicap of log 3.
    loss = LogitAdjustedLoss(torch.tensor([3, 1]))
    assert float(loss(torch.zeros(1, 2), torch.tensor([1]))) == pytest.approx(math.log(4))


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_the_formula(tau: float, logits: Tensor) -> None:
    counts = [9, 3, 0, 1, 4, 1]
    priors = [max(count, 1) / 19 for count in counts]  # the class without images counts as one
    losses = []
    for row, label in zip(logits.tolist(), LABELS.tolist(), strict=True):
        adjusted = [x + tau * math.log(prior) for x, prior in zip(row, priors, strict=True)]
        losses.append(math.log(sum(math.exp(x) for x in adjusted)) - adjusted[label])
    loss = LogitAdjustedLoss(torch.tensor(counts), tau)(logits, LABELS)
    assert float(loss.detach()) == pytest.approx(sum(losses) / len(losses))


def test_equal_counts_and_tau_0_are_cross_entropy(logits: Tensor) -> None:
    wanted = cross_entropy(logits, LABELS, label_smoothing=0.2)
    for loss in (LogitAdjustedLoss(torch.ones(6), 1.0, 0.2), LogitAdjustedLoss(torch.arange(6), 0.0, 0.2)):
        torch.testing.assert_close(loss(logits, LABELS), wanted)
