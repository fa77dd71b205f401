"""Two processes by gloo do what one does with all images: losses, features, the closed form, and a whole training."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_metric_learning.losses as pml_losses
import torch
from safetensors.torch import load_file
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from hierderm.config.loading import build_config, to_dict, with_overrides
from hierderm.config.methods import Augmentation
from hierderm.config.settings import BackboneConfig, Config
from hierderm.data.table import CaseTable
from hierderm.errors import ConfigError, HierdermError
from hierderm.experiment.run import prepare, train
from hierderm.model.backbone import load_backbone
from hierderm.model.heads import Discriminants
from hierderm.taxonomy.tree import taxonomy_from_paths
from hierderm.training import features, ranks, tree_analysis
from hierderm.training.features import FeatureStore
from hierderm.training.gradient.module import TrainingModule
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
from hierderm.training.losses.gathered import Gathered
from hierderm.training.ranks import rank, started_by_torchrun, world_size
from hierderm.training.tree_analysis import TreeAnalysis
from tests.processes import Ranks

pytestmark = pytest.mark.together("processes")
TREE = taxonomy_from_paths([(f"C{k // 2}", f"F{k}") for k in range(6)], ("category", "condition"), id="t")
LABELS = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5, 0, 2, 1])
PARTS = [slice(0, 4), slice(4, 11)]  # of another length each


@pytest.fixture(scope="module")
def pair() -> Iterator[Ranks]:
    ranks = Ranks(2)
    yield ranks
    ranks.stop()


# --- losses ------------------------------------------------------------------------------------------------------


def losses() -> dict[str, nn.Module]:
    """Each with the same weights in every process."""
    torch.manual_seed(0)
    made: dict[str, nn.Module] = {
        "SupCon": SupConLoss(0.3),
        "TreeSupCon": TreeSupConLoss(TREE, 0.3),
        "HiMulConE": HiMulConELoss(TREE, 0.3),
        "SmoothHAP": SmoothHAPLoss(TREE, 0.1),
        "CrossEntropy": nn.CrossEntropyLoss(),
        "HXE": HXELoss(TREE),
        "SoftLabels": SoftLabelsLoss(TREE),
        "TreeMargin": TreeMarginLoss(TREE),
        "LogitAdjusted": LogitAdjustedLoss(torch.tensor([3, 2, 2, 2, 1, 1])),
        "MultiSimilarity": pml_losses.MultiSimilarityLoss(),
        "NTXent": pml_losses.NTXentLoss(),
        "TripletMargin": pml_losses.TripletMarginLoss(),
        "ProxyNCA": pml_losses.ProxyNCALoss(6, 6),
        "ArcFace": pml_losses.ArcFaceLoss(6, 6),
    }
    return {name: loss.double() for name, loss in made.items()}


class Step(nn.Module):
    """A layer and a loss, as a training step has them."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer, self.loss = nn.Linear(5, 6).double(), loss

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        found: Tensor = self.loss(self.layer(inputs), labels)
        return found


def inputs() -> Tensor:
    return torch.randn(len(LABELS), 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def step(loss: nn.Module, part: slice, parallel: bool) -> tuple[float, list[Tensor]]:
    """Its value, and the gradients of all weights."""
    module = Step(loss)
    called = DistributedDataParallel(module) if parallel else module
    value = called(inputs()[part], LABELS[part])
    value.backward()
    return value.item(), [weight.grad for weight in module.parameters() if weight.grad is not None]


def steps_of_a_process() -> dict[str, tuple[float, list[Tensor]]]:
    return {name: step(Gathered(loss), PARTS[rank()], True) for name, loss in losses().items()}


@pytest.fixture(scope="module")
def parallel_steps(pair: Ranks) -> list[dict[str, tuple[float, list[Tensor]]]]:
    return pair.call(steps_of_a_process)


@pytest.mark.parametrize("name", losses())
def test_gradients_are_those_of_one_process_with_the_joined_batch(
    name: str, parallel_steps: list[dict[str, tuple[float, list[Tensor]]]]
) -> None:
    value, gradients = step(losses()[name], slice(None), False)
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients)
    for found in parallel_steps:
        assert found[name][0] == pytest.approx(value, abs=1e-12)
        torch.testing.assert_close(found[name][1], gradients, rtol=0, atol=1e-12)
    alone, _ = step(losses()[name], PARTS[0], False)
    assert alone != pytest.approx(value, abs=1e-3)  # a process's own part is another loss


