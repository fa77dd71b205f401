from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.losses import TreeMarginLoss

LABELS = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5])


def slow_oracle(logits: Tensor, labels: Tensor, tree: Taxonomy, margin: float) -> float:
    """The formula of the docstring, condition by condition."""
    losses = []
    for row, label in zip(logits.detach().tolist(), labels.tolist(), strict=True):
        shared = [sum(a == b for a, b in zip(tree.ancestors[label], path, strict=True)) for path in tree.ancestors]
        terms = [math.exp(z + margin * (tree.n_levels - s) / tree.n_levels) for z, s in zip(row, shared, strict=True)]
        losses.append(math.log(math.fsum(terms)) - row[label])
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("margin", [0.5, 2.0, 10.0])
def test_the_formula(margin: float, tree: Taxonomy, logits: Tensor) -> None:
    loss = TreeMarginLoss(tree, margin)(logits, LABELS)
    assert float(loss.detach()) == pytest.approx(slow_oracle(logits, LABELS, tree, margin))


def test_no_margin_is_cross_entropy(tree: Taxonomy, logits: Tensor) -> None:
    torch.testing.assert_close(TreeMarginLoss(tree, margin=0.0)(logits, LABELS), cross_entropy(logits, LABELS))


def test_a_sibling_may_come_nearer_than_a_condition_of_another_category(tree: Taxonomy) -> None:
    near, far = torch.zeros(1, 6), torch.zeros(1, 6)
    sibling = int(torch.from_numpy(tree.lca_height[0] == 1).nonzero()[0])
    stranger = int(torch.from_numpy(tree.lca_height[0] == tree.n_levels).nonzero()[0])
    near[0, sibling] = far[0, stranger] = 1.0
    loss, truth = TreeMarginLoss(tree), torch.tensor([0])
    assert loss(near, truth) < loss(far, truth)
