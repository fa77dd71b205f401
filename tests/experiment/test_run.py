from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hierderm.artifacts import HEADER
from hierderm.config.loading import with_overrides
from hierderm.config.settings import Config
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import ConfigError, EmbeddingError, OutputError
from hierderm.experiment.compare import compare
from hierderm.experiment.run import (
    cached_features,
    cached_views,
    embed_run,
    evaluate_test,
    load_cases,
    prepare_cases,
    score_validation,
    train_run,
)
from hierderm.model.backbone import load_backbone
from hierderm.model.embed import backbone_features
from hierderm.training.methods.tree_lda import TreeLda

MODELS: list[dict[str, Any]] = [
    {"name": "vanilla", "method": "vanilla"},
    {"name": "linear-probe", "method": "linear_probe"},
    {"name": "lda", "method": "lda"},
    {"name": "flat-coarse", "set": {"loss.classification_level": "coarse", "loss.schedule": "joint"}},
    {"name": "tree-lda", "set": {"training.method": "tree_lda"}},
    {"name": "hierarchical"},
]


@pytest.fixture
def comparison(toy_config: Config) -> Config:
    return with_overrides(toy_config, {"models": MODELS})


def test_a_comparison_writes_its_report_and_resumes(comparison: Config, tmp_path: Path) -> None:
    said: list[str] = []
    page = compare(comparison, tmp_path, said.append)
    html, report = page.read_text(), json.loads((tmp_path / "report.json").read_text())
    assert [model["model"] for model in report["models"]] == [model["name"] for model in MODELS]
    for model in report["models"]:
        names = {(metric["level"], metric["name"]) for metric in model["metrics"]}
        assert {("coarse", "ami"), ("fine", "map_at_r"), ("fine", "purity_unweighted")} <= names
        assert (("fine", "top1_accuracy") in names) == (
            model["method"] != "vanilla" and model["model"] != "flat-coarse"
        )
    assert any(sentence.startswith("hierarchical against vanilla") for sentence in report["summary"])
    assert "not a medical device" in html
    assert "http://" not in html and "https://" not in html  # readable without internet
    assert html.count("data:image/jpeg") > 20
    for name in (
        "config.toml",
        "environment.json",
        "history.csv",
        "curves.png",
        "model/README.md",
        "model/hierderm.json",
    ):
        assert (tmp_path / "models" / "hierarchical" / name).is_file()

    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    said.clear()
    compare(comparison, tmp_path, said.append)
    assert said.count("Already trained.") == 3
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == times
    assert json.loads((tmp_path / "report.json").read_text())["models"] == report["models"]


def test_vanilla_and_trained_share_split_and_cases(comparison: Config, tmp_path: Path) -> None:
    compare(comparison, tmp_path)
    tables = [EmbeddingTable.load(tmp_path / "models" / model["name"] / "embeddings") for model in MODELS]
    assert len({tuple(table.frame["image_id"]) for table in tables}) == 1
    assert len({table.provenance.split_hash for table in tables}) == 1


def test_models_may_not_change_what_is_shared(comparison: Config, tmp_path: Path) -> None:
    unfair = with_overrides(comparison, {"models": [{"name": "a", "set": {"split.seed": 3}}]})
    with pytest.raises(ConfigError, match=r"model 'a' must not change \['split.seed'\]"):
        compare(unfair, tmp_path)
    with pytest.raises(ConfigError, match="unknown key 'training.epoch'. Closest: 'training.epochs'"):
        compare(with_overrides(comparison, {"models": [{"name": "a", "set": {"training.epoch": 3}}]}), tmp_path)
    with pytest.raises(ConfigError, match="must list its models"):
        compare(with_overrides(comparison, {"models": []}), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings",
    [
        {"training.freeze": "frozen", "model.neck": "residual"},
        {"training.freeze": "last_blocks", "training.last_blocks": 1, "sampler.kind": "class_balanced"},
        {"training.freeze": "lora", "training.lora_rank": 2},
        {"loss.classification": "LogitAdjusted", "loss.contrastive": "MultiSimilarityLoss", "model.projection_dim": 0},
        {"loss.classification": "ArcFaceLoss", "sampler.kind": "shuffle"},
        {"loss.classification": "HXE", "loss.contrastive": "TreeSupCon"},
        {"loss.contrastive": "", "training.tensorboard": True},
        {"training.freeze": "frozen", "model.neck": "standardised", "training.views": 1, "backbone.features": "layers"},
        {"loss.contrastive_levels": {"coarse": 1.0, "fine": 0.5}, "loss.schedule": "joint"},
    ],
    ids=lambda settings: ",".join(map(str, settings.values())),
)
def test_every_way_to_train(toy_config: Config, tmp_path: Path, settings: dict[str, object]) -> None:
    config = with_overrides(toy_config, settings)
    table, _ = prepare_cases(config, tmp_path)
    run = train_run(config, table, tmp_path)
    assert len(run.history) == 2
    assert np.isfinite(run.history["train_loss"]).all()
    embeddings = embed_run(run, table, name="run")
    assert (embeddings.probabilities is None) == (config.loss.classification == "ArcFaceLoss")
    again = train_run(config, table, tmp_path)  # loads
    np.testing.assert_allclose(embed_run(again, table, name="run").embeddings, embeddings.embeddings, atol=1e-5)


