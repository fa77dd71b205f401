"""The data commands and split as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from PIL import Image
from typer.testing import CliRunner

from hierderm.cli.main import app
from tests.cli.commands import changed, fails, refusal, run


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
    again = ("split", tmp_path / "cases.parquet", "-t", tree, "-o", tmp_path / "x.csv", "--split.reuse", "true")
    assert "split does not read ['split.reuse']. It always divides anew." in fails(*again)
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
    assert "SCIN: 1 row(s) left out:\n  SCIN row 3: image '6.png'" in shown.stderr
    (tmp_path / "fitz.csv").write_text("md5hash,fitzpatrick_scale,label,qc\naa,3,acne,\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "aa.jpg")
    assert "1 images" in run(
        "data", "fitzpatrick17k", tmp_path / "fitz.csv", "--images", tmp_path, "-o", tmp_path / "f.csv"
    )


def test_a_misspelt_condition(toy_folder: Path, toy_csv: Path, tmp_path: Path) -> None:
    wrong = changed(toy_csv, "misspelt.csv", condition="confluent pach type 1")
    message = refusal("data", "csv", wrong, "-t", toy_folder / "taxonomy.csv", "-o", tmp_path / "o.csv")
    assert (
        "misspelt.csv row 2: condition 'confluent pach type 1' is not in taxonomy 'synthetic'. Closest: 'confluent patch type 1'"
        in message
    )
    assert not (tmp_path / "o.csv").exists()


def test_an_empty_table_and_a_taxonomy_with_two_parents(toy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    message = refusal("data", "csv", tmp_path / "empty.csv", "-t", "scin", "-o", tmp_path / "o.csv")
    assert "empty.csv: there is no table; it must have a header row and rows below it." in message
    tree = (toy_folder / "taxonomy.csv").read_text() + "condition,confluent patch type 1,scattered wheal,,,,,\n"
    (tmp_path / "tree.csv").write_text(tree)
    message = refusal("taxonomy", "show", tmp_path / "tree.csv")
    assert (
        "line 17: 'confluent patch type 1' has two parents: 'confluent patch' (line 8), 'scattered wheal'." in message
    )


def foreign_table(folder: Path) -> Path:
    """As a spreadsheet in German saves it: Windows-1252, semicolons, decimal commas, names of images without suffix."""
    for place in ("a/b1", "a/b2", "c/b3"):
        (folder / "photos" / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(place), int(place[-1]), 0)).save(folder / "photos" / f"{place}.jpg")
    text = "bild;patient;diagnose;Größe\nb1;p1;Eczma;3,5\nb2;p1;eczema;12\nb3;p2;xyz;1,25\n"
    (folder / "mine.csv").write_bytes(text.replace("bild", "image").encode("cp1252"))
    return folder / "mine.csv"


def test_a_dry_run_leads_to_the_table(tmp_path: Path) -> None:
    mine, out, photos = foreign_table(tmp_path), tmp_path / "cases.csv", tmp_path / "photos"
    start = ["data", "csv", mine, "-t", "scin", "--images", photos, "-o", out]
    shown = run(*start, "--dry-run")
    names = tmp_path / "cases-names.csv"
    for line in (
        "mine.csv: Windows-1252, line 1 is read as: image;patient;diagnose;Größe, cells separated by ';', 3 rows, 4 columns\n",
        "image_path: 'image', proposed\n",
        "case_id: 'patient', proposed\n",
        "condition: 'diagnose', proposed\n",
        "kept as they are: Größe\n",
        "column 'Größe' has decimal commas: '3,5' is read as 3.5.\n",
        "conditions: 3 names, 2 not in taxonomy 'scin': Eczma, xyz\n",
        "table: 1 images of 1 cases, 1 conditions\n",
        f"{names}: correct or empty the nearest conditions there",
        f"then: hierderm data csv {mine} -t scin --images {photos} -o {out} --names {names} --column image_path=image",
    ):
        assert line in shown
    assert not out.exists()
    assert names.read_text(encoding="utf-8").splitlines()[:2] == [
        "name,condition,images,closest",
        'Eczma,Eczema,1,"Eczema|Ecthyma"',
    ]

    assert "exists and would be overwritten" in fails(*start, "--dry-run")  # what may have been edited
    assert "(--replace)" in fails(*start, "--dry-run") and run(*start, "--dry-run", "--replace")
    columns = ["--column", "image_path=image", "--column", "case_id=patient", "--column", "condition=diagnose"]
    assert "condition 'xyz' is not in taxonomy 'scin'" in fails(*start, *columns, "--names", names)
    names.write_text(names.read_text(encoding="utf-8").replace("xyz,", "xyz,Psoriasis"), encoding="utf-8")
    again = json.loads(run(*start, "--dry-run", "--names", names, "--json"))
    assert (again["unknown"], again["faults"]) == ({}, "")
    assert again["columns"] == {"image_path": "image", "case_id": "patient", "condition": "diagnose"}
    made = json.loads(run(*start, *columns, "--names", names, "--json"))
    assert any("'Eczma' as 'Eczema'" in note for note in made["notes"])
    assert "column 'Größe' has decimal commas: '3,5' is read as 3.5." in made["notes"]
    table = pd.read_csv(out, dtype=str)
    assert table["condition"].tolist() == ["Eczema", "Eczema", "Psoriasis"]
    assert table["image_path"].tolist() == ["photos/a/b1.jpg", "photos/a/b2.jpg", "photos/c/b3.jpg"]
    assert table["Größe"].tolist() == ["3.5", "12", "1.25"]


def test_a_dry_run_says_what_must_be_mended(tmp_path: Path) -> None:
    mine = foreign_table(tmp_path)
    start = ["data", "csv", mine, "-t", "scin", "-o", tmp_path / "cases.csv", "--dry-run"]
    shown = run(*start, "--column", "case_id=patient")  # without --images
    assert "case_id: 'patient', as given" in shown
    assert (
        "to be mended first: mine.csv has 1 fault(s):\n  mine.csv row 3: image 'b2': the file does not exist" in shown
    )
    mine.write_text("a,diagnosis\n1,Eczema\n", encoding="utf-8")
    shown = run(*start, "--replace")
    assert "to be mended first: no column for image_path, case_id: name one with --column image_path=YOURS." in shown
    message = fails("data", "csv", mine, "-t", "scin", "-o", tmp_path / "cases.csv")
    assert "Name your own with --column condition=diagnosis" in message


def test_a_named_encoding(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_bytes("image_path,case_id,condition,note\na.png,1,Eczema,éè\n".encode("mac-roman"))
    start = ["data", "csv", tmp_path / "t.csv", "-t", "scin", "-o", tmp_path / "o.csv"]
    run(*start, "--encoding", "mac-roman")
    assert pd.read_csv(tmp_path / "o.csv")["note"].tolist() == ["éè"]