def test_one_process_and_evaluation_take_the_loss_as_it_is() -> None:
    rows, loss = inputs(), SupConLoss()
    assert world_size() == 1 and Gathered(loss)(rows, LABELS) == loss(rows, LABELS)


def validated() -> float:
    return float(Gathered(SupConLoss()).eval()(inputs()[PARTS[rank()]], LABELS[PARTS[rank()]]))


def test_in_evaluation_each_process_has_its_own_images(pair: Ranks) -> None:
    assert pair.call(validated) == [float(SupConLoss()(inputs()[part], LABELS[part])) for part in PARTS]


# --- features and the closed form --------------------------------------------------------------------------------

N_IMAGES, SETTING = 300, {"shrinkage": 0.1, "decay": 0.5, "strength": 3.0, "probability_share": 0.2}


def drawn(dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    fine = rng.integers(6, size=N_IMAGES)
    return (rng.normal(size=(6, 9))[fine] + rng.normal(3, 1, (N_IMAGES, 9))).astype(dtype), fine


def analysed(sizes: list[int], components: int = 2048, block: int = 1024) -> list[Discriminants]:
    """The analysis of shards of these sizes, and of a part of the images."""
    values, fine = drawn()
    tree_analysis.BLOCK = block
    shards = np.split(values, np.cumsum(sizes)[:-1])
    whole = TreeAnalysis(shards, fine, TREE, components=components)
    return [one.fit(**SETTING) for one in (whole, whole.leaving_out(np.arange(N_IMAGES) % 5 == 0))]


def require_same(found: list[Discriminants], expected: list[Discriminants]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("weight", "bias", "condition_weight", "condition_bias"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-10)


@pytest.mark.parametrize("components", [2048, 5])
def test_the_closed_form_is_the_same_from_shards(components: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_analysis, "BLOCK", 1024)
    expected = analysed([N_IMAGES], components)
    require_same(analysed([1, 99, 200], components), expected)
    require_same(analysed([150, 150], components, block=7), expected)


def test_the_closed_form_is_the_same_from_two_processes(pair: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_analysis, "BLOCK", 1024)
    expected = analysed([N_IMAGES])
    first, second = pair.call(analysed, [120, 180], 2048, 32)
    require_same(first, expected)
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours.weight, theirs.weight)  # to the last bit: the processes go on alike


def cached(folder: Path, table: CaseTable, backbone: str) -> tuple[list[int], np.ndarray]:
    """How many images this process has embedded, and the features of all views."""
    counted, computed = list[int](), features._computed

    def counting(source: Any, view: Any, rows: list[int]) -> Iterator[Any]:
        counted.append(len(rows))
        return computed(source, view, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "_computed", counting)
        views, _ = FeatureStore(folder).for_training(load_backbone(BackboneConfig(backbone)), table, 1, Augmentation())
    return counted, np.stack(views)


def test_processes_divide_the_images_and_share_the_features(
    pair: Ranks, toy: CaseTable, small_siglip: Path, tmp_path: Path
) -> None:
    name = f"hf:{small_siglip}"
    counts, alone = cached(tmp_path / "alone", toy, name)
    (first, one), (second, other) = pair.call(cached, tmp_path / "shared", toy, name)
    assert [sum(pair) for pair in zip(first, second, strict=True)] == counts
    assert max(abs(a - b) for a, b in zip(first, second, strict=True)) <= 1
    np.testing.assert_allclose(one, alone, atol=1e-5)
    np.testing.assert_array_equal(one, other)


# --- a whole training --------------------------------------------------------------------------------------------


def trained(config: Config, folder: Path, killed_at: int = -1) -> pd.DataFrame:
    """The history of a training, in which the second process is killed at the start of an epoch."""
    table = prepare(config.data, config.split, folder)[0] if rank() == 0 else None
    started = TrainingModule.on_train_epoch_start

    def start(self: TrainingModule) -> None:
        started(self)
        if rank() == 1 and self.current_epoch == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    from hierderm.training.ranks import wait_for_all

    wait_for_all()
    if table is None:
        table = prepare(config.data, config.split, folder)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingModule, "on_train_epoch_start", start)
        return train(config, table, folder).history


