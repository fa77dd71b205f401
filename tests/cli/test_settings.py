from __future__ import annotations

from pathlib import Path

import pytest

from hierderm.cli.settings import one_path, parse_arguments, settings_from
from hierderm.errors import ConfigError


def test_words_and_settings() -> None:
    words, settings = parse_arguments(["a.csv", "--split.folds", "5", "--split.reuse=false", "b"], ["split"])
    assert words == ["a.csv", "b"] and settings == {"split.folds": 5, "split.reuse": False}
    assert parse_arguments(None, ["split"]) == ([], {})
    assert parse_arguments(["--split.seed", "-1"], ["split"])[1] == {"split.seed": -1}
    assert settings_from(["--split.near_duplicates", "false"], ["split"]) == {"split.near_duplicates": False}


@pytest.mark.parametrize("name", ["007", "1E5", "2024", "nan", "inf", "true", "1_000"])
def test_a_name_that_looks_like_a_number_stays_a_name(name: str) -> None:
    settings = parse_arguments(["--name", name, f"--data.cases={name}", "--split.seed", "7"])[1]
    assert settings == {"name": name, "data.cases": name, "split.seed": 7}


def test_settings_of_several_values() -> None:
    def tasks(text: str) -> object:
        return parse_arguments(["--evaluation.tasks", text], ["evaluation"])[1]["evaluation.tasks"]

    assert tasks("retrieval") == tasks('["retrieval"]') == ["retrieval"]
    assert tasks("retrieval, knn") == ["retrieval", "knn"]
    every = tasks("all")
    assert isinstance(every, list) and {"retrieval", "few_shot"} <= set(every)


def test_refusals() -> None:
    for arguments, message in (
        (["--split.fold_s", "5"], "unknown argument '--split.fold_s'. Closest: 'split.folds'"),
        (["--folds", "5"], "unknown argument '--folds'. Closest: 'split.folds'"),
        (["--evaluation.seed", "5"], "unknown argument '--evaluation.seed'. List the settings with: hierderm config"),
        (["--split.folds"], "'--split.folds' must be followed by a value"),
        (["-x"], "unknown argument '-x'. List the settings with: hierderm config"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_arguments(arguments, ["split"])
    with pytest.raises(ConfigError, match="unexpected argument 'a.csv'"):
        settings_from(["a.csv"], ["split"])
    with pytest.raises(ConfigError, match="give one table of cases, got none"):
        one_path([], "table of cases")
    with pytest.raises(ConfigError, match="give one table of cases, got .'a', 'b'."):
        one_path(["a", "b"], "table of cases")
    assert one_path(["a"], "table of cases") == Path("a")
