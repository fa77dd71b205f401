"""A search: what it chooses, that it goes on, that the test is never looked at, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hierderm.cli.main import app
from hierderm.config.loading import load_comparison, load_config, load_tuning, with_overrides
from hierderm.config.settings import Config
from hierderm.data.table import CaseTable
from hierderm.errors import ConfigError
from hierderm.experiment import tune as module
from hierderm.experiment.run import Run, prepare, prepared, train
from hierderm.experiment.tune import Range, tune
from tests.cli.commands import run

RANGES = {"training.shrinkages": Range((), 0.01, 1.0, True), "training.strengths": Range((1, 5, 20))}


@pytest.fixture
def config(toy_config: Config) -> Config:
    quick = {"training.method": "tree_lda", "training.views": 0, "training.folds": 0}
    return with_overrides(toy_config, {**quick, "training.probability_shares": [0.2]})


def frames_alike(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    return one.drop(columns="seconds").equals(other.drop(columns="seconds"))


def test_the_best_on_validation_and_a_search_that_goes_on(config: Config, tmp_path: Path) -> None:
    whole = tune(config, RANGES, tmp_path / "whole", trials=4)
    assert whole.trials["value"].max() == whole.value and len(whole.trials) == 4
    best = load_config(tmp_path / "whole" / "best.toml")
    row = whole.trials.iloc[int(whole.trials["value"].argmax())]
    assert best == whole.config and best.training.shrinkages == (row["training.shrinkages"],)  # type: ignore[union-attr]
    assert load_comparison(tmp_path / "whole" / "best.toml").name == config.name  # compare takes it, too
    assert not any((tmp_path / "whole" / "trials").iterdir())  # what a trial trained is not kept
    for trials in (2, 4):
        parts = tune(config, RANGES, tmp_path / "parts", trials=trials)
    assert frames_alike(parts.trials, whole.trials)
    assert frames_alike(
        tune(config, RANGES, tmp_path / "parts", trials=3).trials, whole.trials
    )  # nothing is left to do
    with pytest.raises(ConfigError, match="holds another search: folds was 0, now 2"):
        tune(config, RANGES, tmp_path / "parts", trials=9, folds=2)


def test_a_trial_that_was_killed_is_tried_again(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, calls = module._score, 0

    def killed(*arguments: Any) -> float:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return score(*arguments)

    whole = tune(config, RANGES, tmp_path / "whole", trials=4)
    monkeypatch.setattr(module, "_score", killed)
    with pytest.raises(KeyboardInterrupt):
        tune(config, RANGES, tmp_path / "broken", trials=4)
    assert frames_alike(tune(config, RANGES, tmp_path / "broken", trials=4).trials, whole.trials)


@pytest.mark.parametrize("folds", [0, 2])
def test_the_test_is_never_looked_at(config: Config, toy_folder: Path, tmp_path: Path, folds: int) -> None:
    """Images of the test are deleted, and its labels changed, after the split: every trial is as before."""
    data = tmp_path / "data"
    shutil.copytree(toy_folder, data)
    mine = with_overrides(config, {"data.cases": str(data / "cases.csv")})
    before = tune(mine, RANGES, tmp_path / "before", trials=2, folds=folds)
    seen: list[CaseTable] = []
    table, _ = prepare(mine.data, mine.split, tmp_path / "same")
    test = table.splits == "test"

    def spoiled(*arguments: Any) -> tuple[CaseTable, Any]:
        made, report = prepared(*arguments)
        for path in np.array(made.paths)[test]:
            Path(path).unlink()
        frame = made.frame.copy()
        frame.loc[test, "condition"] = frame.loc[test, "condition"].iloc[0]
        return replace(made, frame=frame), report

    def watched(config: Config, table: CaseTable, *more: Any) -> Run:
        seen.append(table)
        return train(config, table, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "prepared", spoiled)
        patch.setattr(module, "train", watched)
        after = tune(mine, RANGES, tmp_path / "after", trials=2, folds=folds)
    assert frames_alike(after.trials, before.trials)
    assert all(set(part.splits) == {"train", "validation"} for part in seen) and len(seen) == 2 * max(folds, 1)
    of_test = set(table.case_ids[test])
    assert of_test and not any(of_test & set(part.case_ids) for part in seen)
    if folds:  # each case is validated once
        validated = [case for part in seen[:2] for case in np.unique(part.case_ids[part.splits == "validation"])]
        assert len(validated) == len(set(validated))


def test_settings_that_do_not_fit_together_are_a_failed_trial(config: Config, tmp_path: Path) -> None:
    ranges = {"training.views": Range((0, 2)), "training.augmentation.flips": Range((True, False))}
    with pytest.raises(ConfigError, match="can't be tuned: it must be a setting of training or backbone"):
        tune(config, {"split.seed": Range((1, 2))}, tmp_path, trials=1)
    del ranges["training.augmentation.flips"]
    assert len(tune(config, ranges, tmp_path, minutes=0.001).trials) == 1  # a trial that has begun is finished


@pytest.mark.parametrize(
    ("changes", "ranges", "more", "message"),
    [
        ({}, RANGES, {}, "tune needs a budget"),
        ({}, {}, {"trials": 1}, "needs the range of at least one setting"),
        ({}, RANGES, {"trials": 1, "folds": 1}, "folds must be 0, .* or at least 2, got 1"),
        ({}, {"training.monitor": Range(("a", "b"))}, {"trials": 1}, "'training.monitor' can't be tuned"),
        ({}, {"training.shrinkage": Range((), 0, 1)}, {"trials": 1}, "Closest: 'training.shrinkages'"),
        ({}, {"training.shrinkages": Range((), 0.5, 3)}, {"trials": 1}, "less than or equal to 1"),
        ({"training.method": "vanilla"}, RANGES, {"trials": 1}, "there is nothing to tune"),
    ],
)
def test_what_is_refused(
    toy_config: Config, config: Config, tmp_path: Path, changes: dict[str, Any], ranges: Any, more: Any, message: str
) -> None:
    given = with_overrides(toy_config, changes) if changes else config
    with pytest.raises(ConfigError, match=message):
        tune(given, ranges, tmp_path, **more)


def test_ranges_as_they_are_written() -> None:
    assert Range.parse("1e-4:1e-2:log") == Range((), 1e-4, 1e-2, True)
    assert Range.parse("1:20") == Range((), 1, 20) and isinstance(Range.parse("1:20").low, int)
    assert Range.parse("64, 128") == Range((64, 128)) and Range.parse("frozen,lora").choices == ("frozen", "lora")
    for text in ("3", "", "2:1", "0:1:log", "a:b", "1:2:3"):
        with pytest.raises(ConfigError, match="a range"):
            Range.parse(text)


def test_the_command_with_ranges_in_the_file(config: Config, toy_folder: Path, tmp_path: Path) -> None:
    from hierderm.config.loading import dump_config

    file = tmp_path / "mine.toml"
    file.write_text(dump_config(config) + '\n[tune]\n"training.strengths" = [1, 5]\n')
    assert load_tuning(file, {})[1] == {"training.strengths": "1,5"}
    said = run("tune", file, "--range", "training.shrinkages=0.1:0.5", "--trials", "2", "-o", tmp_path / "out")
    assert "Best of 2 trials" in said and f"hierderm train {tmp_path / 'out' / 'best.toml'}" in said
    with pytest.raises(ConfigError, match=r"tune does not read \['evaluation.seed'\]"):
        run("tune", file, "--evaluation.seed", 1, "--trials", "2")
    file.write_text('[tune]\n"training.strengths" = 3\n')
    with pytest.raises(ConfigError, match="tune.training.strengths: a range must be a text"):
        load_tuning(file, {})
    assert "tune" in {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
