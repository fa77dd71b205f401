from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from hierderm.config.describe import described
from hierderm.config.loading import (
    build_comparison,
    build_config,
    dump_config,
    load_comparison,
    load_config,
    load_record,
    load_settings,
    model_config,
    parse_value,
    to_dict,
    with_overrides,
)
from hierderm.config.methods import METHODS, Gradient, TreeLda
from hierderm.config.settings import Comparison, Config
from hierderm.errors import ConfigError

MODELS: list[dict[str, Any]] = [
    {"name": "vanilla", "method": "vanilla"},
    {"name": "tree", "set": {"training.views": 1}},
    {"name": "losses", "method": "gradient"},
]


# --- round trips ---


@pytest.mark.parametrize("method", METHODS)
def test_settings_survive_a_round_trip(method: str) -> None:
    config = load_config(None, {"training.method": method, "split.seed": 3})
    assert build_config(tomllib.loads(dump_config(config))) == config


def test_a_comparison_survives_a_round_trip(tmp_path: Path) -> None:
    comparison = build_comparison({"models": MODELS, "training": {"epochs": 3, "seed": 5}, "focus": "tree"})
    path = tmp_path / "c.toml"
    path.write_text(dump_config(comparison))
    assert load_comparison(path) == comparison == load_settings(path)


def test_flags_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[training]\nmethod = 'gradient'\nepochs = 3\nseed = 4\n")
    config = load_config(path, {"training.epochs": 7})
    assert isinstance(config.training, Gradient)
    assert (config.training.epochs, config.training.seed) == (7, 4)
    fine = with_overrides(config, {"training.loss.contrastive_levels": {"fine": 1}}).training
    assert isinstance(fine, Gradient) and fine.loss.contrastive_levels == {"fine": 1.0}


def test_another_method_leaves_the_settings_of_the_first_behind() -> None:
    config = load_config(None, {"training.method": "gradient", "training.epochs": 3, "data.min_images": 2})
    other = with_overrides(config, {"training.method": "tree_lda", "training.views": 1})
    assert other.training == TreeLda(views=1) and other.data.min_images == 2


def test_an_override_drops_what_it_makes_unread() -> None:
    losses = {"training.method": "gradient", "training.loss.schedule": "coarse_then_fine"}
    config = load_config(None, {**losses, "training.loss.coarse_fraction": 0.5, "training.lora_rank": 4,
                                "training.freeze": "lora"})  # fmt: skip
    full = with_overrides(config, {"training.freeze": "full"})
    assert "lora_rank" not in to_dict(full)["training"]
    without = to_dict(with_overrides(config, {"training.loss.contrastive": ""}))["training"]["loss"]
    assert not {"schedule", "coarse_fraction", "contrastive_levels"} & set(without)


def test_a_comparison_keeps_what_its_tasks_read() -> None:
    comparison = with_overrides(Comparison(), {"evaluation.kmeans_seeds": 2, "split.test_fraction": 0.3})
    without = with_overrides(comparison, {"evaluation.tasks": ["retrieval"], "split.folds": 3})
    assert "kmeans_seeds" not in to_dict(without)["evaluation"] and "test_fraction" not in to_dict(without)["split"]
    assert with_overrides(comparison, {"name": "b"}).evaluation.kmeans_seeds == 2


def test_the_settings_beside_a_run_may_name_what_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[split]\nfold = 0\n[training]\nmethod = 'lda'\n")
    assert load_record(tmp_path / "config.toml") == load_config(None, {"training.method": "lda"})
    with pytest.raises(ConfigError, match="'split.fold' is read only where split.folds is above 0"):
        load_config(tmp_path / "config.toml")


# --- settings that the method does not read ---


ROWS = {method: described(method) for method in METHODS}
NAMES = sorted({row.name for rows in ROWS.values() for row in rows if row.name.startswith("training.")})
UNREAD = [(method, name) for method in METHODS for name in NAMES if name not in {row.name for row in ROWS[method]}]
CONDITIONAL = [(method, row) for method in METHODS for row in ROWS[method] if row.condition]


