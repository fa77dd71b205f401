from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning.miners import MultiSimilarityMiner
from torch import Tensor

from hierderm.errors import TaxonomyError
from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.losses import SupConLoss, TreeSupConLoss

LABELS = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5])


def slow_oracle(embeddings: Tensor, labels: Tensor, tree: Taxonomy, temperature: float, weights: list[float]) -> float:
    """The formula of the docstring, pair by pair."""
    losses, n = [], len(labels)
    paths = [[int(node) for node in tree.ancestors[int(label)]] for label in labels]
    for i in range(n):
        s = [float(embeddings[i].detach() @ embeddings[a].detach()) / temperature for a in range(n)]
        log_sum = math.log(sum(math.exp(s[a]) for a in range(n) if a != i))
        total = cost = 0.0
        for p in range(n):
            if p != i:
                w = sum(weight for weight, one, two in zip(weights, paths[i], paths[p], strict=True) if one == two)
                total, cost = total + w, cost - w * (s[p] - log_sum)
        if total:
            losses.append(cost / total)
    return sum(losses) / len(losses)


@pytest.mark.parametrize(
    ("named", "weights"),
    [
        (None, [1, 1, 1]),
        ({"category": 0.5, "condition": 2.0}, [0.5, 0, 2]),
        ({"coarse": 0.0, "group": 3.0, "fine": 1.0}, [0, 3, 1]),
    ],
)
def test_the_formula(named: dict[str, float] | None, weights: list[float], tree: Taxonomy, embeddings: Tensor) -> None:
    loss = TreeSupConLoss(tree, 0.2, level_weights=named)(embeddings, LABELS)
    assert float(loss.detach()) == pytest.approx(slow_oracle(embeddings, LABELS, tree, 0.2, weights))


def test_by_hand(tree: Taxonomy) -> None:
    # Aa1 twice at the same place and Ab1 at a right angle: the twin weighs 3, Ab1 (same category only) weighs 1.
    # Twins: log(e + 1) - 3/4; Ab1: both positives at cosine 0: log 2.
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    loss = TreeSupConLoss(tree, temperature=1.0)(points, torch.tensor([0, 0, 2]))
    assert float(loss) == pytest.approx((2 * (math.log(math.e + 1) - 3 / 4) + math.log(2)) / 3)


@pytest.mark.parametrize("level", ["category", "group", "condition"])
def test_with_one_level_it_is_supcon(level: str, tree: Taxonomy, embeddings: Tensor) -> None:
    nodes = torch.from_numpy(tree.ancestors[LABELS.numpy(), tree.level_number(level)])
    ours = TreeSupConLoss(tree, 0.2, level_weights={level: 7.0})(embeddings, LABELS)
    torch.testing.assert_close(ours, SupConLoss(0.2)(embeddings, nodes))


def test_weights_matter_by_their_ratio_only(tree: Taxonomy, embeddings: Tensor) -> None:
    one, two = (TreeSupConLoss(tree, 0.2, {"coarse": w, "fine": 3 * w})(embeddings, LABELS) for w in (1.0, 10.0))
    torch.testing.assert_close(one, two)


def test_references_and_miners(tree: Taxonomy, embeddings: Tensor) -> None:
    loss = TreeSupConLoss(tree, 0.2)
    dense = loss(embeddings, LABELS, ref_emb=embeddings, ref_labels=LABELS.clone())
    torch.testing.assert_close(dense, loss(embeddings, LABELS))
    # A miner that keeps everything changes nothing: pairs of one category stay positives by their weight.
    everything = torch.combinations(torch.arange(8)).T
    pairs = torch.cat([everything, everything.flip(0)], dim=1)
    same = LABELS[pairs[0]] == LABELS[pairs[1]]
    kept = (*pairs[:, same], *pairs[:, ~same])
    torch.testing.assert_close(loss(embeddings, LABELS, kept), loss(embeddings, LABELS))
    mined = loss(embeddings, LABELS, MultiSimilarityMiner(epsilon=-0.3)(embeddings, LABELS))
    mined.backward()
    assert embeddings.grad is not None and torch.isfinite(embeddings.grad).all()
    with pytest.raises(ValueError, match="labels are required"):
        loss(embeddings, indices_tuple=kept)


def test_a_level_that_is_not_there_is_refused(tree: Taxonomy) -> None:
    with pytest.raises(TaxonomyError, match="has the levels coarse, fine, .*group.*, got 'grup'"):
        TreeSupConLoss(tree, level_weights={"grup": 1.0})
