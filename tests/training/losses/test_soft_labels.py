from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.losses import SoftLabelsLoss

LABELS = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5])


def slow_oracle(logits: Tensor, labels: Tensor, tree: Taxonomy, beta: float) -> float:
    """The formula of the docstring, condition by condition."""
    losses = []
    for row, label in zip(logits.detach().tolist(), labels.tolist(), strict=True):
        shared = [sum(a == b for a, b in zip(tree.ancestors[label], path, strict=True)) for path in tree.ancestors]
        y = [math.exp(-beta * (tree.n_levels - s) / tree.n_levels) for s in shared]
        total = sum(math.exp(x) for x in row)
        losses.append(-math.fsum(w / sum(y) * (x - math.log(total)) for w, x in zip(y, row, strict=True)))
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("beta", [0.0, 4.0, 10.0])
def test_the_formula(beta: float, tree: Taxonomy, logits: Tensor) -> None:
    loss = SoftLabelsLoss(tree, beta)(logits, LABELS)
    assert float(loss.detach()) == pytest.approx(slow_oracle(logits, LABELS, tree, beta))


def test_a_high_beta_is_cross_entropy(tree: Taxonomy, logits: Tensor) -> None:
    torch.testing.assert_close(SoftLabelsLoss(tree, beta=1e4)(logits, LABELS), cross_entropy(logits, LABELS))


def test_the_least_loss_is_the_entropy_of_the_soft_labels(tree: Taxonomy) -> None:
    loss = SoftLabelsLoss(tree, beta=6.0)
    entropy = -(loss.targets * loss.targets.log()).sum(dim=1)
    best = torch.stack([loss(row.log()[None], torch.tensor([c])) for c, row in enumerate(loss.targets)])
    torch.testing.assert_close(best, entropy)
    torch.testing.assert_close(loss.targets.sum(dim=1), torch.ones(6))
