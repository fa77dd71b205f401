"""evaluate as it is typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

from hierderm.data.table import CaseTable
from hierderm.search.case_index import CaseIndex
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
    assert f"{len(frame)} test images of 48 cases" in shown and "Balanced accuracy" not in shown
    assert "MAP@R" in shown and "R-precision" not in shown and "more metrics: --all" in shown
    assert len(shown.rpartition("┘")[2].strip().splitlines()) <= 3
    every = run("evaluate", *common, "--all")
    assert "R-precision" in every and "Height of common ancestor, top 10 (less is better)" in every
    assert {"metrics", "groups", "warnings", "details"} <= json.loads((tmp_path / "all.json").read_text()).keys()
    with_probabilities = run(
        "evaluate", *common, "--probabilities", tmp_path / "p.npy", "--evaluation.tasks", "calibration,classification"
    )
    assert "Balanced accuracy" in with_probabilities and "MAP@R" not in with_probabilities
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


def test_evaluate_an_index(toy_csv: Path, toy_folder: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(toy_csv)
    rng = np.random.default_rng(0)
    codes = frame["condition"].astype("category").cat.codes.to_numpy()
    np.save(tmp_path / "x.npy", np.eye(9)[codes] + rng.normal(0, 0.3, (len(frame), 9)))
    index, tree, array = tmp_path / "index", toy_folder / "taxonomy.csv", tmp_path / "x.npy"
    run("index", "build", toy_csv, "-t", tree, "--embeddings", array, "-o", index)
    few = ["--evaluation.bootstrap_rounds", 10]
    shown = run("evaluate", "--index", index, "-k", 3, *few)  # its own cases query it
    title = " ".join(shown.partition("┏")[0].split())
    assert (
        title.startswith(f"48 cases query {len(frame)} of {len(frame)} images of") and "(flat), 3 cases each" in title
    )
    assert "fine MAP@3" in shown and "exact - index" in shown
    assert re.search(r"tree True neighbours@3 +│ 1\.000", shown)
    given = run("evaluate", array, "--cases", toy_csv, "--index", index, "-k", 3, *few, "-o", tmp_path / "i.json")
    assert given == shown  # the same cases, by their embeddings
    content = json.loads((tmp_path / "i.json").read_text())
    assert content["details"]["index"]["kind"] == "flat" and content["n_cases"] == 48
    narrow = run("evaluate", "-i", index, "--where", "monk=1,2,3", "--json", *few)
    assert json.loads(narrow)["details"]["index"]["images_within_filters"] == (frame["monk"] <= 3).sum()

    assert "give --taxonomy, the tree of the conditions, or --index" in fails("evaluate", array, "--cases", toy_csv)
    assert "--splits and --model go with --index" in fails("evaluate", array, "--cases", toy_csv, "-t", tree, "-k", 3)
    assert "its cases vote: no --taxonomy, --probabilities, --external." in fails("evaluate", "-i", index, "-t", tree)
    assert "an .npy file needs --cases" in fails("evaluate", array, "-i", index)
    for unread in ("tasks=knn", "kmeans_seeds=2"):
        message = fails("evaluate", "-i", index, f"--evaluation.{unread}")
        assert f"does not read ['evaluation.{unread.partition('=')[0]}']. An index has its own task." in message
    assert "--splits must name splits of the queries, got 'test'" in fails("evaluate", "-i", index, "--splits", "test")
    assert "a folder of embeddings has its own table" in fails("evaluate", "x", "--cases", toy_csv, "-i", index)


def test_the_model_of_an_index_embeds_the_queries(
    toy: CaseTable, toy_csv: Path, small_siglip: Path, tmp_path: Path
) -> None:
    CaseIndex.build(toy, f"hf:{small_siglip}", splits=("train", "validation"), k=5).save(tmp_path / "index")
    toy.write(toy_csv.with_name("split.csv"), replace=True)
    shown = run(
        "evaluate", "-i", tmp_path / "index", "--cases", toy_csv.with_name("split.csv"), "--splits", "test",
        "--evaluation.bootstrap_rounds", 10,
    )  # fmt: skip
    n_test = len(set(toy.part("test").case_ids))
    assert shown.strip().startswith(f"{n_test} cases query") and "tree Share answered" in shown
