from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hierderm.taxonomy.tree import Taxonomy, taxonomy_from_paths
from hierderm.training.losses import HiMulConELoss, SupConLoss

LABELS = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5])


def slow_oracle(embeddings: Tensor, labels: Tensor, tree: Taxonomy, temperature: float, constraint: str) -> float:
    """The formula of the docstring, level by level and pair by pair."""
    n, n_levels = len(labels), tree.n_levels
    s = (embeddings.detach() @ embeddings.detach().T / temperature).tolist()
    cost = [
        [math.log(sum(math.exp(s[i][a]) for a in range(n) if a != i)) - s[i][p] for p in range(n)] for i in range(n)
    ]
    shared = [[n_levels - int(tree.lca_height[labels[i], labels[p]]) for p in range(n)] for i in range(n)]
    total, floor = 0.0, -math.inf
    for level in range(n_levels, 0, -1):
        means, greatest = [], -math.inf
        for i in range(n):
            of_anchor = [cost[i][p] for p in range(n) if p != i and shared[i][p] == level]
            if of_anchor:
                greatest = max(greatest, *of_anchor)
                raised = [max(c, floor) for c in of_anchor] if constraint == "pair" else of_anchor
                means.append(sum(raised) / len(raised))
        if not means:
            continue
        mean = sum(means) / len(means)
        if constraint == "pair":
            floor = max(floor, greatest)
        else:
            mean = floor = max(mean, floor)
        total += math.exp(1 / (n_levels - level + 1)) * mean / n_levels
    return total


@pytest.mark.parametrize("constraint", ["pair", "level"])
@pytest.mark.parametrize(
    "labels", [LABELS, torch.tensor([0, 0, 3, 3, 2, 5, 5, 0]), torch.tensor([0, 2, 0, 2, 3, 3, 3, 3])]
)
def test_the_formula(constraint: str, labels: Tensor, tree: Taxonomy, embeddings: Tensor) -> None:
    loss = HiMulConELoss(tree, 0.2, constraint)(embeddings, labels)  # type: ignore[arg-type]
    assert float(loss.detach()) == pytest.approx(slow_oracle(embeddings, labels, tree, 0.2, constraint))


@pytest.mark.parametrize(("constraint", "coarse"), [("pair", 2.0), ("level", 1.5)])
def test_the_floor_by_hand(constraint: str, coarse: float) -> None:
    # Pairs of one condition cost 1 and 2, the pairs of one category 0.5: they are raised to 2, the costliest fine pair,
    # or their mean to 1.5, that of the fine level. Loss: 1/2 (e * 1.5 + e^(1/2) * coarse).
    tree = taxonomy_from_paths([("A", "a1"), ("A", "a2"), ("B", "b1")], ["category", "condition"], id="two")
    loss = HiMulConELoss(tree, 1.0, constraint)  # type: ignore[arg-type]
    depth = torch.tensor([[0, 2, 1], [2, 0, 0], [1, 0, 0]])
    # Rows with log-sum-exp 0: the similarity of a pair is then less its cost.
    costs = torch.tensor([[torch.inf, 1.0, 0.5], [2.0, torch.inf, 9.0], [0.5, 9.0, torch.inf]])
    rest = torch.log(1 - torch.exp(-costs).sum(dim=1))  # of an image that shares nothing with the three
    similarity = torch.cat([torch.cat([-costs, rest[:, None]], dim=1), torch.zeros(1, 4)])
    found = loss.pair_loss(similarity, torch.nn.functional.pad(depth, (0, 1, 0, 1)))
    assert found is not None
    assert float(found) == pytest.approx(0.5 * (math.e * 1.5 + math.sqrt(math.e) * coarse))


def test_with_one_level_it_is_supcon(embeddings: Tensor) -> None:
    flat = taxonomy_from_paths([(name,) for name in "abcdef"], ["condition"], id="flat")
    loss = HiMulConELoss(flat, 0.2)(embeddings, LABELS)
    torch.testing.assert_close(loss, math.e * SupConLoss(0.2)(embeddings, LABELS))


def test_the_gradient_of_pairs_below_the_floor_is_that_of_the_costliest_fine_pair(tree: Taxonomy) -> None:
    # Images 0 and 1 are of one condition and far apart; 0 and 2 share the category and are near.
    similarity = torch.tensor(
        [[-torch.inf, -3.0, 2.0], [-3.0, -torch.inf, 0.0], [2.0, 0.0, -torch.inf]], requires_grad=True
    )
    depth = torch.tensor([[0, 3, 1], [3, 0, 0], [1, 0, 0]])
    loss = HiMulConELoss(tree, 1.0).pair_loss(similarity, depth)
    assert loss is not None
    loss.backward()
    # Fine pair costs: c01 = log(e^-3 + e^2) + 3 = 5.01, c10 = log(e^-3 + 1) + 3 = 3.05; coarse pairs are below 5.01.
    weight = (math.e / 2 + math.exp(1 / 3)) / 3  # the mean of c01 and c10 at the fine level, c01 itself at the coarse
    share = 1 / (1 + math.exp(5.0))  # of image 1 in the log-sum of image 0
    assert similarity.grad is not None
    assert float(similarity.grad[0, 1]) == pytest.approx(weight * (share - 1), rel=1e-5)
