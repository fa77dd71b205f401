"""The commands as a new user gives them: what they print, and how they refuse bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from hierderm.cli.main import app
from hierderm.config.loading import dump_config
from hierderm.config.settings import Config
from hierderm.errors import HierdermError

TOY_FLAGS = ["--training.epochs", "1", "--evaluation.bootstrap_rounds=10"]


def run(*arguments: object) -> str:
    """Standard output of a command that must succeed."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*arguments: object) -> str:
    """What a real process prints when it refuses: exit code 1, no traceback."""
    command = [sys.executable, "-m", "hierderm.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def fails(*arguments: object) -> str:
    """As `refusal`, in this process: faster."""
    with pytest.raises(HierdermError) as caught:
        CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    return str(caught.value)


@pytest.fixture
def toy_csv(toy_folder: Path) -> Path:
    return toy_folder / "cases.csv"


def changed(toy_csv: Path, name: str, **columns: object) -> Path:
    frame = pd.read_csv(toy_csv, dtype=str, keep_default_na=False)
    for column, value in columns.items():
        frame[column] = value if isinstance(value, list) else [value, *frame[column][1:]]
    path = toy_csv.with_name(name)
    frame.to_csv(path, index=False)
    return path


# --- taxonomy ---


def test_taxonomy_commands(tmp_path: Path) -> None:
    assert "16 x category, 230 x condition" in run("taxonomy", "list")
    shown = run("taxonomy", "show", "scin")
    assert "Viral Infections\n" in shown and "  Herpes Zoster  [ICD-10 B02.9, SNOMED 4740000]" in shown
    assert len(json.loads(run("taxonomy", "show", "scin", "--json"))["nodes"]) == 246
    assert run("taxonomy", "find", "fitzpatrick17k", "Scabies") == "non-neoplastic > inflammatory > scabies\n"
    mine = tmp_path / "mine.csv"
    mine.write_text("diagnosis,group\nEczema,Eczemas\nImpetigo,Infections\nEczema,Eczemas\n")
    tree = tmp_path / "tree.csv"
    assert "2 x group, 2 x diagnosis" in run("taxonomy", "from-csv", mine, "--levels", "group,diagnosis", "-o", tree)
    assert run("taxonomy", "find", tree, "impetigo") == "Infections > Impetigo\n"
    assert "has no column 'grup'. Closest: 'group'" in fails(
        "taxonomy", "from-csv", mine, "--levels", "grup,diagnosis", "-o", tmp_path / "no.csv"
    )
    mine.write_text("diagnosis,group\nEczema,Eczemas\nEczema,Infections\nAcne,\n")
    assert "row(s) 4 have an empty one" in fails(
        "taxonomy", "from-csv", mine, "--levels", "group,diagnosis", "-o", tmp_path / "no.csv"
    )
    mine.write_text("diagnosis,group\nEczema,Eczemas\nEczema,Infections\n")
    assert "has two parents" in fails(
        "taxonomy", "from-csv", mine, "--levels", "group,diagnosis", "-o", tmp_path / "no.csv"
    )


# --- data and split ---


def test_data_csv_and_split(toy_folder: Path, toy_csv: Path, tmp_path: Path) -> None:
    tree = toy_folder / "taxonomy.csv"
    made = json.loads(run("data", "csv", toy_csv, "-t", tree, "-o", tmp_path / "cases.parquet", "--json"))
    assert (made["cases"], made["conditions"], made["excluded"]) == (48, 9, [])
    report = json.loads(run("split", tmp_path / "cases.parquet", "-t", tree, "-o", tmp_path / "split.csv", "--json"))
    assert sum(report["cases"].values()) == 48
    folds = run(
        "split",
        tmp_path / "cases.parquet",
        "-t",
        tree,
        "-o",
        tmp_path / "fold.csv",
        "--split.folds",
        4,
        "--split.fold",
        1,
    )
    assert "hash: " in folds
    assert set(pd.read_csv(tmp_path / "split.csv")["split"]) == {"train", "validation", "test"}


def test_data_folder(tmp_path: Path) -> None:
    for where in ("A/x", "B/y"):
        (tmp_path / "photos" / where).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / where / "p1_a.jpg")
    shown = run("data", "folder", tmp_path / "photos", "-o", tmp_path / "cases.csv")
    assert "2 images of 2 cases, 2 conditions" in shown
    assert run("taxonomy", "find", tmp_path / "cases-taxonomy.csv", "y") == "B > y\n"


