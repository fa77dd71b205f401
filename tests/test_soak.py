"""A small part of the soak: damaged inputs in every reader that needs no command, and kills of one command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.look_alikes import CHANGES
from benchmarks.soak import fuzz, kills, leaks, readers
from benchmarks.soak.table import FAILURES, Row, printed
from hierderm.config.loading import with_overrides
from hierderm.config.settings import Config
from hierderm.data.table import CaseTable
from hierderm.embeddings import embeddings_of
from hierderm.experiment.run import train
from hierderm.model.colour import ColourHistograms
from hierderm.search.case_index import CaseIndex


def require_no_failure(rows: list[Row]) -> None:
    assert not any(row.counts[failure] for row in rows for failure in FAILURES), printed(rows)


def test_damaged_inputs(toy_folder: Path, toy: CaseTable, tmp_path: Path) -> None:
    shutil.copytree(toy_folder, tmp_path / "toy")
    (tmp_path / "small.toml").write_text(kills.SMALL_COMPARISON)
    table = embeddings_of(ColourHistograms(), toy)
    table.save(tmp_path / "vectors")
    for name, kind in (("index", "flat"), ("hnsw", "hnsw")):
        CaseIndex.from_embeddings(table, toy.taxonomy, kind=kind).save(tmp_path / name)  # type: ignore[arg-type]
    readers.plain_samples(tmp_path)
    targets = readers.targets(tmp_path)
    assert len(targets) >= 15
    rows = fuzz.attack(targets, 200, 0)
    require_no_failure(rows)
    assert sum(row.counts["refused"] for row in rows) > 100


def test_a_failure_is_counted(tmp_path: Path) -> None:
    """The tool itself: a reader without checks fails it."""
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")

    def read(path: Path) -> str:
        return "" if len(pd.read_csv(path).columns) == 2 else "another number of columns"

    (row,) = fuzz.attack([fuzz.Target("careless", tmp_path / "a.csv", read)], 60, 0)
    assert row.counts["wrong"] and row.counts["traceback"]


def test_leaks(toy_folder: Path, toy: CaseTable, toy_config: Config, tmp_path: Path) -> None:
    shutil.copytree(toy_folder, tmp_path / "toy")
    quick = {"training.method": "tree_lda", "training.views": 0, "training.folds": 0}
    train(with_overrides(toy_config, quick), toy, tmp_path / "run")
    rows = leaks.attack(tmp_path, 2 * len(CHANGES) + len(leaks.PLANTED), 0)
    require_no_failure(rows)
    silent = {row.target: row.counts["silent"] for row in rows}
    assert sum(count for target, count in silent.items() if "quality" not in target) <= 2, printed(rows)
    assert all(sum(row.counts.values()) == 1 for row in rows)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of a fork beside threads
def test_kills(tmp_path: Path) -> None:
    chosen = [scenario for scenario in kills.SCENARIOS if scenario.name in ("data csv", "taxonomy from-csv")]
    rows = kills.attack(tmp_path, 4, 0, chosen)
    require_no_failure(rows)
    assert sum(row.counts["survived"] for row in rows) == 4
