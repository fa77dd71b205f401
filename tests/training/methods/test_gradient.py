from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hierderm.config.loading import with_overrides
from hierderm.config.methods import Gradient, Loss
from hierderm.config.settings import Config
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import ConfigError
from hierderm.experiment.run import train
from hierderm.report.rows import SHOWN_SCORES
from hierderm.training.features import FeatureStore
from hierderm.training.gradient.module import TrainingModule
from hierderm.training.methods.gradient import shape_of
from hierderm.training.methods.tree_lda import best_scale, shuffled


@pytest.mark.parametrize(
    "settings",
    [
        {"freeze": "frozen", "neck": "residual", "views": 1},
        {"freeze": "frozen", "neck": "standardised", "features": "layers", "views": 1, "batch_size": 0},
        {"freeze": "last_blocks", "last_blocks": 1, "sampler.kind": "class_balanced"},
        {"freeze": "last_blocks", "last_blocks": 1, "cache_activations": True, "layer_decay": 0.5, "average": 0.9},
        {"freeze": "lora", "lora_rank": 2},
        {"loss.classification": "LogitAdjusted", "loss.contrastive": "MultiSimilarityLoss", "projection_dim": 0},
        {"loss.classification": "ArcFaceLoss", "sampler.kind": "shuffle"},
        {"loss.contrastive": "", "logger": "tensorboard"},
        {"loss.contrastive": "HiMulConE", "loss.classification": "HXE"},
        {"loss.contrastive_levels": {"coarse": 1.0, "fine": 0.5}, "loss.schedule": "joint"},
    ],
    ids=lambda settings: ",".join(map(str, settings.values())),
)
def test_every_way_to_train(toy_config: Config, toy: CaseTable, tmp_path: Path, settings: dict[str, object]) -> None:
    config = with_overrides(toy_config, {f"training.{name}": value for name, value in settings.items()})
    run = train(config, toy, tmp_path)
    assert len(run.history) == 2
    assert np.isfinite(run.history["train_loss"]).all()
    embedded = run.embeddings()
    assert (embedded.probabilities is None) == (settings.get("loss.classification") == "ArcFaceLoss")
    assert len(embedded) == len(toy) and (tmp_path / "curves.png").is_file()


def test_training_learns(toy_config: Config, toy: CaseTable, tmp_path: Path) -> None:
    config = with_overrides(toy_config, {"training.epochs": 8, "training.backbone_learning_rate": 1e-3})
    history = train(config, toy, tmp_path).history
    assert history["contrastive_loss"].iloc[-1] < history["contrastive_loss"].iloc[0]
    assert history["classification_loss"].dropna().iloc[-1] < history["classification_loss"].dropna().iloc[0]


def test_all_images_in_one_batch(toy_config: Config, toy: CaseTable, tmp_path: Path) -> None:
    """An epoch is one step: the scheduler has as many steps as there are epochs."""
    settings = {"training.freeze": "frozen", "training.neck": "linear", "training.views": 0, "training.batch_size": 0}
    train(with_overrides(toy_config, settings), toy, tmp_path)
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == checkpoint["epoch"] + 1 == 2


def test_the_shape_has_only_what_the_settings_use() -> None:
    assert shape_of(Gradient()).classifier == "cosine" and shape_of(Gradient()).embedding_dim == 128
    without = shape_of(
        Gradient(init="random", freeze="full", neck="residual", loss=Loss(contrastive="", classification="ArcFaceLoss"))
    )
    assert (without.embedding_dim, without.projection_dim, without.classifier, without.dropout) == (0, 0, "none", 0.0)


def test_learnt_values_are_in_the_weights_and_not_in_the_header(
    toy_config: Config, toy: CaseTable, tmp_path: Path
) -> None:
    config = with_overrides(toy_config, {"training.classifier_scale": 5.0, "training.epochs": 1})
    run = train(config, toy, tmp_path)
    header = (tmp_path / "model" / "hierderm.json").read_text()
    assert "scale" not in json.loads(header)["content"]["shape"]
    assert run.encoder.network.classifier is not None
    scale = run.encoder.network.classifier.log_scale
    assert isinstance(scale, torch.Tensor) and float(scale.detach().exp()) == pytest.approx(5.0, rel=0.1)


