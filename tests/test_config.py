from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from hierderm.config.loading import build_config, describe_fields, dump_config, load_config, parse_value, with_overrides
from hierderm.errors import ConfigError


def test_defaults_survive_a_round_trip() -> None:
    config = load_config(None, {"models": [{"name": "a", "set": {"training.epochs": 2}}]})
    assert build_config(tomllib.loads(dump_config(config))) == config


def test_flags_lie_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[training]\nepochs = 3\nseed = 4\n")
    config = load_config(path, {"training.epochs": 7})
    assert (config.training.epochs, config.training.seed) == (7, 4)
    assert with_overrides(config, {"loss.contrastive_levels": {"fine": 1}}).loss.contrastive_levels == {"fine": 1.0}


def test_all_faults_at_once_with_the_closest_key() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"training.epoch": 5, "training.batch_size": "x", "loss.schedule": "late", "foo": 1})
    told = str(caught.value)
    assert "has 4 fault(s)" in told
    assert "unknown key 'training.epoch'. Closest: 'training.epochs'" in told
    assert "training.batch_size: Input should be a valid integer" in told
    assert "loss.schedule: Input should be 'joint' or 'coarse_then_fine', got 'late'" in told
    assert "unknown key 'foo'." in told


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split.folds": 1}, "folds must be 0 or at least 2 and fold below it, got folds 1, fold 0"),
        ({"split.folds": 3, "split.fold": 3}, "got folds 3, fold 3"),
        ({"split.test_fraction": 0.9, "split.validation_fraction": 0.1}, "must leave something for training"),
        ({"models": [{"name": "a"}, {"name": "a"}]}, "the names of models must differ"),
        ({"models": [{"name": "a"}], "focus": "b"}, "focus must be one of the models"),
        ({"training": 3}, "training"),
        ({"training.epochs.x": 3}, "training.epochs"),
    ],
)
def test_settings_that_do_not_fit_together(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, settings)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = [")
    with pytest.raises(ConfigError, match="must be a TOML file"):
        load_config(tmp_path / "bad.toml")


def test_every_field_says_what_it_is() -> None:
    described = list(describe_fields())
    assert len({name for name, *_ in described}) == len(described) > 50
    assert all(text for *_, text in described)


def test_flag_values_are_read_as_toml() -> None:
    assert [parse_value(text) for text in ("3", "0.5", "true", "[1]", "coarse")] == [3, 0.5, True, [1], "coarse"]