def value_of(name: str) -> Any:
    return next(row.value for rows in ROWS.values() for row in rows if row.name == name)


@pytest.mark.parametrize(("method", "name"), UNREAD)
def test_a_setting_of_another_method_stops_the_run(method: str, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"training.method": method, name: value_of(name)})
    readers = " or ".join(f"'{other}'" for other in sorted(METHODS) if name in {row.name for row in ROWS[other]})
    reason = f"'{name}' is read by method {readers} only, training.method is '{method}'."
    assert reason in str(caught.value)


# For each condition, settings under which it does not hold.
NOT_SO: dict[str, dict[str, Any]] = {
    "training.freeze is last_blocks": {"training.freeze": "full"},
    "training.freeze is lora": {"training.freeze": "full"},
    "training.freeze is last_blocks or lora or full": {"training.freeze": "frozen"},
    "training.init is random": {"training.init": "tree_lda"},
    "training.init is tree_lda": {"training.init": "random"},
    "training.init is random and training.neck is standardised": {
        "training.init": "random",
        "training.neck": "residual",
    },
    "training.init is random and training.neck is standardised or linear": {"training.init": "tree_lda"},
    "training.init is random and training.loss.classification names one on logits": {"training.init": "tree_lda"},
    "training.init is random and training.loss.classification names one on logits and training.probability_share is "
    "above 0": {"training.init": "random", "training.probability_share": 0.0},
    "training.freeze is frozen, training.init is tree_lda or training.cache_activations is true": {
        "training.freeze": "full",
        "training.init": "random",
    },
    "training.loss.contrastive names a loss": {"training.loss.contrastive": ""},
    "training.loss.classification names a loss": {"training.loss.classification": ""},
    "training.loss.contrastive names a loss of the labels of one level": {"training.loss.contrastive": "HiMulConE"},
    "training.init is random and training.loss.classification names one on logits and training.classifier is cosine": {
        "training.init": "random",
        "training.classifier": "linear",
    },
    "training.loss.contrastive and training.loss.classification name losses": {"training.loss.contrastive": ""},
    "training.loss.schedule is coarse_then_fine": {"training.loss.schedule": "joint"},
    "training.batch_size is above 0": {"training.freeze": "frozen", "training.batch_size": 0},
    "training.batch_size is above 0 and training.sampler.kind is hierarchical": {"training.sampler.kind": "shuffle"},
    "training.batch_size is above 0 and training.sampler.kind is hierarchical or class_balanced": {
        "training.sampler.kind": "shuffle"
    },
    "training.freeze is not frozen and training.cache_activations is false": {
        "training.freeze": "last_blocks",
        "training.cache_activations": True,
    },
    "training.views is above 0, or training.freeze is not frozen and training.cache_activations is false": {
        "training.freeze": "last_blocks",
        "training.cache_activations": True,
        "training.views": 0,
    },
    "one of training.probability_shares is above 0": {"training.probability_shares": [0.0]},
    "training.init is tree_lda and one of training.closed_form.probability_shares is above 0": {
        "training.closed_form.probability_shares": [0.0]
    },
    "training.views is above 0 or training.shuffle is true": {"training.views": 0},
    "split.folds is above 0": {"split.folds": 0},
    "split.folds is 0": {"split.folds": 5},
    "evaluation.groups is true": {"evaluation.groups": False},
    **{
        f"evaluation.tasks has '{task}'": {"evaluation.tasks": ["retrieval"]}
        for task in ("clustering", "calibration", "retrieval_index")
    },
    "training.views is above 0": {"training.views": 0},
}