def test_discriminants_of_the_tree_are_a_model_like_any_other(toy_config: Config, tmp_path: Path) -> None:
    config = with_overrides(toy_config, {"training.method": "tree_lda", "training.views": 2})
    table, _ = prepare_cases(config, tmp_path)
    run = train_run(config, table, tmp_path)
    assert len(run.history) == 3 * 1 * 2 * 4
    assert run.history["held_out"].iloc[run.chosen] == run.history["held_out"].max()
    embedded = embed_run(run, table, name="run")
    assert embedded.probabilities is not None
    in_train = table.splits == "train"
    right = (embedded.probabilities.argmax(axis=1) == table.fine)[in_train].mean()
    assert right > 0.2  # of nine conditions: an untrained backbone, but pictures it has learnt from
    again = train_run(config, table, tmp_path)  # loads
    np.testing.assert_allclose(embed_run(again, table, name="run").embeddings, embedded.embeddings, atol=1e-5)
    features = cached_features(config, run.network.backbone, table, tmp_path)
    known = embed_run(run, table, name="run", features=features)
    np.testing.assert_allclose(known.embeddings, embedded.embeddings, atol=1e-5)
    assert known.probabilities is not None
    np.testing.assert_allclose(known.probabilities, embedded.probabilities, atol=1e-5)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "discriminants of the tree: shrinkage" in card
    assert "augmented views of the training pictures: 2" in card


def test_a_model_embeds_as_the_analysis_that_was_chosen(toy_config: Config, tmp_path: Path) -> None:
    settings = {"training.method": "tree_lda", "training.views": 0, "tree_lda.shuffle": True}
    grid = {"shrinkages": [0.3], "decays": [0.5], "strengths": [2.0], "beliefs": [0.3]}
    config = with_overrides(toy_config, {**settings, **{f"tree_lda.{name}": value for name, value in grid.items()}})
    table, _ = prepare_cases(config, tmp_path)
    run = train_run(config, table, tmp_path)
    embedded = embed_run(run, table, name="run")
    features = cached_features(config, run.network.backbone, table, tmp_path)
    train = table.splits == "train"
    place = np.random.default_rng(config.training.seed).permutation(table.taxonomy.size(-1))
    lda = TreeLda(features[train], place[table.fine[train]], table.taxonomy)
    found = lda.fit(shrinkage=0.3, decay=0.5, strength=2.0, belief=0.3)
    expected = found.embed(features)
    np.testing.assert_allclose(embedded.embeddings @ embedded.embeddings.T, expected @ expected.T, atol=1e-4)
    assert embedded.probabilities is not None
    expected_labels = found.logits(features)[:, place].argmax(axis=1)
    assert (embedded.probabilities.argmax(axis=1) == expected_labels).mean() > 0.99


def test_views_are_made_once_and_differ(toy_config: Config, tmp_path: Path) -> None:
    config = with_overrides(toy_config, {"training.method": "tree_lda", "training.views": 2})
    table, _ = prepare_cases(config, tmp_path)
    backbone = load_backbone(config.backbone)
    first = cached_views(config, backbone, table, tmp_path)
    assert len(first) == 3
    assert not np.allclose(first[0], first[1]) and not np.allclose(first[1], first[2])
    of_validation = cached_features(config, backbone, table, tmp_path)[table.splits == "validation"]
    for found, part in ((first[0], "train"), (of_validation, "validation")):
        np.testing.assert_allclose(found, backbone_features(backbone, table.part(part).paths), atol=1e-5)
    files = sorted((tmp_path / "features").iterdir())
    again = cached_views(config, backbone, table, tmp_path)
    assert sorted((tmp_path / "features").iterdir()) == files and len(files) == 3
    np.testing.assert_array_equal(first, again)
    other = cached_views(with_overrides(config, {"training.seed": 1}), backbone, table, tmp_path)
    np.testing.assert_array_equal(first[0], other[0])
    assert not np.allclose(first[1], other[1])


