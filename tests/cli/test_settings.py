from __future__ import annotations

import re
import shlex
import tomllib
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


@pytest.mark.parametrize(
    ("words", "written"),
    [
        (["{coarse", "=", "1.0}", "three_way"], "{ coarse = 1.0 }"),  # no quotes
        (["coarse=1.0", "fine=0.5"], "{ coarse = 1.0, fine = 0.5 }"),  # braces of bash
        (['{"coarse": 2}'], "{ coarse = 2 }"),  # JSON
        (["{coarse:", "2,", "fine:", "1}", "--name", "x"], "{ coarse = 2, fine = 1 }"),
        (["coarse"], "{ coarse = 1.0, fine = 1.0 }"),  # of that nothing can be made: the default
    ],
)
def test_a_table_that_the_shell_took_apart_is_shown_quoted(words: list[str], written: str) -> None:
    flag = "--training.loss.contrastive_levels"
    with pytest.raises(ConfigError) as caught:
        parse_arguments([flag, *words])
    assert str(caught.value) == (
        f"'{flag}' must be a table of TOML in single quotes, which the shell leaves whole, got '{words[0]}'. "
        f"Write: {flag} '{written}'"
    )
    (right,) = shlex.split(str(caught.value).partition(f"Write: {flag} ")[2])
    assert parse_arguments([flag, right])[1][flag[2:]] == tomllib.loads(f"x = {written}")["x"]


def test_a_list_that_the_shell_took_apart_is_shown_quoted() -> None:
    for words, written in (
        (["[retrieval,knn]"], '\'["retrieval", "knn"]\''),
        (["[retrieval,", "knn]", "x"], '\'["retrieval", "knn"]\''),
    ):
        with pytest.raises(ConfigError, match=re.escape(f"Write: --evaluation.tasks {written}")):
            parse_arguments(["--evaluation.tasks", *words])
    with pytest.raises(ConfigError, match=re.escape("must be a list of TOML in single quotes")):
        parse_arguments(["--models", "[{name", "=", "a}]"])
    for flag, written in (
        ("--training.loss.contrastive_options", "{ name = value }"),
        ("--training.probability_levels", "{ coarse = 0.7, fine = 0.3 }"),  # of the method that has a default
    ):
        with pytest.raises(ConfigError, match=re.escape(f"Write: {flag} '{written}'")):
            parse_arguments([flag, "fine"])


def test_tables_lists_and_their_keys() -> None:
    table = {"training.loss.contrastive_levels": {"coarse": 1.0}, "training.strengths": [3.0, 10.0]}
    given = ["--training.loss.contrastive_levels", "{ coarse = 1.0 }", "--training.strengths", "[3.0, 10.0]"]
    assert parse_arguments(given)[1] == table
    key = {"training.loss.contrastive_levels.coarse": 1.0}  # each key of a table is a flag, too
    assert parse_arguments(["--training.loss.contrastive_levels.coarse", "1.0"])[1] == key
    for text, value in (
        ("layers", "layers"),
        ("layers,output", ["layers", "output"]),
        ('["layers"]', ["layers"]),  # of several in one method, of one in another
    ):
        assert parse_arguments(["--training.features", text])[1] == {"training.features": value}
    assert parse_arguments(["--data.cases", "[a].csv"])[1] == {"data.cases": "[a].csv"}


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