@pytest.mark.parametrize(("method", "row"), CONDITIONAL, ids=lambda value: getattr(value, "name", value))
def test_a_setting_whose_condition_does_not_hold_stops_the_run(method: str, row: Any) -> None:
    settings = {"training.method": method, **NOT_SO[row.condition]}
    load_config(None, settings)
    with pytest.raises(ConfigError) as caught:
        load_config(None, {**settings, row.name: row.value})
    assert f"'{row.name}' is read only where {row.condition}. Leave it out, or change that." in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss.contrastive": "x"}, "'loss.contrastive' is read as 'training.loss.contrastive' by method 'gradient' only, training.method is 'tree_lda'."),
        ({"training.method": "gradient", "loss.contrastive": "x"}, "unknown key 'loss.contrastive'. It is 'training.loss.contrastive'."),
        ({"model.neck": "linear"}, "'model.neck' is read as 'training.neck' by method 'gradient' only, training.method is 'tree_lda'."),
        ({"tree_lda.strengths": [1.0]}, "unknown key 'tree_lda.strengths'. It is 'training.strengths'."),
        ({"protocol.seeds": 3}, "'protocol.seeds' is a setting of a comparison, which has [[models]]."),
        ({"training.method": "tree_ldu"}, "training.method must be one of ['vanilla', 'linear_probe', 'lda', 'tree_lda', 'gradient'], got 'tree_ldu'. Closest: 'tree_lda'."),
    ],
)  # fmt: skip
def test_a_misplaced_setting_says_its_place(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, settings)
    assert message in str(caught.value)


# --- faults ---


def test_all_faults_at_once_with_the_closest_key() -> None:
    faults = {"training.epoch": 5, "training.batch_size": "x", "training.loss.schedule": "late", "foo": 1}
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"training.method": "gradient", **faults})
    message = str(caught.value)
    assert "has 4 fault(s)" in message
    assert "unknown key 'training.epoch'. Closest: 'training.epochs'" in message
    assert "training.batch_size: Input should be a valid integer" in message
    assert "training.loss.schedule: Input should be 'joint' or 'coarse_then_fine', got 'late'" in message
    assert "unknown key 'foo'." in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split.folds": 1}, "folds must be 0 or at least 2 and fold below it, got folds 1, fold 0"),
        ({"split.folds": 3, "split.fold": 3}, "got folds 3, fold 3"),
        ({"split.test_fraction": 0.9, "split.validation_fraction": 0.1}, "must leave something for training"),
        ({"training": 3}, "training"),
        ({"training.views.x": 3}, "training.views"),
        ({"training.method": "gradient", "training.init": "random", "training.neck": "identity"}, "leaves the embedding as it is"),
        ({"training.method": "gradient", "training.loss.contrastive": "", "training.loss.classification": ""}, "at least one of"),
        ({"training.method": "gradient", "training.freeze": "full", "training.batch_size": 0}, "needs freeze = 'frozen'"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_together(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, settings)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none.toml. is neither"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = [")
    with pytest.raises(ConfigError, match="must be a TOML file"):
        load_config(tmp_path / "bad.toml")


def test_flag_values_are_read_as_toml() -> None:
    assert [parse_value(text) for text in ("3", "0.5", "true", "[1]", "coarse")] == [3, 0.5, True, [1], "coarse"]


# --- comparisons ---


def test_each_model_takes_the_shared_settings_that_its_method_reads() -> None:
    shared = {"views": 2, "epochs": 3, "features": "output", "last_blocks": 1}
    models = [*MODELS, {"name": "blocks", "method": "gradient", "set": {"training.freeze": "last_blocks"}}]
    comparison = build_comparison({"models": models, "training": shared, "split": {"seed": 7}})
    configs = {entry.name: model_config(comparison, entry) for entry in comparison.models}
    assert all(config.split.seed == 7 for config in configs.values())
    tree, losses = configs["tree"].training, configs["losses"].training
    assert isinstance(tree, TreeLda) and (tree.views, tree.features) == (1, ("output",))
    assert isinstance(losses, Gradient) and (losses.views, losses.features, losses.epochs) == (2, "output", 3)
    assert "last_blocks" not in to_dict(configs["losses"])["training"]  # frozen
    assert to_dict(configs["blocks"])["training"]["last_blocks"] == 1
    assert to_dict(configs["vanilla"])["training"] == {"method": "vanilla"}


