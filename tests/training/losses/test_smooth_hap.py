from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.metrics.retrieval import retrieval_scores
from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.losses import SmoothHAPLoss

LABELS = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5])


def slow_oracle(embeddings: Tensor, labels: Tensor, tree: Taxonomy, temperature: float) -> float:
    """The formula of the docstring, query by query and item by item."""
    n = len(labels)
    s = (embeddings.detach() @ embeddings.detach().T).tolist()
    losses = []
    for q in range(n):
        others = [j for j in range(n) if j != q]
        rel = {j: 1 - int(tree.lca_height[labels[q], labels[j]]) / tree.n_levels for j in others}
        if not any(rel.values()):
            continue
        credit = 0.0
        for k in others:
            if rel[k]:
                before = {j: 1 / (1 + math.exp((s[q][k] - s[q][j]) / temperature)) for j in others if j != k}
                h_rank = rel[k] + sum(min(rel[j], rel[k]) * share for j, share in before.items())
                credit += h_rank / (1 + sum(before.values()))
        losses.append(1 - credit / sum(rel.values()))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_the_formula(temperature: float, tree: Taxonomy, embeddings: Tensor) -> None:
    loss = SmoothHAPLoss(tree, temperature)(embeddings, LABELS)
    assert float(loss.detach()) == pytest.approx(slow_oracle(embeddings, LABELS, tree, temperature))


def test_with_a_low_temperature_it_is_the_metric(tree: Taxonomy, embeddings: Tensor) -> None:
    images = Labelled(embeddings.detach().numpy(), tree.ancestors[LABELS.numpy()].T, np.arange(len(LABELS)))
    scores = retrieval_scores(images).tree["hap"]
    loss = SmoothHAPLoss(tree, temperature=1e-5)(embeddings, LABELS)
    assert 1 - float(loss.detach()) == pytest.approx(np.nanmean(scores))


def test_by_hand(tree: Taxonomy) -> None:
    # Query Aa1, then Ba1 (rel 0) nearest, then Aa2 (rel 2/3), then Ab1 (rel 1/3); a low temperature, so true ranks.
    # H-AP = (2/3 / 2 + (1/3 + 1/3) / 3) / (2/3 + 1/3) = 5/9. Only the row of the query is looked at.
    similarity = torch.tensor([[-torch.inf, 0.9, 0.8, 0.7]] + [[0.0] * 4] * 3) / 1e-3
    depth = torch.tensor([[0, 0, 2, 1]] + [[0] * 4] * 3)
    losses = SmoothHAPLoss(tree).pair_loss(similarity, depth)
    assert losses is not None and losses.tolist() == pytest.approx([1 - 5 / 9])


def test_a_perfect_order_costs_nothing(tree: Taxonomy) -> None:
    angles = torch.tensor([0.0, 0.01, 0.05, 0.2, 2.0, 2.01, 2.05, 4.0])
    points = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert float(SmoothHAPLoss(tree, temperature=1e-6)(points.double(), LABELS)) == pytest.approx(0, abs=1e-6)
