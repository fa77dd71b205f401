from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import CrossBatchMemory
from pytorch_metric_learning.losses import SupConLoss as TheirSupCon
from pytorch_metric_learning.miners import MultiSimilarityMiner
from torch import Tensor

from hierderm.training.losses import SupConLoss, contrast

LABELS = torch.tensor([0, 0, 1, 1, 1, 0, 2, 1])


def slow_oracle(embeddings: Tensor, labels: Tensor, temperature: float) -> float:
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


def gradient(loss: Tensor, embeddings: Tensor) -> Tensor:
    return torch.autograd.grad(loss, embeddings, retain_graph=True)[0]


def test_the_formula_and_the_library(embeddings: Tensor) -> None:
    ours = SupConLoss(temperature=0.2)(embeddings, LABELS)
    assert float(ours.detach()) == pytest.approx(slow_oracle(embeddings, LABELS, 0.2))
    theirs = TheirSupCon(temperature=0.2)(embeddings, LABELS)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient(ours, embeddings), gradient(theirs, embeddings), rtol=0, atol=1e-9)


def test_by_hand() -> None:
    # Two twins and a third image at a right angle, temperature 1: each twin's loss is log(e^1 + e^0) - 1.
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    loss = SupConLoss(temperature=1.0)(points, torch.tensor([0, 0, 1]))
    assert float(loss) == pytest.approx(math.log(math.e + 1) - 1)


def test_a_batch_of_one_class_follows_the_formula(embeddings: Tensor) -> None:
    labels = torch.zeros(8, dtype=torch.int64)
    ours = SupConLoss(temperature=0.2)(embeddings, labels)
    assert float(ours.detach()) == pytest.approx(slow_oracle(embeddings, labels, 0.2))
    assert float(TheirSupCon(temperature=0.2)(embeddings, labels).detach()) == 0  # the difference the docstring names


@pytest.mark.parametrize("block", [1, 3, 4, 8, 100])
@pytest.mark.parametrize("temperature", [0.005, 0.1, 1.0])
def test_blocks_of_any_size_give_the_dense_loss(
    block: int, temperature: float, embeddings: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrast, "CPU_BLOCK", block)
    loss = SupConLoss(temperature)
    dense = loss(embeddings, LABELS, ref_emb=embeddings, ref_labels=LABELS.clone())  # other labels: the dense path
    blocks = loss(embeddings, LABELS)
    torch.testing.assert_close(blocks, dense, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(blocks, embeddings), gradient(dense, embeddings), rtol=1e-10, atol=1e-10)


def test_single_precision_is_exact_to_1e_6() -> None:
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(1300, 32, generator=generator, dtype=torch.float64, requires_grad=True)  # three blocks
    single = exact.detach().float().requires_grad_()
    labels = torch.randint(0, 7, (1300,), generator=generator)
    wanted = gradient(TheirSupCon(0.1)(exact, labels), exact)
    loss = SupConLoss(0.1)(single, labels)
    assert float(loss.detach()) == pytest.approx(float(TheirSupCon(0.1)(exact, labels).detach()), rel=1e-6)
    assert float((gradient(loss, single).double() - wanted).norm() / wanted.norm()) < 1e-6


def test_a_backward_pass_under_autocast_is_in_single_precision(embeddings: Tensor) -> None:
    single = embeddings.detach().float().requires_grad_()
    wanted = gradient(SupConLoss(0.2)(single, LABELS), single)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(gradient(SupConLoss(0.2)(single, LABELS), single), wanted)


def test_a_low_temperature_does_not_overflow() -> None:
    # Opposite points at temperature 1e-3: exponents of -2000, far below what single precision holds.
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 1e-3]], requires_grad=True)
    loss = SupConLoss(temperature=1e-3)(points, torch.tensor([0, 0, 1]))
    loss.backward()
    # Anchor 0: its positive is as far as the other: log 2. Anchor 1: the other is near, the positive 2 / 1e-3 off.
    assert float(loss.detach()) == pytest.approx((math.log(2) + 2000) / 2, rel=1e-4)
    assert points.grad is not None and torch.isfinite(points.grad).all()


def test_miners_memory_references_and_distances(embeddings: Tensor) -> None:
    pairs = MultiSimilarityMiner()(embeddings, LABELS)
    ours, theirs = SupConLoss(0.2), TheirSupCon(0.2)
    torch.testing.assert_close(ours(embeddings, LABELS, pairs), theirs(embeddings, LABELS, pairs))
    references = {"ref_emb": embeddings.detach().flip(0) + 0.1, "ref_labels": LABELS.flip(0)}
    torch.testing.assert_close(ours(embeddings, LABELS, **references), theirs(embeddings, LABELS, **references))
    far = [loss(0.2, distance=LpDistance()) for loss in (SupConLoss, TheirSupCon)]
    torch.testing.assert_close(far[0](embeddings, LABELS), far[1](embeddings, LABELS))
    memories = [CrossBatchMemory(loss(0.2), 5, memory_size=12) for loss in (SupConLoss, TheirSupCon)]
    for _ in range(2):
        found = [memory(embeddings.float(), LABELS) for memory in memories]
        torch.testing.assert_close(*found)


def test_pairs_without_labels(embeddings: Tensor) -> None:
    twins = torch.arange(4)
    pairs = (twins, twins + 4, twins, (twins + 1) % 4)
    torch.testing.assert_close(
        SupConLoss(0.2)(embeddings, indices_tuple=pairs), TheirSupCon(0.2)(embeddings, indices_tuple=pairs)
    )
    with pytest.raises(ValueError, match="labels and indices_tuple cannot both be None"):
        SupConLoss(0.2)(embeddings)
