"""A run: its data, one model trained on them, and the folder that holds both."""

from __future__ import annotations

import json
import logging
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
from annotated_types import Ge

from hierderm import columns as c
from hierderm.artifacts import claim_folder, holds, read_header
from hierderm.config.describe import not_default
from hierderm.config.loading import dump_config, load_record, to_dict
from hierderm.config.settings import Config, DataConfig, SplitConfig
from hierderm.data.checks import read_cases
from hierderm.data.seen import Seen
from hierderm.data.splits import SplitReport, split_cases
from hierderm.data.table import CaseTable
from hierderm.embeddings import KIND, EmbeddingTable
from hierderm.errors import CheckpointError, ConfigError, Fault, describe_os_error
from hierderm.experiment.cases import limited, load_cases, tables
from hierderm.files import file_hash, locked, os_faults, require_regular, write_atomically, write_json
from hierderm.json_files import read_json
from hierderm.taxonomy.file import read_taxonomy, write_taxonomy
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Count

if TYPE_CHECKING:
    from hierderm.model.encoder import Encoder
    from hierderm.training.features import FeatureStore

logger = logging.getLogger(__name__)

OF_THE_MACHINE = (
    "workers",
    "cache_images",
    "logger",
    "devices",
    "num_nodes",
    "strategy",
)  # training settings that leave the model as it is
RUN = "run"  # the kind of a folder
PACKAGES = ("hierderm", "torch", "torchvision", "timm", "transformers", "lightning", "scikit-learn", "numpy", "pandas")
AGAIN = "Restore a copy, or train again in another folder."


@dataclass(frozen=True)
class _Data:
    """What `data.json` says: the settings of `prepare`, and how the cases were divided."""

    settings: dict[str, Any]
    split_report: SplitReport | None
    table_hash: str


@dataclass(frozen=True)
class _Finished:
    """What `finished.json` says; `rows`: number of rows of the history."""

    seconds: Annotated[float, Ge(0)]
    rows: Count
    chosen: Count
    by: str


# --- data --------------------------------------------------------------------------------------------------------


def prepare(data: DataConfig, split: SplitConfig, folder: Path | str) -> tuple[CaseTable, SplitReport | None]:
    """The checked and split table of some settings, kept in a folder.

    Args:
        data: Which table, under which tree.
        split: How cases are divided.
        folder: Where `cases.csv`, `taxonomy.csv` and the rows left out are written, and read from the next time.

    Returns:
        The table, and how the cases were divided; None in place of that where the table's own split is kept.

    Raises:
        ConfigError: The folder holds other data, or another split: the results beside it belong to those.
        OutputError: The folder holds something else.
        CaseTableError: The table's faults, all in one message.
    """
    claim_folder(Path(folder), RUN)
    return prepared(data, split, Path(folder))


def prepared(data: DataConfig, split: SplitConfig, folder: Path) -> tuple[CaseTable, SplitReport | None]:
    """As `prepare`, in a claimed folder of any kind."""
    done, stamp = folder / "cases.csv", folder / "data.json"
    inputs = {name: file_hash(path) for name in (*tables(data.cases), data.taxonomy) if (path := Path(name)).is_file()}
    wanted = json.loads(json.dumps({"data": asdict(data), "split": asdict(split), "inputs": inputs}))
    if done.is_file():
        saved = read_json(stamp, _Data, CheckpointError, again=AGAIN)
        if changed := differences(saved.settings, wanted):
            raise ConfigError(
                f"{folder} holds results on other data or another split: {'; '.join(changed)}. Choose another --out, "
                "or delete the folder."
            )
        return _prepared(folder, saved.table_hash), saved.split_report
    table = limited(data, load_cases(data, folder))
    report = None
    if split.reuse and c.SPLIT in table.frame and (table.frame[c.SPLIT] != "").all():
        logger.info("Split: the table's own.")
        if unread := not_default(split, "split"):
            logger.warning("So %s is not read: set split.reuse = false to divide anew.", ", ".join(unread))
    else:
        logger.info("Splitting by case, near-duplicate images together ...")
        table, report = split_cases(table, split)
    settings = {"settings": wanted, "split_report": asdict(report) if report else None}
    write_json(stamp, {**settings, "table_hash": table.table_hash})
    _write_table(table, folder)
    return _prepared(folder, table.table_hash), report


def _write_table(table: CaseTable, folder: Path) -> None:
    write_taxonomy(table.taxonomy, folder / "taxonomy.csv", replace=True)
    write_json(folder / "excluded.json", [asdict(fault) for fault in table.excluded])
    table.write(folder / "cases.csv")  # last: a folder with this file is whole


