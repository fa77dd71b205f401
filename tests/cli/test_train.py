"""train, embed, compare and inflation as they are typed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hierderm.config.loading import dump_config, with_overrides
from hierderm.config.settings import Config
from hierderm.data.checks import read_cases
from hierderm.embeddings import EmbeddingTable
from hierderm.taxonomy.file import read_taxonomy
from tests.cli.commands import TOY_FLAGS, changed, fails, refusal, run

QUICK = {"training.method": "tree_lda", "training.views": 0, "training.folds": 0}


def test_train_embed_and_evaluate(toy_config: Config, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(dump_config(toy_config))
    out = tmp_path / "run"
    shown = run("train", tmp_path / "config.toml", "-o", out, *TOY_FLAGS[:2])
    assert "model: gradient, epoch 1 (1 of 1, by mean_retrieval); validation: MAP@R coarse 0." in shown
    shown = run("embed", out / "cases.csv", "--model", out / "model", "-o", tmp_path / "e")
    assert "embeddings of length 32" in shown
    evaluated = json.loads(
        run("evaluate", tmp_path / "e", "-t", out / "taxonomy.csv", "--evaluation.bootstrap_rounds", 10, "--json")
    )
    assert evaluated["n_images"] == (pd.read_csv(out / "cases.csv")["split"] == "test").sum()
    shown = run(
        "evaluate",
        tmp_path / "e",
        "-t",
        out / "taxonomy.csv",
        "--cases",
        out / "cases.csv",
        "--evaluation.bootstrap_rounds",
        10,
    )
    assert "MAP@R" in shown
    vanilla = run(
        "embed",
        out / "cases.csv",
        "--model",
        toy_config.backbone.name,
        "-t",
        out / "taxonomy.csv",
        "-o",
        tmp_path / "v",
    )
    assert "embeddings of length 32" in vanilla
    other = run("split", out / "cases.csv", "-t", out / "taxonomy.csv", "-o", tmp_path / "other.csv", "--split.seed", 8)
    assert "train" in other
    assert "the model was trained on split" in fails(
        "evaluate", tmp_path / "e", "-t", out / "taxonomy.csv", "--cases", tmp_path / "other.csv"
    )
    assert "the data have ham10000" in fails(
        "embed", out / "cases.csv", "--model", out / "model", "-t", "ham10000", "-o", tmp_path / "w"
    )
    assert "a backbone without labels needs --taxonomy" in fails(
        "embed", out / "cases.csv", "--model", "timm:x", "-o", tmp_path / "w"
    )


def test_an_external_test_is_checked_for_what_the_model_has_seen(toy_config: Config, tmp_path: Path) -> None:
    quick = with_overrides(toy_config, {**QUICK, "training.views": 1})
    (tmp_path / "config.toml").write_text(dump_config(quick))
    out = tmp_path / "run"
    run("train", tmp_path / "config.toml", "-o", out)
    table = read_cases(out / "cases.csv", read_taxonomy(out / "taxonomy.csv"))
    test, mine = table.part("test"), tmp_path / "mine.csv"
    renamed = test.frame.assign(image_id="m-" + test.frame["image_id"], case_id="m-" + test.frame["case_id"])
    replace(test, frame=renamed.drop(columns="split")).write(mine)
    few = ("--evaluation.bootstrap_rounds", 10)
    assert "the model was trained on split" in fails("evaluate", out, "--cases", mine, *few)
    shown = run("evaluate", out, "--cases", mine, "--external", "error", *few)
    assert shown.strip().startswith(f"{len(test)} test images of ")
    run("embed", mine, "-m", out, "-o", tmp_path / "e", "--external", "error")
    provenance = EmbeddingTable.load(tmp_path / "e").provenance
    assert provenance.external and provenance.split_hash == table.split_hash
    assert run("evaluate", tmp_path / "e", "-t", out / "taxonomy.csv", *few) == shown
    with Image.open(table.part("train").paths[0]) as image:  # the planted leak
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "leak.png")
    leaky = pd.read_csv(mine, dtype=str).drop(columns="image_hash")
    leaky.loc[0, "image_path"] = str(tmp_path / "leak.png")
    leaky.to_csv(tmp_path / "leaky.csv", index=False)
    message = f"image '{leaky['image_id'][0]}': it is the same photograph as a training image."
    for command in (("evaluate", out, "--cases", tmp_path / "leaky.csv", *few), ("embed", tmp_path / "leaky.csv", "-m", out, "-o", tmp_path / "l")):  # fmt: skip
        assert message in fails(*command, "--external", "error")
    shown = run("evaluate", out, "--cases", tmp_path / "leaky.csv", "--external", "exclude", *few)
    left = test.frame["case_id"] != test.frame["case_id"].iloc[0]
    assert shown.strip().startswith(f"{left.sum()} test images of ")
    own = run("evaluate", out, "--cases", out / "cases.csv", *few)  # the run's own test, as it always was
    assert own.strip().startswith(f"{len(test)} test images of ")
    assert "does not record what it was trained on" in fails(
        "embed",
        mine,
        "-m",
        quick.backbone.name,
        "-t",
        out / "taxonomy.csv",
        "-o",
        tmp_path / "b",
        "--external",
        "error",
    )
    assert "a trained model needs --cases" in fails("evaluate", out)
    assert "--external goes with a trained model" in fails(
        "evaluate", tmp_path / "e", "-t", out / "taxonomy.csv", "--external", "error"
    )


def test_inflation(toy_config: Config, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(dump_config(with_overrides(toy_config, QUICK)))
    shown = run("inflation", tmp_path / "c.toml", "-o", tmp_path / "out", "--evaluation.bootstrap_rounds", 10)
    assert shown.startswith("| model | metric | by case | own case allowed | by image | inflation |")
    assert "| toy | fine MAP@R |" in shown


def test_compare(toy_config: Config, tmp_path: Path) -> None:
    models = '\n[[models]]\nname = "vanilla"\nmethod = "vanilla"\n[[models]]\nname = "tree"\n'
    (tmp_path / "c.toml").write_text(dump_config(with_overrides(toy_config, QUICK)) + models)
    few = ("--evaluation.bootstrap_rounds", 10)
    shown = run("compare", tmp_path / "c.toml", "-o", tmp_path / "out", *few)
    assert "2 models on cases.csv: held-out cases" in shown
    outcome, report = shown.rpartition("┘")[2].strip().splitlines()
    assert " has the best value in " in outcome and report.startswith(f"Report: {tmp_path / 'out' / 'report.html'}")
    assert json.loads(run("compare", tmp_path / "c.toml", "-o", tmp_path / "out", *few, "--json"))["name"] == "toy"


def test_a_pdf_without_a_browser_is_refused_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIERDERM_BROWSER", "no-such-browser")
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no display >&2; exit 3\n")
    broken.chmod(0o755)
    for command in (("compare", "experiments/three_way.toml"), ("demo",)):
        monkeypatch.setenv("HIERDERM_BROWSER", "no-such-browser")
        assert "HIERDERM_BROWSER must name a browser" in refusal(*command, "--pdf", "-o", tmp_path / "out")
        monkeypatch.setenv("HIERDERM_BROWSER", str(broken))
        message = refusal(*command, "--pdf", "-o", tmp_path / "out")
        assert f"trial.pdf could not be printed by {broken} (exit code 3: no display). Give another" in message
    assert not (tmp_path / "out").exists()


def test_a_setting_that_the_method_does_not_read(tmp_path: Path) -> None:
    reason = "'loss.contrastive' is read as 'training.loss.contrastive' by method 'gradient' only, training.method is"
    setting = ("--loss.contrastive", "TripletMarginLoss")
    assert f"{reason} 'tree_lda'." in refusal("train", *setting)
    others = "'lda' or 'linear_probe' or 'tree_lda' or 'vanilla'"
    file = tmp_path / "frozen.toml"
    file.write_text(
        "".join(f"[[models]]\nname = '{name}'\nmethod = '{name}'\n" for name in others.replace("'", "").split(" or "))
    )
    assert f"{reason} {others}." in fails("compare", file, *setting)


def test_an_unknown_config_key(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[training]\nepoch = 3\n")
    assert "unknown key 'training.epoch'. Closest: 'training.epochs'" in refusal("train", tmp_path / "c.toml")
    assert "unknown key 'training.epoch'. Closest: 'training.epochs'" in fails("train", "--training.epoch", 3)
    assert "unknown argument '-x'" in fails("train", "-x", 3)
    assert "must be followed by a value" in fails("train", "--training.epochs")


def test_a_missing_and_a_truncated_image(toy_folder: Path, toy_csv: Path, tmp_path: Path) -> None:
    wrong = changed(toy_csv, "missing.csv", image_path="images/none.jpg")
    message = refusal("data", "csv", wrong, "-t", toy_folder / "taxonomy.csv", "-o", tmp_path / "o.csv")
    assert "missing.csv row 2: image 'images/none.jpg': the file does not exist." in message
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(toy_folder / "images" / "cut.jpg")
    content = (toy_folder / "images" / "cut.jpg").read_bytes()
    (toy_folder / "images" / "cut.jpg").write_bytes(content[:700])
    wrong = changed(toy_csv, "cut.csv", image_path="images/cut.jpg")
    message = refusal(
        "compare",
        "three_way",
        "--data.cases",
        wrong,
        "--data.taxonomy",
        toy_folder / "taxonomy.csv",
        "-o",
        tmp_path / "c",
    )
    assert "cut.csv row 2: image 'images/cut.jpg': the image is damaged" in message
    assert "--unreadable exclude" in message


def test_a_case_in_two_splits(toy_folder: Path, toy_csv: Path) -> None:
    frame = pd.read_csv(toy_csv, dtype=str)
    several = frame["case_id"].duplicated(keep=False).to_numpy().nonzero()[0]
    splits = ["train"] * len(frame)
    splits[several[1]] = "test"
    wrong = changed(toy_csv, "twice.csv", split=splits)
    message = refusal(
        "train", "--data.cases", wrong, "--data.taxonomy", toy_folder / "taxonomy.csv", "-o", toy_csv.with_name("t")
    )
    assert "is in two splits, 'train' (row " in message


def test_a_checkpoint_of_another_taxonomy(toy_config: Config, toy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(dump_config(toy_config))
    run("train", tmp_path / "config.toml", "-o", tmp_path / "run", *TOY_FLAGS[:2])
    message = refusal(
        "embed", toy_folder / "cases.csv", "--model", tmp_path / "run" / "model", "-t", "scin", "-o", tmp_path / "e"
    )
    assert "was trained on taxonomy synthetic" in message and "train again on this tree" in message


def test_train_reads_no_setting_of_the_evaluation(tmp_path: Path) -> None:
    message = fails("train", "--evaluation.bootstrap_rounds", 10, "-o", tmp_path / "run")
    assert "train does not read ['evaluation.bootstrap_rounds']. Give them to compare or evaluate." in message
    assert not (tmp_path / "run").exists()