STARTED = {
    "training.init": "tree_lda", "training.freeze": "frozen", "training.views": 1, "training.features": "layers", "training.loss.schedule": "joint",
}  # fmt: skip
VALUES = {"shrinkages": [0.1, 0.4], "strengths": [2.0], "probability_shares": [0.2, 0.5]}


@pytest.fixture(scope="module")
def closed(
    toy_config: Config, toy: CaseTable, tmp_path_factory: pytest.TempPathFactory
) -> tuple[EmbeddingTable, FeatureStore]:
    """What the closed form alone gives, and the features it was made of."""
    folder = tmp_path_factory.mktemp("closed")
    settings = {"training.method": "tree_lda", "training.views": 1, "training.features": ["layers"]}
    values = {f"training.{name}": value for name, value in VALUES.items()}
    store = FeatureStore(folder / "features")
    return train(with_overrides(toy_config, settings | values), toy, folder, store).embeddings(store), store


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [([0.5, 0.1, 0.4], 0), ([0.5, 0.5, 0.5], 0), ([0.1, 0.2, 0.3], 2)],
    ids=["worse", "tie", "better"],
)
def test_the_closed_form_stays_unless_an_epoch_is_better(
    toy_config: Config,
    toy: CaseTable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    closed: tuple[EmbeddingTable, FeatureStore],
    scores: list[float],
    chosen: int,
) -> None:
    """Validation scores are made up, those of the start first; the weights are those of the best."""
    left = iter(scores)
    names = ["mean_retrieval", *(f"{level}_{name}" for level in ("coarse", "fine") for name in SHOWN_SCORES)]
    monkeypatch.setattr(
        "hierderm.training.gradient.module.validation_scores",
        lambda *_: dict.fromkeys(names, next(left)),
    )
    expected, store = closed
    own = with_overrides(
        toy_config, STARTED | {f"training.closed_form.{name}": value for name, value in VALUES.items()}
    )
    run = train(own, toy, tmp_path, store)
    assert run.chosen == chosen and run.history["epoch"].tolist() == [0, 1, 2]
    assert run.history["mean_retrieval"].tolist() == pytest.approx(scores)
    assert run.history["train_loss"].isna().tolist() == [True, False, False]
    found = run.embeddings(store)
    assert np.allclose(found.embeddings, expected.embeddings, atol=1e-5) == (chosen == 0)
    assert expected.probabilities is not None and found.probabilities is not None
    assert np.allclose(found.probabilities, expected.probabilities, atol=1e-5) == (chosen == 0)


@pytest.mark.parametrize("settings", [{}, {"freeze": "last_blocks", "last_blocks": 1}, {"projection_dim": 0}])
def test_training_goes_on_from_the_closed_form(
    toy_config: Config, toy: CaseTable, tmp_path: Path, settings: dict[str, object]
) -> None:
    own = STARTED | {f"training.{name}": value for name, value in settings.items()}
    own |= {f"training.closed_form.{name}": value for name, value in VALUES.items()}
    run = train(with_overrides(toy_config, own | {"training.learning_rate": 3e-3, "training.epochs": 4}), toy, tmp_path)
    losses = run.history["train_loss"].iloc[1:]
    assert losses.iloc[1:].min() < losses.iloc[0]
    embedded = run.embeddings()
    assert embedded.probabilities is not None
    np.testing.assert_allclose(np.linalg.norm(embedded.embeddings, axis=1), 1, atol=1e-5)


def test_the_losses_of_the_control_follow_the_shuffled_tree(
    toy_config: Config, toy: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[CaseTable] = []

    def watch(self: TrainingModule, network: object, settings: object, train: CaseTable, *rest: CaseTable) -> None:
        seen.extend([train, rest[0]])
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingModule, "__init__", watch)
    with pytest.raises(KeyboardInterrupt):
        train(with_overrides(toy_config, STARTED | {"training.closed_form.shuffle": True}), toy, tmp_path)
    learnt_from, validation = seen
    assert learnt_from.taxonomy == shuffled(toy.taxonomy, 0) != toy.taxonomy == validation.taxonomy
    np.testing.assert_array_equal(learnt_from.fine, toy.part("train").fine)


