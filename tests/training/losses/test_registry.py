from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning.losses import CrossBatchMemory
from pytorch_metric_learning.losses import SupConLoss as TheirSupCon
from pytorch_metric_learning.miners import MultiSimilarityMiner
from torch.nn.functional import cross_entropy, normalize

from hierderm.errors import ConfigError
from hierderm.training.losses.registry import (
    LogitAdjustedLoss,
    SupConLoss,
    make_classification_loss,
    make_contrastive_loss,
)

LABELS = torch.tensor([0, 0, 1, 1, 1, 2])


@pytest.fixture
def embeddings() -> torch.Tensor:
    torch.manual_seed(0)
    return normalize(torch.randn(6, 5, dtype=torch.float64), dim=1).requires_grad_()


def slow_oracle(embeddings: torch.Tensor, labels: torch.Tensor, temperature: float) -> float:
    """Equation 2 of arXiv 2004.11362, term by term, over anchors that have a positive."""
    losses = []
    for i in range(len(labels)):
        others = [a for a in range(len(labels)) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        if positives:
            s = [float(embeddings[i].detach() @ embeddings[a].detach()) / temperature for a in range(len(labels))]
            below = math.log(sum(math.exp(s[a]) for a in others))
            losses.append(-sum(s[p] - below for p in positives) / len(positives))
    return sum(losses) / len(losses)


def test_supcon_is_the_papers_and_the_librarys(embeddings: torch.Tensor) -> None:
    ours = SupConLoss(temperature=0.2)(embeddings, LABELS)
    assert float(ours.detach()) == pytest.approx(slow_oracle(embeddings, LABELS, 0.2))
    theirs = TheirSupCon(temperature=0.2)(embeddings, LABELS)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(loss, embeddings, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


def test_supcon_by_hand() -> None:
    # Two twins and a stranger at a right angle, temperature 1: each twin's loss is log(e^1 + e^0) - 1.
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    loss = SupConLoss(temperature=1.0)(points, torch.tensor([0, 0, 1]))
    assert float(loss) == pytest.approx(math.log(math.e + 1) - 1)


def test_without_positives_the_loss_is_zero_and_has_a_gradient(embeddings: torch.Tensor) -> None:
    loss = SupConLoss()(embeddings, torch.arange(6))
    loss.backward()
    assert float(loss.detach()) == 0
    assert embeddings.grad is not None and torch.isfinite(embeddings.grad).all()


def test_supcon_works_with_miners_and_memory(embeddings: torch.Tensor) -> None:
    pairs = MultiSimilarityMiner()(embeddings, LABELS)
    torch.testing.assert_close(SupConLoss(0.2)(embeddings, LABELS, pairs), TheirSupCon(0.2)(embeddings, LABELS, pairs))
    memories = [CrossBatchMemory(loss(0.2), 5, memory_size=12) for loss in (SupConLoss, TheirSupCon)]
    for _ in range(2):
        found = [memory(embeddings.float(), LABELS) for memory in memories]
        torch.testing.assert_close(*found)


def test_logit_adjustment_by_hand() -> None:
    # Priors 3/4 and 1/4, equal logits: the rare class must beat a handicap of log 3.
    loss = LogitAdjustedLoss(torch.tensor([3, 1]))
    assert float(loss(torch.zeros(1, 2), torch.tensor([1]))) == pytest.approx(math.log(4))
    logits = torch.randn(4, 2)
    labels = torch.tensor([0, 1, 0, 1])
    plain = LogitAdjustedLoss(torch.tensor([3, 1]), tau=0)(logits, labels)
    torch.testing.assert_close(plain, cross_entropy(logits, labels))


def test_losses_by_name() -> None:
    assert isinstance(make_contrastive_loss("SupCon", {"temperature": 0.5}), SupConLoss)
    assert isinstance(make_contrastive_loss("MultiSimilarityLoss", {"alpha": 2}), torch.nn.Module)
    arcface = make_classification_loss("ArcFaceLoss", {}, class_counts=torch.ones(3), dim=5)
    assert torch.isfinite(arcface(torch.randn(4, 5), torch.tensor([0, 1, 2, 0])))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("SupConn", {}, "unknown loss 'SupConn'. Closest: 'SupCon'"),
        ("SupCon", {"temprature": 1}, "the options .'temprature'. do not fit loss 'SupCon'"),
        ("SupCon", {"temperature": 0}, "temperature must be > 0, got 0"),
        ("TripletMarginLoss", {"x": 1}, "do not fit loss 'TripletMarginLoss'"),
    ],
)
def test_refusals(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_contrastive_loss(name, options)