def test_data_synthetic(tmp_path: Path) -> None:
    assert run("data", "synthetic", tmp_path / "s", "--preset", "toy", "--seed", 4).strip().endswith("cases.csv")


def test_scin_and_fitzpatrick17k_commands(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "5.png")
    (tmp_path / "scin_cases.csv").write_text(
        "case_id,image_1_path,image_2_path,image_3_path\n-7,dataset/images/5.png,dataset/images/6.png,\n"
    )
    (tmp_path / "scin_labels.csv").write_text(
        "case_id,weighted_skin_condition_label,dermatologist_skin_condition_on_label_name\n-7,{'Eczema': 1.0},['Eczema']\n"
    )
    out = tmp_path / "scin.csv"
    assert "SCIN row 3: image '6.png': the file does not exist." in fails("data", "scin", tmp_path, "-o", out)
    shown = CliRunner().invoke(app, ["data", "scin", str(tmp_path), "-o", str(out), "--unreadable", "exclude"])
    assert "1 images of 1 cases" in shown.stdout
    assert "left out: SCIN row 3: image '6.png'" in shown.stderr
    (tmp_path / "fitz.csv").write_text("md5hash,fitzpatrick_scale,label,qc\naa,3,acne,\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "aa.jpg")
    assert "1 images" in run(
        "data", "fitzpatrick17k", tmp_path / "fitz.csv", "--images", tmp_path, "-o", tmp_path / "f.csv"
    )


# --- models ---


def test_train_embed_and_evaluate(toy_config: Config, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(dump_config(toy_config))
    out = tmp_path / "run"
    shown = run("train", tmp_path / "config.toml", "-o", out, *TOY_FLAGS)
    assert "model: gradient, epoch 1 (1 of 1); validation MAP@R: coarse 0." in shown
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
    assert "fine MAP@R" in shown
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
    assert "either --model or --backbone" in fails("embed", out / "cases.csv", "-o", tmp_path / "w")
    assert "a backbone without labels needs --taxonomy" in fails(
        "embed", out / "cases.csv", "--model", "timm:x", "-o", tmp_path / "w"
    )


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
    assert "By monk: coarse Recall@1 is worst for" in by_monk
    assert "an .npy file needs --cases" in fails("evaluate", tmp_path / "x.npy", "-t", "scin")
    assert "Closest: 'retrieval'" in fails("evaluate", *common, "--evaluation.tasks", "retreival")
    np.save(tmp_path / "x.npy", np.zeros((3, 9)))
    assert "a row for each of the" in refusal("evaluate", *common)


def test_inflation(toy_config: Config, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(dump_config(toy_config))
    shown = run("inflation", tmp_path / "c.toml", "-o", tmp_path / "out", *TOY_FLAGS)
    assert shown.startswith("| model | metric | by case | own case allowed | by image | inflation |")
    assert "| toy | fine MAP@R |" in shown


def test_compare(toy_config: Config, tmp_path: Path) -> None:
    text = dump_config(toy_config) + '\n[[models]]\nname = "vanilla"\nmethod = "vanilla"\n[[models]]\nname = "tree"\n'
    (tmp_path / "c.toml").write_text(text)
    shown = run("compare", tmp_path / "c.toml", "-o", tmp_path / "out", *TOY_FLAGS)
    assert "Report: " in shown and "tree against vanilla" in shown
    assert (
        json.loads(run("compare", tmp_path / "c.toml", "-o", tmp_path / "out", *TOY_FLAGS, "--json"))["name"] == "toy"
    )


def test_config_lists_every_setting_and_checks_a_file(tmp_path: Path) -> None:
    listed = run("config", "--method", "gradient")
    assert "epochs = 12  # passes over the training images, at most" in listed and "strengths" not in listed
    assert "strengths = " in run("config") and "epochs" not in run("config")
    (tmp_path / "all.toml").write_text(listed)
    assert "[training]" in run("config", tmp_path / "all.toml")
    assert "[[models]]" in run("config", "experiments/three_way.toml")
    assert "training.method must be one of" in fails("config", "--method", "x")
    assert "either a file, which names its method, or --method" in fails(
        "config", tmp_path / "all.toml", "--method", "lda"
    )


def test_a_setting_that_the_method_does_not_read() -> None:
    reason = "'loss.contrastive' is read as 'training.loss.contrastive' by method 'gradient' only, training.method is"
    setting = ("--loss.contrastive", "TripletMarginLoss")
    assert f"{reason} 'tree_lda'." in refusal("train", *setting)
    others = "'lda' or 'linear_probe' or 'tree_lda' or 'vanilla'"
    assert f"{reason} {others}." in fails("compare", "experiments/three_way.toml", *setting)


# --- bad input, as a new user would try it: a real process, exit code 1, no traceback ---


def test_a_misspelt_condition(toy_folder: Path, toy_csv: Path, tmp_path: Path) -> None:
    wrong = changed(toy_csv, "misspelt.csv", condition="confluent pach type 1")
    message = refusal("data", "csv", wrong, "-t", toy_folder / "taxonomy.csv", "-o", tmp_path / "o.csv")
    assert (
        "misspelt.csv row 2: condition 'confluent pach type 1' is not in taxonomy 'synthetic'. Closest: 'confluent patch type 1'"
        in message
    )
    assert not (tmp_path / "o.csv").exists()


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
        "experiments/three_way.toml",
        "--data.cases",
        wrong,
        "--data.taxonomy",
        toy_folder / "taxonomy.csv",
        "-o",
        tmp_path / "c",
    )
    assert "cut.csv row 2: image 'images/cut.jpg': the picture is damaged" in message
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


def test_an_unknown_config_key(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[training]\nepoch = 3\n")
    assert "unknown key 'training.epoch'. Closest: 'training.epochs'" in refusal("train", tmp_path / "c.toml")
    assert "unknown key 'training.epoch'. Closest: 'training.epochs'" in fails("train", "--training.epoch", 3)
    assert "unknown argument '-x'" in fails("train", "-x", 3)
    assert "must be followed by a value" in fails("train", "--training.epochs")


def test_an_empty_table_and_a_taxonomy_with_two_parents(toy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    message = refusal("data", "csv", tmp_path / "empty.csv", "-t", "scin", "-o", tmp_path / "o.csv")
    assert "empty.csv: the file is empty; it must have a header row and a row an image." in message
    tree = (toy_folder / "taxonomy.csv").read_text() + "condition,confluent patch type 1,scattered wheal,,,,,\n"
    (tmp_path / "tree.csv").write_text(tree)
    message = refusal("taxonomy", "show", tmp_path / "tree.csv")
    assert (
        "line 17: 'confluent patch type 1' has two parents: 'confluent patch' (line 8), 'scattered wheal'." in message
    )


def test_a_checkpoint_of_another_taxonomy(toy_config: Config, toy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(dump_config(toy_config))
    run("train", tmp_path / "config.toml", "-o", tmp_path / "run", *TOY_FLAGS)
    message = refusal(
        "embed", toy_folder / "cases.csv", "--model", tmp_path / "run" / "model", "-t", "scin", "-o", tmp_path / "e"
    )
    assert "was trained on taxonomy synthetic" in message and "train again on this tree" in message


def test_help_of_every_command_has_an_example() -> None:
    for arguments in (["train"], ["embed"], ["evaluate"], ["compare"], ["inflation"], ["bench", "run"], ["bench", "table"], ["split"], ["config"], ["data", "csv"],
                      ["data", "folder"], ["data", "scin"], ["taxonomy", "show"], ["taxonomy", "from-csv"]):  # fmt: skip
        assert "Example:" in run(*arguments, "--help")
    assert run("--version").startswith("hierderm ")


def test_what_the_system_refuses_is_a_message(toy_csv: Path) -> None:
    message = refusal("taxonomy", "from-csv", toy_csv, "--levels", "condition", "-o", "/proc/none/tree.csv")
    assert message == "Error: /proc/none: No such file or directory. Check the path.\n"