def test_probabilities_stand_in_the_embedding_of_any_model(toy_config: Config, toy: CaseTable, tmp_path: Path) -> None:
    """By hand: the squares of the last columns are the share times the probabilities of each level."""
    named = {"freeze": "frozen", "neck": "linear", "views": 0, "embedding_dim": 8, "probability_share": 0.4}
    config = with_overrides(toy_config, {f"training.{name}": value for name, value in named.items()})
    run = train(config, toy, tmp_path)
    network = run.encoder.network
    with torch.no_grad():
        outputs = network.heads(torch.randn(5, network.backbone.dim, generator=torch.Generator().manual_seed(0)))
    assert outputs.logits is not None
    logits = outputs.logits / network.scale
    roots = outputs.embedding[:, 8:]
    torch.testing.assert_close(roots[:, :3] ** 2, 0.2 * network.probabilities(logits, 0))
    torch.testing.assert_close(roots[:, 3:] ** 2, 0.2 * network.probabilities(logits, 1))
    assert outputs.embedding.shape == (5, 8 + 3 + 9)
    torch.testing.assert_close(outputs.embedding.norm(dim=1), torch.ones(5))


def test_logits_are_calibrated(toy_config: Config, toy: CaseTable, tmp_path: Path) -> None:
    run = train(toy_config, toy, tmp_path)
    validation = toy.part("validation")
    found = run.encoder.embed(validation).probabilities
    assert found is not None
    logits = np.log(found) / float(run.encoder.network.scale)
    assert float(run.encoder.network.scale) == pytest.approx(best_scale(logits, validation.fine))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"init": "tree_lda", "freeze": "frozen", "loss.classification_level": "coarse"},
            "loss.classification_level must be 'fine', got 'coarse'. HXE with alpha = 50 counts the top level alone",
        ),
        (
            {"init": "tree_lda", "freeze": "frozen", "loss.classification": "ArcFaceLoss"},
            "init = 'tree_lda' needs a loss.classification on logits: CrossEntropy, .*, or ''; got 'ArcFaceLoss'",
        ),
        (
            {"loss.classification_level": "coarse", "probability_share": 0.2, "probability_levels": {"fine": 1.0}},
            r"must not be finer than loss.classification_level, 'category', got \['fine'\]",
        ),
        ({"probability_levels": {"fine": 1.0}}, "read only where .*probability_share is above 0"),
        ({"closed_form.folds": 3}, "'training.closed_form.folds' is read only where training.init is tree_lda"),
    ],
)
def test_settings_that_do_not_go_together(
    toy_config: Config, toy: CaseTable, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(with_overrides(toy_config, {f"training.{name}": v for name, v in settings.items()}), toy, tmp_path)


def test_cached_activations_change_nothing(toy_config: Config, toy: CaseTable, tmp_path: Path) -> None:
    """Without augmentation, training from what enters the last block is training from the images."""
    off = {"crop": 1.0, "flip": False, "rotation": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0,
           "hue": 0.0, "blur": 0.0}  # fmt: skip
    settings = {"freeze": "last_blocks", "last_blocks": 1, "projection_dim": 16}
    config = with_overrides(
        toy_config,
        {f"training.{name}": value for name, value in settings.items()}
        | {f"training.augmentation.{name}": value for name, value in off.items()},
    )
    cached = with_overrides(config, {"training.cache_activations": True, "training.views": 0})
    for name, value in (("mirrors", True), ("views", 2)):
        with pytest.raises(
            ConfigError, match=r"keeps what one image gives, backbone\.mirrors and backbone\.views take"
        ):
            train(with_overrides(cached, {f"backbone.{name}": value}), toy, tmp_path / name)
    one, other = train(config, toy, tmp_path / "images"), train(cached, toy, tmp_path / "cached")
    np.testing.assert_allclose(other.history["train_loss"], one.history["train_loss"], rtol=1e-4)
    np.testing.assert_allclose(other.embeddings().embeddings, one.embeddings().embeddings, atol=1e-3)
