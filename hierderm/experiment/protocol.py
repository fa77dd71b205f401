"""How cases are divided for a comparison or a benchmark: one split, or every fold of a k-fold split, several times."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from hierderm.artifacts import claim_folder
from hierderm.config.settings import DataConfig, ProtocolConfig, SplitConfig
from hierderm.data.splits import SplitReport
from hierderm.data.table import CaseTable
from hierderm.experiment.run import prepared
from hierderm.files import text_hash

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Division:
    """One division of the cases into training, validation and test.

    `folder`: of all that is made on it. `fold`: its number among the folds. `first_seed`: added to `training.seed`.
    """

    folder: Path
    table: CaseTable
    split: SplitConfig | None = None
    report: SplitReport | None = None
    fold: int = 0
    first_seed: int = 0

    @cached_property
    def table_hash(self) -> str:
        """Of all rows of the table, split and labels included, and of the image files."""
        return text_hash(self.table.frame.to_csv(index=False) + self.table.table_hash)


Divisions = Sequence[Sequence[Division]]  # the folds of each repeat


def divide(
    data: DataConfig, split: SplitConfig, protocol: ProtocolConfig, folder: Path, kind: str, *joined: str
) -> list[list[Division]]:
    """The prepared tables of all folds of all repeats below `folder`; one alone without `protocol.every_fold`.

    `kind`, `joined`: of the folder and those of the folds, see `claim_folder`.
    """
    claim_folder(folder, kind, *joined)
    if not protocol.every_fold:
        table, report = prepared(data, split, folder)
        return [[Division(folder, table, split, report)]]
    repeats = []
    for repeat in range(protocol.repeats):
        folds, first_seed = [], repeat * protocol.seeds if protocol.new_seeds else 0
        for fold in range(split.folds):
            logger.info("Fold %d of %d%s:", fold + 1, split.folds, f", repeat {repeat + 1}" if repeat else "")
            own = replace(split, seed=split.seed + repeat, fold=fold, reuse=False)
            place = folder / (f"fold-{fold}" if repeat == 0 else f"fold-{fold}@{repeat}")
            claim_folder(place, kind, *joined)
            table, report = prepared(data, own, place)
            folds.append(Division(place, table, own, report, fold, first_seed))
        repeats.append(folds)
    return repeats