def _prepared(folder: Path, table_hash: str) -> CaseTable:
    """The table as every later step sees it, the first time and after a resumption alike.

    CheckpointError where images, labels or split are not those of `table_hash`, on which the folder's results are.
    """
    excluded = read_json(folder / "excluded.json", tuple[Fault, ...], CheckpointError, again=AGAIN)
    table = read_cases(folder / "cases.csv", read_taxonomy(folder / "taxonomy.csv"), decode=False)
    if table.table_hash != table_hash:
        raise CheckpointError(
            f"{folder / 'cases.csv'} was changed: its rows, labels, splits or image files are not those that the "
            "results beside it were made on. Restore a copy, or begin anew in another folder."
        )
    return replace(table, excluded=excluded)


# --- training ----------------------------------------------------------------------------------------------------


def train(config: Config, table: CaseTable, folder: Path | str, store: FeatureStore | None = None) -> Run:
    """Train one model in a folder of its own; a killed run goes on, a finished one is opened.

    Args:
        config: The settings; `training` says by which method.
        table: Cases with a split, e.g. from `prepare`.
        folder: The run folder: settings, environment, table, history, and the model in `model`.
        store: Where features of frozen backbones are kept, for runs that share them; by default in `folder`.

    Returns:
        The finished run.

    Raises:
        CheckpointError: The folder holds another run: other settings, another split or another taxonomy; or another
            process trains in it.
        ConfigError: Settings that do not fit the data.
        OutputError: The folder holds something else.
    """
    from hierderm.training.choosing import require_levels
    from hierderm.training.ranks import first_alone, rank, wait_for_all

    folder = Path(folder)
    require_levels({"training": config.training}, table.taxonomy)  # a folder is not for settings that can't be trained
    with first_alone():
        _claim(config, table, folder)
    if (folder / "finished.json").is_file():  # written last: with it the folder is whole
        logger.info("%s: already trained.", config.name)
    else:
        busy = f"{folder} is being trained by another process. Wait until it has ended, or choose another --out."
        alone = locked(folder / "training", timeout=0, error=CheckpointError, busy=busy)
        with alone if rank() == 0 else nullcontext():  # the first process stands for those that train together
            _fit(config, table, folder, store)
    wait_for_all()
    return Run.open(folder)


def _claim(config: Config, table: CaseTable, folder: Path) -> None:
    """Write what a run consists of before it starts; refuse the folder of another run."""
    claim_folder(folder, RUN)
    stamp = folder / "run.json"
    read = {key: value for key, value in to_dict(config).items() if key not in ("name", "evaluation")}
    read["split"] = asdict(config.split)  # whole, as in data.json
    read["training"] = _of_the_model(read["training"])
    del read["backbone"]["engine"]  # it leaves the model as it is, too
    hashes = {"table_hash": table.table_hash, "taxonomy_hash": table.taxonomy.content_hash}
    identity = json.loads(json.dumps({**read, **hashes}))
    if stamp.is_file():
        saved = read_json(stamp, dict[str, Any], CheckpointError, again=AGAIN)
        saved["training"] = _of_the_model(saved.get("training", {}))
        if changed := differences(saved, identity):
            raise CheckpointError(
                f"{folder} holds another run: {'; '.join(changed)}. Choose another --out, or delete the folder."
            )
        return
    write_json(folder / "environment.json", environment())
    write_atomically(folder / "config.toml", dump_config(config))
    if not (folder / "cases.csv").is_file():  # else `prepare` has written it
        _write_table(table, folder)
    write_json(stamp, identity)


def _of_the_model(training: dict[str, Any]) -> dict[str, Any]:
    """The settings of a training that its model depends on."""
    return {key: value for key, value in training.items() if key not in OF_THE_MACHINE}