def test_divisions_of_a_table_share_their_views(
    toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each adds the pictures that others have not trained on; what is drawn does not hang on who asks first."""
    config = with_overrides(toy_config, {"training.method": "tree_lda", "training.views": 1})
    table, _ = prepare_cases(config, tmp_path)
    swapped = table.frame.replace({"split": {"train": "test", "test": "train"}})
    other = replace(table, frame=swapped)
    backbone, asked = load_backbone(config.backbone), []

    def counted(*args: Any, rows: list[int], **kwargs: Any) -> Any:
        asked.append(len(rows))
        return backbone_features(*args, rows=rows, **kwargs)

    monkeypatch.setattr("hierderm.model.embed.backbone_features", counted)
    for division in (table, other, table):
        cached_views(config, backbone, division, tmp_path / "shared")
    assert asked == [len(table), len(table.part("train")), len(other.part("train"))]  # all as they are, then the views
    alone = cached_views(config, backbone, other, tmp_path / "alone")[1]
    shared = cached_views(config, backbone, other, tmp_path / "shared")[1]
    assert np.isfinite(alone).all()
    np.testing.assert_allclose(shared, alone, atol=1e-5)


def test_runs_of_a_comparison_share_their_features(toy_config: Config, tmp_path: Path) -> None:
    config = with_overrides(toy_config, {"training.method": "tree_lda", "training.views": 1})
    table, _ = prepare_cases(config, tmp_path)
    for name in ("a", "b"):
        train_run(config, table, tmp_path / name, features=tmp_path)
    assert len(list((tmp_path / "features").iterdir())) == 2  # all pictures, the view of training
    assert not (tmp_path / "a" / "features").exists()


def test_the_shuffled_tree_is_a_control(toy_config: Config, tmp_path: Path) -> None:
    """It changes what hangs on the tree and nothing else: the flat analysis knows no tree and stays as it is."""
    frozen = {
        "training.method": "tree_lda",
        "training.views": 0,
        "tree_lda.strengths": [0.0],
        "tree_lda.shrinkages": [0.0],
    }
    table, _ = prepare_cases(toy_config, tmp_path)

    def embedded(decay: float, shuffle: bool) -> EmbeddingTable:
        settings = {**frozen, "tree_lda.decays": [decay], "tree_lda.shuffle": shuffle}
        folder = tmp_path / f"{decay}-{shuffle}"
        return embed_run(train_run(with_overrides(toy_config, settings), table, folder), table, name="run")

    flat, flat_shuffled = embedded(1.0, False), embedded(1.0, True)
    assert flat.probabilities is not None and flat_shuffled.probabilities is not None
    np.testing.assert_allclose(flat_shuffled.probabilities, flat.probabilities, atol=1e-4)
    in_train = table.splits == "train"
    of_tree, of_chance = (
        score_validation(embedded(0.0, shuffle).embeddings[in_train], table.part("train"))["coarse_map_at_r"]
        for shuffle in (False, True)
    )
    assert of_tree > of_chance


def test_a_run_killed_between_its_last_writes_is_finished(toy_config: Config, tmp_path: Path) -> None:
    table, _ = prepare_cases(toy_config, tmp_path)
    first = train_run(toy_config, table, tmp_path)
    (tmp_path / "finished.json").unlink()
    again = train_run(toy_config, table, tmp_path)
    assert again.chosen == first.chosen
    assert again.history.equals(first.history)
    np.testing.assert_allclose(
        embed_run(again, table, name="a").embeddings, embed_run(first, table, name="a").embeddings, atol=1e-6
    )


def test_training_learns(toy_config: Config, tmp_path: Path) -> None:
    config = with_overrides(toy_config, {"training.epochs": 8, "training.backbone_learning_rate": 1e-3})
    table, _ = prepare_cases(config, tmp_path)
    history = train_run(config, table, tmp_path).history
    assert history["contrastive_loss"].iloc[-1] < history["contrastive_loss"].iloc[0]
    assert history["classification_loss"].dropna().iloc[-1] < history["classification_loss"].dropna().iloc[0]


def test_settings_that_teach_nothing_are_refused(toy_config: Config, tmp_path: Path) -> None:
    table, _ = prepare_cases(toy_config, tmp_path)
    for settings, message in (
        ({"training.freeze": "frozen"}, "leaves the embedding as it is"),
        ({"model.neck": "discriminants"}, "'tree_lda' makes and no loss learns: choose that method, or model.neck"),
        ({"loss.contrastive": "", "loss.classification": ""}, "at least one of"),
    ):
        with pytest.raises(ConfigError, match=message):
            train_run(with_overrides(toy_config, settings), table, tmp_path / "run")


def test_a_model_of_another_split_is_refused(toy_config: Config, tmp_path: Path) -> None:
    table, _ = prepare_cases(toy_config, tmp_path / "one")
    embeddings = embed_run(train_run(toy_config, table, tmp_path / "one"), table, name="one")
    other = with_overrides(toy_config, {"split.seed": 7})
    moved, _ = prepare_cases(other, tmp_path / "two")
    with pytest.raises(EmbeddingError, match="the model was trained on split .* test cases may be among"):
        evaluate_test(other, embeddings, moved, "one")
    assert evaluate_test(toy_config, embeddings, table, "one").n_images == (table.splits == "test").sum()


def test_choices_that_leave_rows_out_are_listed(toy_config: Config, tmp_path: Path) -> None:
    config = with_overrides(toy_config, {"data.min_images": 8})
    table, report = prepare_cases(config, tmp_path)
    assert report is not None
    assert min(table.image_counts().values()) >= 8
    listed = json.loads((tmp_path / "excluded.json").read_text())
    assert len(listed) == len(load_cases(toy_config, tmp_path)) - len(table) > 0
    with pytest.raises(ConfigError, match="no condition is left .* the largest has"):
        prepare_cases(with_overrides(toy_config, {"data.min_images": 999}), tmp_path / "x")


def test_edited_input_and_foreign_files_are_noticed(toy_config: Config, toy_folder: Path, tmp_path: Path) -> None:
    import shutil

    mine = tmp_path / "mine"
    shutil.copytree(toy_folder, mine)
    config = with_overrides(toy_config, {"data.cases": str(mine / "cases.csv")})
    prepare_cases(config, tmp_path / "run")
    with (mine / "cases.csv").open() as handle:
        lines = handle.readlines()
    (mine / "cases.csv").write_text("".join(lines[:-1]))
    with pytest.raises(ConfigError, match="holds results on other data"):
        prepare_cases(config, tmp_path / "run")
    with pytest.raises(OutputError, match="mine must be a hierderm run folder, it is a synthetic data folder"):
        prepare_cases(config, mine)
    (mine / HEADER).unlink()
    with pytest.raises(OutputError, match=r"mine holds files that hierderm did not write \(cases\.csv"):
        prepare_cases(config, mine)


def test_data_that_are_not_named(toy_config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown built-in data 'synthetic:dem'. Closest: 'demo'"):
        load_cases(with_overrides(toy_config, {"data.cases": "synthetic:dem"}), tmp_path)
    with pytest.raises(ConfigError, match=r"data\.taxonomy must name a taxonomy"):
        load_cases(with_overrides(toy_config, {"data.taxonomy": ""}), tmp_path)


def test_a_split_of_the_table_is_kept(toy_config: Config, tmp_path: Path) -> None:
    table, _ = prepare_cases(toy_config, tmp_path / "one")
    own = with_overrides(
        toy_config,
        {
            "data.cases": str(tmp_path / "one" / "cases.csv"),
            "data.taxonomy": str(tmp_path / "one" / "taxonomy.csv"),
            "split.seed": 5,
        },
    )
    again, report = prepare_cases(own, tmp_path / "two")
    assert report is None
    assert again.split_hash == table.split_hash


def test_the_mean_that_is_monitored_lets_no_level_pay_for_another(toy_config: Config, tmp_path: Path) -> None:
    table, _ = prepare_cases(toy_config, tmp_path)
    part = table.part("train")
    of_categories = np.eye(table.taxonomy.size(0))[part.labels(0)]
    perfect = np.hstack([of_categories, np.eye(table.taxonomy.size(-1))[part.fine]])
    assert score_validation(perfect, part)["mean_map_at_r"] == pytest.approx(1)
    found = score_validation(of_categories, part)
    assert found["coarse_map_at_r"] == pytest.approx(1) and found["fine_map_at_r"] < 0.7
    assert found["mean_map_at_r"] == pytest.approx(np.sqrt(found["fine_map_at_r"]))
