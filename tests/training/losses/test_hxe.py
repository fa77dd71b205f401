from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hierderm.taxonomy.tree import Taxonomy, taxonomy_from_paths
from hierderm.training.losses import HXELoss

LABELS = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5])


def slow_oracle(logits: Tensor, labels: Tensor, tree: Taxonomy, weights: list[float]) -> float:
    """The formula of the docstring: weighted conditional probabilities, step by step down the tree."""
    losses = []
    for row, label in zip(logits.detach().tolist(), labels.tolist(), strict=True):
        total = sum(math.exp(x) for x in row)
        above, loss = 1.0, 0.0
        for level, weight in enumerate(weights):
            node = tree.ancestors[label, level]
            here = sum(math.exp(x) for c, x in enumerate(row) if tree.ancestors[c, level] == node) / total
            loss -= weight * math.log(here / above)
            above = here
        losses.append(loss)
    return sum(losses) / len(losses)


@pytest.mark.parametrize(
    ("alpha", "weights"),
    [
        (0.0, [1, 1, 1]),
        (0.7, [1, math.exp(-0.7), math.exp(-1.4)]),
        (-0.7, [math.exp(-1.4), math.exp(-0.7), 1]),
    ],
)
def test_the_formula(alpha: float, weights: list[float], tree: Taxonomy, logits: Tensor) -> None:
    loss = HXELoss(tree, alpha)(logits, LABELS)
    assert float(loss.detach()) == pytest.approx(slow_oracle(logits, LABELS, tree, weights))


def test_without_decay_or_levels_it_is_cross_entropy(tree: Taxonomy, logits: Tensor) -> None:
    wanted = cross_entropy(logits, LABELS)
    torch.testing.assert_close(HXELoss(tree, alpha=0)(logits, LABELS), wanted)
    flat = taxonomy_from_paths([(name,) for name in "abcdef"], ["condition"], id="flat")
    torch.testing.assert_close(HXELoss(flat, alpha=3)(logits, LABELS), wanted)


def test_a_mistake_in_the_category_costs_more(tree: Taxonomy) -> None:
    sibling, stray = 4 * torch.eye(6)[[1]], 4 * torch.eye(6)[[5]]  # truth Aa1, taken for Aa2 or for Ca1
    loss = HXELoss(tree, alpha=0.5)
    assert float(loss(sibling, torch.tensor([0]))) < float(loss(stray, torch.tensor([0])))