def differences(saved: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Which values of nested settings differ, by dotted name: 'training.epochs was 5, now 10'."""
    found: list[str] = []
    for key in dict.fromkeys([*saved, *wanted]):
        before, now = saved.get(key), wanted.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += differences(before, now, f"{prefix}{key}.")
        elif before != now:
            texts = [str(side[key]) if key in side else "not set" for side in (saved, wanted)]
            found.append(f"{prefix}{key} was {texts[0]}, now {texts[1]}")
    return found


def _fit(config: Config, table: CaseTable, folder: Path, store: FeatureStore | None) -> None:
    from hierderm.model.checkpoint import save_model
    from hierderm.report.model_card import model_card
    from hierderm.training.features import FeatureStore
    from hierderm.training.fit import fit
    from hierderm.training.ranks import rank

    start = time.monotonic()
    logger.info("%s: training by method '%s' ...", config.name, config.training.method)
    found = fit(config.training, config.backbone, table, store or FeatureStore(folder / "features"), folder)
    if rank() > 0:
        return  # the first process writes
    learnt = found.network.taxonomy is not None
    card = model_card(config, table, found)
    split_hash, seen = (table.split_hash, Seen.of(table)) if learnt else ("", None)
    save_model(found.network, folder / "model", split_hash=split_hash, card=card, seen=seen, replace=True)
    write_atomically(folder / "history.csv", found.history.to_csv(index=False))
    if "train_loss" in found.history:
        from hierderm.plots import history, png

        curves = history({config.name: found.history}, {config.name: found.chosen})
        write_atomically(folder / "curves.png", png(curves))
    seconds = round(time.monotonic() - start, 1)
    choice = {"chosen": found.chosen, "by": found.by}
    write_json(folder / "finished.json", {"seconds": seconds, "rows": len(found.history), **choice})


def _history(path: Path, finished: _Finished) -> pd.DataFrame:
    """The rows of the training; CheckpointError where they are not those that it ended with."""
    try:
        require_regular(path)
        history = pd.read_csv(path)
    except OSError as fault:
        raise CheckpointError(f"{path} can't be read: {describe_os_error(fault)} {AGAIN}") from None
    except ValueError as fault:  # of pandas, all kinds
        raise CheckpointError(f"{path} is damaged ({fault}). {AGAIN}") from None
    foreign = [name for name in history if not pd.api.types.is_numeric_dtype(history[name]) and name != "features"]
    if len(history) != finished.rows or finished.chosen >= finished.rows or foreign:
        raise CheckpointError(
            f"{path} is damaged: it must have {finished.rows} rows of numbers, of which row {finished.chosen} was "
            f"chosen, got {len(history)} rows{f', and text in {foreign}' if foreign else ''}. {AGAIN}"
        )
    return history


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A finished run, read from its folder.

    `history`: a row for each epoch, or for each setting that was tried; `chosen`: the row, from 0, that the model is
    of; `by`: the validation score it was chosen by, '' where nothing was chosen. `seconds`: wall time of the training.
    """

    folder: Path
    config: Config
    history: pd.DataFrame
    chosen: int
    by: str
    seconds: float

    def __repr__(self) -> str:
        by = f", chosen by {self.by}" if self.by else ""
        return f"Run({str(self.folder)!r}, method {self.config.training.method}{by}, {self.seconds:g} s)"

    @classmethod
    @os_faults(CheckpointError)
    def open(cls, folder: Path | str) -> Run:
        """Read a run folder.

        Args:
            folder: What `train` filled.

        Returns:
            The run.

        Raises:
            CheckpointError: It holds no finished run, or a damaged one.
        """
        folder = Path(folder)
        done = folder / "finished.json"
        if not done.is_file():
            raise CheckpointError(f"{folder} must be the folder of a finished run, it has no finished.json.")
        finished = read_json(done, _Finished, CheckpointError, again=AGAIN)
        history = _history(folder / "history.csv", finished)
        return cls(folder, load_record(folder / "config.toml"), history, finished.chosen, finished.by, finished.seconds)

    @cached_property
    def table(self) -> CaseTable:
        """The cases with their split."""
        saved = read_json(self.folder / "run.json", dict[str, Any], CheckpointError, again=AGAIN)
        return _prepared(self.folder, str(saved.get("table_hash")))

    @property
    def taxonomy(self) -> Taxonomy:
        """The tree of the table."""
        return self.table.taxonomy

    @cached_property
    def encoder(self) -> Encoder:
        """The model, read from the run's folder on first use."""
        from hierderm.model.loading import load

        return load(self.folder / "model", engine=self.config.backbone.engine)

    def embeddings(self, store: FeatureStore | None = None) -> EmbeddingTable:
        """The embeddings of the run's table, computed once and kept in its folder.

        Args:
            store: Where the features of the backbone are, if it is frozen; by default in the run's folder.

        Returns:
            The embeddings of all its rows.
        """
        place, key = self.folder / "embeddings", {"table": self.table.table_hash}
        if not (holds(place, KIND) and read_header(place, KIND).content.get("key") == key):
            from hierderm.training.features import FeatureStore, unfinished
            from hierderm.training.fit import is_frozen

            if is_frozen(self.config.training):
                made = (store or FeatureStore(self.folder / "features")).embed(self.encoder, self.table)
            else:
                with unfinished(place) as own:
                    made = own.embed(self.encoder, self.table)
            named = replace(made, provenance=replace(made.provenance, model=self.config.name))
            named.save(place, replace=True, key=key)
        return EmbeddingTable.load(place)


def environment() -> dict[str, str]:
    """Versions and machine, for the run folder and the report."""
    return {"python": sys.version.split()[0], "machine": platform.platform()} | {p: _version(p) for p in PACKAGES}


_version = cache(version)  # it reads files of the package
