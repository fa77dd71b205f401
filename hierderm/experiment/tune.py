"""Settings chosen by Optuna on validation, or on inner folds; the test cases are left out before any training."""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.artifacts import claim_folder
from hierderm.config.describe import every_setting
from hierderm.config.loading import dump_config, parse_value, to_dict, with_overrides
from hierderm.config.settings import Config
from hierderm.data.splits import split_cases
from hierderm.data.table import CaseTable
from hierderm.errors import CheckpointError, ConfigError, MissingExtraError, suggest
from hierderm.experiment.run import AGAIN, differences, prepared, train
from hierderm.files import write_atomically, write_json
from hierderm.json_files import read_json

if TYPE_CHECKING:
    from optuna import Study, Trial

    from hierderm.training.features import FeatureStore

TUNING = "tuning"  # the kind of a folder
TUNED = ("training", "backbone")  # sections whose settings make a model another one
FIXED = ("training.method", "training.monitor", "training.seed")  # a range of these would compare different things
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Range:
    """What a setting may be: one of `choices`, or a number from `low` to `high`, on a logarithmic scale with `log`."""

    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    @classmethod
    def parse(cls, text: str) -> Range:
        """Read a range.

        Args:
            text: '1e-4:1e-2:log', '1:20', or 'a,b,c'.

        Returns:
            The range.

        Raises:
            ConfigError: The text is none of these.
        """
        ends = re.fullmatch(r"([^:,]+):([^:,]+?)(:log)?", text.strip())
        if ends is None:
            choices = tuple(parse_value(part.strip()) for part in text.split(",") if part.strip())
            if len(choices) < 2 or ":" in text:
                raise ConfigError(f"a range must be LOW:HIGH, LOW:HIGH:log, or several choices A,B,C, got '{text}'.")
            return cls(choices)
        low, high = parse_value(ends[1]), parse_value(ends[2])
        if not all(isinstance(end, int | float) for end in (low, high)) or low >= high or (ends[3] and low <= 0):
            raise ConfigError(f"a range LOW:HIGH must be numbers, the first less, and above 0 with log, got '{text}'.")
        return cls((), low, high, bool(ends[3]))

    def suggest(self, trial: Trial, name: str) -> Any:
        """Have Optuna choose a value.

        Args:
            trial: Of Optuna.
            name: Of the setting.

        Returns:
            The value.
        """
        if self.choices:
            return trial.suggest_categorical(name, self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        config: The settings of the best trial; `best.toml` in the folder.
        value: Its score on validation, or its mean over the inner folds.
        trials: A row a trial: number, value (nan where it failed), seconds, and each setting; `trials.csv`.
    """

    config: Config
    value: float
    trials: pd.DataFrame


def tune(
    config: Config,
    ranges: Mapping[str, Range],
    folder: Path | str,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    folds: int = 0,
) -> Tuned:
    """Search settings for the best score of `training.monitor`; an interrupted search goes on.

    The test cases are taken out of the table before the first training. Optuna's tree-structured Parzen estimator
    proposes settings (Bergstra et al. 2011); the same seed gives the same trials, broken off or not.

    Args:
        config: All other settings, the data among them.
        ranges: By dotted name of a setting of training or backbone.
        folder: Of the search: its trials, `trials.csv`, and `best.toml` for `hierderm train` and `compare`.
        trials: How many in all, those of earlier calls included.
        minutes: For how long; a trial that has begun is finished. One of the two must be given.
        folds: Inner folds: training and validation cases are divided anew into so many, each validation once; 0 for
            the split's own validation.

    Returns:
        The best settings, and all trials.

    Raises:
        ConfigError: A range that can't be, no budget, or the folder of another search.
        MissingExtraError: Optuna is not installed.
    """
    folder = Path(folder)
    if not trials and not minutes:
        raise ConfigError("tune needs a budget: a number of trials, minutes, or both.")
    if folds == 1 or folds < 0:
        raise ConfigError(f"folds must be 0, for the split's own validation, or at least 2, got {folds}.")
    _check(config, ranges)
    _claim(config, ranges, folds, folder)
    study = _study(folder)
    parts = _divided(prepared(config.data, config.split, folder)[0], config, folds)
    until = time.monotonic() + 60 * (minutes or float("inf"))
    while (trials is None or len(_done(study)) < trials) and time.monotonic() < until:
        _one_trial(study, config, ranges, parts, folder)
    return _result(study, config, ranges, folder)


def _check(config: Config, ranges: Mapping[str, Range]) -> None:
    known = {row.name for row in every_setting() if row.name.split(".")[0] in TUNED} - set(FIXED)
    if not ranges:
        raise ConfigError("tune needs the range of at least one setting, e.g. training.learning_rate=1e-4:1e-2:log.")
    if config.training.method == "vanilla":
        raise ConfigError("training.method = 'vanilla' learns nothing: there is nothing to tune.")
    for name, range_ in ranges.items():
        if name not in known:
            closest = suggest(name, known)
            raise ConfigError(f"'{name}' can't be tuned: it must be a setting of {' or '.join(TUNED)}.{closest}")
        for value in range_.choices or (range_.low, range_.high):
            _with(config, {name: value}, alone=True)


def _with(config: Config, values: Mapping[str, Any], *, alone: bool = False) -> Config:
    """The settings of a trial; a number for a setting that holds several is the only one.

    `alone`: of a range's ends, each by itself, where only faults of its own count.
    """
    several = {row.name for row in every_setting() if isinstance(row.value, tuple)}
    given = {name: [v] if name in several and not isinstance(v, list) else v for name, v in values.items()}
    try:
        return with_overrides(config, given, source="the range")
    except ConfigError as error:
        if alone and "is read only where" in str(error):  # another range may make it so
            return config
        raise


def _claim(config: Config, ranges: Mapping[str, Range], folds: int, folder: Path) -> None:
    claim_folder(folder, TUNING)
    stamp = folder / "tune.json"
    settings = {key: value for key, value in to_dict(config).items() if key not in ("name", "evaluation")}
    asked = {"settings": settings, "ranges": {name: asdict(r) for name, r in ranges.items()}, "folds": folds}
    asked = json.loads(json.dumps(asked))  # as it is read again
    if not stamp.is_file():
        write_json(stamp, asked)
    if changed := differences(read_json(stamp, dict[str, Any], CheckpointError, again=AGAIN), asked):
        raise ConfigError(f"{folder} holds another search: {'; '.join(changed)}. Choose another --out.")


def _divided(table: CaseTable, config: Config, folds: int) -> list[CaseTable]:
    """The tables to train on, without the test cases: one, or one an inner fold."""
    rest = table.select(table.splits != c.TEST)
    if not folds:
        return [rest]
    tables = []
    for fold in range(folds):
        inner = replace(config.split, folds=folds, fold=fold, validation_fraction=0.0, reuse=False)
        divided, _ = split_cases(rest, inner)
        names = np.where(divided.splits == c.TEST, c.VALIDATION, c.TRAIN)
        tables.append(replace(divided, frame=divided.frame.assign(split=names)))
    return tables


def _study(folder: Path) -> Study:
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ModuleNotFoundError:
        raise MissingExtraError("hierderm tune", "tune") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.log")))
    study = optuna.create_study(storage=storage, study_name="tune", direction="maximize", load_if_exists=True)
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # of a search that was broken off
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def _done(study: Study) -> list[Any]:
    """The trials that ended: with a value, or with settings that do not fit together."""
    from optuna.trial import TrialState

    return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))


def _one_trial(study: Study, config: Config, ranges: Mapping[str, Range], parts: list[CaseTable], folder: Path) -> None:
    import optuna

    from hierderm.training.features import FeatureStore

    done = len(_done(study))
    study.sampler = optuna.samplers.TPESampler(seed=done, n_startup_trials=4)  # a broken search goes on alike
    trial = study.ask()
    values = {name: range_.suggest(trial, name) for name, range_ in ranges.items()}
    place = folder / "trials" / f"{trial.number:04d}"
    try:
        chosen = _with(config, values)
        store = FeatureStore(folder / "features")  # frozen features are those of every trial
        score = float(np.mean([_score(chosen, part, place / f"{n}", store) for n, part in enumerate(parts)]))
    except ConfigError as error:
        logger.warning("Trial %d: %s: %s", done + 1, values, error)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    else:
        logger.info("Trial %d: %s %.4f with %s", done + 1, _monitor(config), score, values)
        study.tell(trial, score)
    if place.is_dir():
        shutil.rmtree(place)
    _write_trials(study, ranges, folder)


def _score(config: Config, part: CaseTable, place: Path, store: FeatureStore) -> float:
    run = train(config, part, place, store)
    score = float(run.history.iloc[run.chosen][_monitor(config)])
    if np.isnan(score):
        raise ConfigError(f"{_monitor(config)} is undefined: no validation image has another case of its node to find.")
    return score


def _monitor(config: Config) -> str:
    return str(getattr(config.training, "monitor", "mean_retrieval"))


def _write_trials(study: Study, ranges: Mapping[str, Range], folder: Path) -> pd.DataFrame:
    rows = [
        {
            "trial": number,
            "value": np.nan if trial.value is None else trial.value,
            "seconds": round(trial.duration.total_seconds(), 1),
            **{name: trial.params[name] for name in ranges},
        }
        for number, trial in enumerate(_done(study), start=1)
    ]
    frame = pd.DataFrame(rows)
    write_atomically(folder / "trials.csv", frame.to_csv(index=False))
    return frame


def _result(study: Study, config: Config, ranges: Mapping[str, Range], folder: Path) -> Tuned:
    frame = _write_trials(study, ranges, folder)
    if frame.empty or frame["value"].isna().all():
        raise ConfigError(f"no trial has a score; what was tried is in {folder / 'trials.csv'}. Change the ranges.")
    best = _with(config, study.best_trial.params)
    write_atomically(folder / "best.toml", dump_config(best))
    return Tuned(best, float(study.best_value), frame)