def test_a_shared_table_may_name_a_level_with_a_dot() -> None:
    shared = {"probability_levels": {"ICD 1.0": 2.0}}
    models = [{"name": "a"}, {"name": "b", "set": {"training.probability_levels.fine": 1.0}}]
    comparison = build_comparison({"models": models, "training": shared})
    first, second = (model_config(comparison, entry).training for entry in comparison.models)
    assert isinstance(first, TreeLda) and first.probability_levels == {"ICD 1.0": 2.0}
    assert isinstance(second, TreeLda) and second.probability_levels == {"ICD 1.0": 2.0, "fine": 1.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"models": [{"name": "a"}, {"name": "A"}]}, "the names of models must differ by more than case and encoding"),
        ({"models": [{"name": "\u00e9"}, {"name": "e\u0301"}]}, "must differ by more than case and encoding, got ['\u00e9', "),
        ({"name": "a" * 101}, "name: String should have at most 100 characters"),
        ({"models": [{"name": "a"}], "focus": "b"}, "focus must be one of the models"),
        ({"models": [{"name": "a", "set": {"split.seed": 3}}]}, "model 'a' must not change ['split.seed']: all models share data, split and evaluation."),
        ({"models": [{"name": "a", "set": {"training.method": "lda"}}]}, "model 'a' must give its method by method = '...', not in its set"),
        ({"models": [{"name": "a", "method": "ldu"}]}, "training.method must be one of"),
        ({"models": [{"name": "a", "set": {"training.epochs": 3}}]}, "model 'a' has 1 fault(s):\n  'training.epochs' is read by method 'gradient' only, training.method is 'tree_lda'."),
        ({"models": MODELS[:2], "training": {"epochs": 3}}, "'training.epochs' is read by method 'gradient' only, training.method is 'tree_lda' or 'vanilla'."),
        ({"models": MODELS, "training": {"lora_rank": 3}}, "'training.lora_rank' is read only where training.freeze is lora."),
        ({"models": MODELS, "loss": {"contrastive": "x"}}, "unknown key 'loss.contrastive'. It is 'training.loss.contrastive'."),
        ({"models": MODELS, "protocol": {"new_seeds": False}}, "'protocol.new_seeds' is read only where protocol.repeats is above 1."),
        ({"models": MODELS, "evaluation": {"index_kind": "hnsw"}}, "'evaluation.index_kind' is read only where evaluation.tasks has 'retrieval_index'."),
        ({"models": MODELS, "split": {"folds": 3, "fold": 1}, "protocol": {"every_fold": True}}, "protocol.every_fold tests on every fold: leave split.fold out, got 1"),
        ({"models": MODELS, "protocol": {"every_fold": True}}, "protocol.every_fold needs split.folds of at least 2"),
        ({"models": MODELS, "protocol": {"repeats": 2}}, "protocol.repeats divides the cases anew for every fold: set protocol.every_fold = true"),
        ({"models": 3}, "models: Input should be a valid tuple, got 3."),
    ],
)  # fmt: skip
def test_faults_of_a_comparison(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_comparison(content)
    assert message in str(caught.value)


def test_a_section_without_settings_changes_nothing() -> None:
    empty = {"method": "gradient", "loss": {}, "closed_form": {}}
    assert build_config({"training": empty}) == build_config({"training": {"method": "gradient"}})
    build_comparison({"models": MODELS, "training": {"loss": {}}})
    with pytest.raises(ConfigError, match="unknown key 'training.lozz'"):
        build_comparison({"models": MODELS, "training": {"lozz": {}}})


def test_a_file_of_one_model_and_one_of_several(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text("[training]\nmethod = 'lda'\n")
    (tmp_path / "several.toml").write_text("[[models]]\nname = 'a'\n")
    assert isinstance(load_settings(tmp_path / "one.toml"), Config)
    assert isinstance(load_settings(tmp_path / "several.toml"), Comparison)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split.seed": -1}, "split.seed: Input should be greater than or equal to 0, got -1"),
        ({"training.seed": 10**20}, "training.seed: .*less than 2147483648"),
        ({"evaluation.tasks": []}, "evaluation.tasks: .* at least 1 item"),
    ],
)
def test_seeds_and_tasks_have_bounds(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, settings)
