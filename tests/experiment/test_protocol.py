"""How cases are divided: one split, or every fold of several k-fold splits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hierderm.config.settings import Comparison, ProtocolConfig
from hierderm.experiment.protocol import divide
from hierderm.experiment.results import COMPARISON


def test_one_split(toy_comparison: Comparison, tmp_path: Path) -> None:
    ((one,),) = divide(toy_comparison.data, toy_comparison.split, ProtocolConfig(), tmp_path, COMPARISON)
    assert (one.folder, one.split, one.fold, one.first_seed) == (tmp_path, toy_comparison.split, 0, 0)
    assert one.report is not None and one.report.hash == one.table.split_hash


def test_every_case_is_tested_once_in_each_repeat(toy_comparison: Comparison, tmp_path: Path) -> None:
    protocol = ProtocolConfig(every_fold=True, seeds=2, repeats=2)
    repeats = divide(toy_comparison.data, replace(toy_comparison.split, folds=3), protocol, tmp_path, COMPARISON)
    for repeat, folds in enumerate(repeats):
        tested = [case for fold in folds for case in sorted(set(fold.table.part("test").case_ids))]
        assert len(tested) == len(set(tested)) == 48
        assert [fold.fold for fold in folds] == [0, 1, 2] and {fold.first_seed for fold in folds} == {2 * repeat}
    assert repeats[1][2].folder == tmp_path / "fold-2@1"
    assert repeats[0][0].table.split_hash != repeats[1][0].table.split_hash
    (_, second) = divide(
        toy_comparison.data,
        replace(toy_comparison.split, folds=3),
        replace(protocol, new_seeds=False),
        tmp_path / "same",
        COMPARISON,
    )
    assert {fold.first_seed for fold in second} == {0} and second[0].table.split_hash == repeats[1][0].table.split_hash
