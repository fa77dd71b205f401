"""What holds of every loss: gradients, order, degenerate batches, half precision, refusals, worked examples."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hierderm.training.losses
from hierderm.errors import ConfigError, EmbeddingError
from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.losses import (
    HiMulConELoss,
    HXELoss,
    LogitAdjustedLoss,
    SmoothHAPLoss,
    SoftLabelsLoss,
    SupConLoss,
    TreeMarginLoss,
    TreeSupConLoss,
)

LABELS = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5])
Maker = Callable[[Taxonomy], nn.Module]
EMBEDDING: dict[str, Maker] = {
    "SupCon": lambda tree: SupConLoss(0.3),
    "TreeSupCon": lambda tree: TreeSupConLoss(tree, 0.3),
    "HiMulConE": lambda tree: HiMulConELoss(tree, 0.3),
    "HiMulConE by level": lambda tree: HiMulConELoss(tree, 0.3, constraint="level"),
    "SmoothHAP": lambda tree: SmoothHAPLoss(tree, 0.1),
}
LOGIT: dict[str, Maker] = {
    "HXE": HXELoss,
    "SoftLabels": SoftLabelsLoss,
    "TreeMargin": TreeMarginLoss,
    "LogitAdjusted": lambda tree: LogitAdjustedLoss(torch.tensor([9, 3, 0, 1, 4, 1]), label_smoothing=0.1),
}
EVERY = EMBEDDING | LOGIT
OF_TREE = sorted(set(EVERY) - {"SupCon", "LogitAdjusted"})


def inputs(name: str, embeddings: Tensor, logits: Tensor) -> Tensor:
    return embeddings if name in EMBEDDING else logits


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_those_of_the_formula(name: str, tree: Taxonomy, embeddings: Tensor, logits: Tensor) -> None:
    loss = EVERY[name](tree)
    assert torch.autograd.gradcheck(lambda x: loss(x, LABELS), inputs(name, embeddings, logits))


@pytest.mark.parametrize("name", EVERY)
def test_the_order_of_images_does_not_matter(name: str, tree: Taxonomy, embeddings: Tensor, logits: Tensor) -> None:
    loss, x = EVERY[name](tree), inputs(name, embeddings, logits)
    order = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(loss(x[order], LABELS[order]), loss(x, LABELS))


@pytest.mark.parametrize("name", EMBEDDING)
def test_the_length_of_embeddings_does_not_matter(name: str, tree: Taxonomy, embeddings: Tensor) -> None:
    loss = EMBEDDING[name](tree)
    lengths = torch.linspace(0.1, 30, len(LABELS), dtype=torch.float64)[:, None]
    torch.testing.assert_close(loss(embeddings * lengths, LABELS), loss(embeddings, LABELS))


@pytest.mark.parametrize("name", EVERY)
def test_a_constant_added_to_all_logits_does_not_matter(name: str, tree: Taxonomy, logits: Tensor) -> None:
    if name in LOGIT:
        loss = LOGIT[name](tree)
        torch.testing.assert_close(loss(logits + 1000, LABELS), loss(logits, LABELS))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("labels", [[], [4], [0, 3, 5]], ids=["empty", "one image", "nothing shared"])
def test_degenerate_batches(name: str, labels: list[int], tree: Taxonomy, embeddings: Tensor, logits: Tensor) -> None:
    x = inputs(name, embeddings, logits)[: len(labels)].detach().requires_grad_()
    loss = EVERY[name](tree)(x, torch.tensor(labels, dtype=torch.int64))
    loss.backward()
    assert x.grad is not None and x.grad.shape == x.shape and torch.isfinite(x.grad).all()
    if name in EMBEDDING or not labels:
        assert float(loss.detach()) == 0 and not x.grad.any()
    else:
        assert 0 < float(loss.detach()) < torch.inf


@pytest.mark.parametrize("name", EVERY)
def test_equal_embeddings_and_extreme_logits_stay_finite(name: str, tree: Taxonomy) -> None:
    x = torch.ones(8, 6) if name in EMBEDDING else 1e4 * torch.eye(8, 6)
    x.requires_grad_()
    loss = EVERY[name](tree)(x, LABELS)
    loss.backward()
    assert x.grad is not None and torch.isfinite(loss) and torch.isfinite(x.grad).all()


@pytest.mark.parametrize("name", EVERY)
def test_half_precision_is_computed_in_single(name: str, tree: Taxonomy, embeddings: Tensor, logits: Tensor) -> None:
    x = inputs(name, embeddings, logits).detach().bfloat16().requires_grad_()
    loss = EVERY[name](tree)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(x, LABELS)
    found.backward()
    single = x.detach().float().requires_grad_()
    wanted = loss(single, LABELS)
    wanted.backward()
    torch.testing.assert_close(found, wanted)
    assert single.grad is not None
    torch.testing.assert_close(x.grad, single.grad.bfloat16())
    assert found.dtype == torch.float32 and x.grad is not None and x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("name", OF_TREE)
def test_labels_must_be_of_the_tree(name: str, tree: Taxonomy, embeddings: Tensor, logits: Tensor) -> None:
    for wrong, found in (([0, 6], "int64 from 0 to 6"), ([-1, 0], "int64 from -1 to 0"), ([0.0, 1.0], "float32 from")):
        with pytest.raises(EmbeddingError, match=rf"integers in \[0, 6\), got torch.{found}"):
            EVERY[name](tree)(inputs(name, embeddings, logits)[:2], torch.tensor(wrong))


@pytest.mark.parametrize("name", ["HXE", "SoftLabels", "TreeMargin"])
def test_logits_must_be_of_the_tree(name: str, tree: Taxonomy) -> None:
    with pytest.raises(EmbeddingError, match=r"logits must have shape \(n, 6\), .* got \(8, 3\)"):
        LOGIT[name](tree)(torch.zeros(8, 3), LABELS)


@pytest.mark.parametrize("name", ["HiMulConE", "SmoothHAP"])
def test_no_miners_and_references(name: str, tree: Taxonomy, embeddings: Tensor) -> None:
    loss, none = EMBEDDING[name](tree), torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="indices_tuple is not supported"):
        loss(embeddings, LABELS, (none, none, none, none))
    with pytest.raises(ValueError, match="ref_emb is not supported"):
        loss(embeddings, LABELS, ref_emb=embeddings.detach(), ref_labels=LABELS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tree: SupConLoss(0), "temperature must be > 0, got 0"),
        (lambda tree: HiMulConELoss(tree, float("nan")), "temperature must be > 0, got nan"),
        (lambda tree: TreeSupConLoss(tree, level_weights={"coarse": -1.0}), "level_weights must be >= 0 .* got .*-1.0"),
        (lambda tree: TreeSupConLoss(tree, level_weights={}), "level_weights must be >= 0 and one of them > 0, got {}"),
        (lambda tree: HiMulConELoss(tree, constraint="batch"),  # type: ignore[arg-type]
         "constraint must be 'pair' or 'level', got 'batch'"),
        (lambda tree: HXELoss(tree, alpha=float("inf")), "alpha must be finite, got inf"),
        (lambda tree: SoftLabelsLoss(tree, beta=-1), "beta must be >= 0, got -1"),
        (lambda tree: TreeMarginLoss(tree, margin=-1), "margin must be finite and >= 0, got -1"),
        (lambda tree: TreeMarginLoss(tree, margin=float("inf")), "margin must be finite and >= 0, got inf"),
        (lambda tree: LogitAdjustedLoss(torch.tensor([1, -1])), r"class_counts must have .* be >= 0, got \[1, -1\]"),
        (lambda tree: LogitAdjustedLoss(torch.ones(2), tau=-0.5), "tau must be >= 0, got -0.5"),
        (lambda tree: LogitAdjustedLoss(torch.ones(2), label_smoothing=2), r"label_smoothing must be in \[0, 1\], got 2"),
    ],
)  # fmt: skip
def test_settings_are_refused(make: Maker, message: str, tree: Taxonomy) -> None:
    with pytest.raises(ConfigError, match=message):
        make(tree)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_but_class_weights_is_saved(name: str, tree: Taxonomy) -> None:
    assert EVERY[name](tree).state_dict() == {}


def loss_modules() -> list[Any]:
    folder = Path(hierderm.training.losses.__file__).parent
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    return [importlib.import_module(f"hierderm.training.losses.{name}") for name in names]


@pytest.mark.parametrize("module", loss_modules(), ids=lambda module: module.__name__.rpartition(".")[2])
def test_worked_examples_are_true(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", hierderm.training.losses.__all__)
def test_every_public_loss_is_documented(name: str) -> None:
    text = inspect.getdoc(getattr(hierderm.training.losses, name))
    assert text is not None and re.search("arXiv|NAACL 20", text)  # where the formula is from
    for part in ("Args:", "Call:", "Returns:", "Raises:", "Examples:", "gradient of zeros", ">>>"):
        assert part in text
