"""evaluate as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from tests.cli.commands import fails, refusal, run


def test_evaluate_an_external_array(toy_csv: Path, toy_folder: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(toy_csv)
    rng = np.random.default_rng(0)
    codes = frame["condition"].astype("category").cat.codes.to_numpy()
    np.save(tmp_path / "x.npy", np.eye(9)[codes] + rng.normal(0, 0.3, (len(frame), 9)))
    np.save(tmp_path / "p.npy", np.full((len(frame), 9), 1 / 9))
    mine = tmp_path / "mine.csv"
    frame[["case_id", "condition"]].to_csv(mine, index=False)  # no image, no id, no split
    common = [
        tmp_path / "x.npy",
        "--cases",
        mine,
        "-t",
        toy_folder / "taxonomy.csv",
        "--evaluation.bootstrap_rounds",
        10,
    ]
    shown = run("evaluate", *common, "-o", tmp_path / "all.json")
    assert f"{len(frame)} test images of 48 cases" in shown and "fine Balanced accuracy" not in shown
    assert {"metrics", "groups", "warnings", "details"} <= json.loads((tmp_path / "all.json").read_text()).keys()
    with_probabilities = run(
        "evaluate", *common, "--probabilities", tmp_path / "p.npy", "--evaluation.tasks", "calibration,classification"
    )
    assert "fine Balanced accuracy" in with_probabilities and "MAP@R" not in with_probabilities
    by_monk = run(
        "evaluate",
        tmp_path / "x.npy",
        "--cases",
        toy_csv,
        "-t",
        toy_folder / "taxonomy.csv",
        "--evaluation.bootstrap_rounds",
        10,
    )
    assert "By monk: coarse Recall@1: worst in" in by_monk
    assert "an .npy file needs --cases" in fails("evaluate", tmp_path / "x.npy", "-t", "scin")
    assert "Closest: 'retrieval'" in fails("evaluate", *common, "--evaluation.tasks", "retreival")
    np.save(tmp_path / "x.npy", np.zeros((3, 9)))
    assert "a row for each of the" in refusal("evaluate", *common)