def test_a_training_of_two_processes_is_that_of_one_and_a_killed_one_goes_on(
    pair: Ranks, toy_config: Config, tmp_path: Path
) -> None:
    settings = {"epochs": 2, "patience": 9, "batch_size": 20, "accelerator": "cpu", "loss.coarse_fraction": 0.7}
    config = with_overrides(toy_config, {f"training.{name}": value for name, value in settings.items()})
    alone = trained(config, tmp_path / "alone")
    assert alone["classification_loss"].isna().any()  # its head has no gradient then
    config = with_overrides(config, {"training.devices": 2})
    found = pair.call(trained, config, tmp_path / "two")
    for history in found:
        pd.testing.assert_frame_equal(history, alone, check_exact=False, rtol=1e-5, atol=1e-6)

    others = Ranks(2)
    for end in others.ends:
        end.send((trained, (config, tmp_path / "broken", 1)))
    others.processes[1].join(60)
    assert others.processes[1].exitcode == -signal.SIGKILL
    assert isinstance(others.ends[0].recv(), Exception)  # it does not wait for ever
    others.stop()
    assert not (tmp_path / "broken" / "finished.json").exists()
    assert len(pd.read_csv(tmp_path / "broken" / "history.csv")) == 1
    for history in pair.call(trained, config, tmp_path / "broken"):
        pd.testing.assert_frame_equal(history, found[0], check_exact=False, rtol=1e-6)
    weights, expected = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("broken", "two"))
    for key, value in expected.items():
        torch.testing.assert_close(weights[key], value, rtol=1e-5, atol=1e-6)


def test_a_training_from_the_closed_form_on_cached_features(pair: Ranks, toy_config: Config, tmp_path: Path) -> None:
    raw = to_dict(toy_config)
    settings = {"init": "tree_lda", "freeze": "frozen", "views": 1, "epochs": 1, "batch_size": 0, "accelerator": "cpu"}
    kept = {name: raw["training"][name] for name in ("method", "features")}
    config = build_config({**raw, "training": {**kept, **settings, "closed_form": {"folds": 2, "strengths": [3.0]}}})
    alone = trained(config, tmp_path / "alone")
    for history in pair.call(trained, with_overrides(config, {"training.devices": 2}), tmp_path / "two"):
        pd.testing.assert_frame_equal(history, alone, check_exact=False, rtol=1e-4, atol=1e-6)
    settings = {"training.loss.classification": "", "training.devices": 2, "training.epochs": 2}
    for history in pair.call(trained, with_overrides(config, settings), tmp_path / "contrastive"):
        assert len(history) == 3  # the head of the logits, which the closed form always has, never has a gradient


def test_as_many_processes_as_the_settings_say(toy_config: Config, tmp_path: Path) -> None:
    config = with_overrides(toy_config, {"training.devices": 2, "training.num_nodes": 3})
    with pytest.raises(
        ConfigError,
        match=r"devices 2 times training\.num_nodes 3 must be the number of processes, got 1\. Start `hierderm train` "
        r"by `torchrun --nnodes 3 --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint HOST:PORT -m hierderm train",
    ):
        train(config, prepare(config.data, config.split, tmp_path)[0], tmp_path)


def test_another_process_that_ends_is_no_error_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "started_by_torchrun", lambda: True)
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(distributed, name, lambda **_: None)
    for said in ("pair.cc:561] Connection closed by peer [::1]:5", "NCCL error: remote process exited or there was"):
        with pytest.raises(HierdermError, match="process 0 of 1 stops, because another one has"), ranks.together():
            raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="mat1 and mat2"), ranks.together():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_what_torchrun_says() -> None:
    assert started_by_torchrun({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "1"})
    assert not started_by_torchrun({"WORLD_SIZE": "2"}) and rank() == 0
