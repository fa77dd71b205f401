"""What each loader of a published table makes of its miniature, by hand, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hierderm import columns as c
from hierderm.data.loaders.ddi import read_ddi
from hierderm.data.loaders.derm7pt import read_derm7pt
from hierderm.data.loaders.ham10000 import read_ham10000
from hierderm.data.loaders.isic import read_isic
from hierderm.data.loaders.isic_challenge import read_isic_challenge
from hierderm.data.loaders.pad_ufes import read_pad_ufes
from hierderm.data.loaders.registry import loader_of, read_from
from hierderm.errors import CaseTableError, ConfigError
from tests.data.loaders import miniatures as mini


def changed(path: Path, **columns: str) -> None:
    """Write other values into the first row of a table."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name, value in columns.items():
        frame.loc[0, name] = value
    frame.rename(columns={"Unnamed: 0": ""}).to_csv(path, index=False)


def test_ham10000(tmp_path: Path) -> None:
    mini.write_ham10000(tmp_path)
    table = read_ham10000(tmp_path).checked()
    row = table.frame.iloc[1]
    assert (row[c.IMAGE_ID], row[c.CASE_ID], row[c.CONDITION]) == ("ISIC_0024307", "HAM_0000001", "melanocytic nevi")
    assert row[c.IMAGE_PATH] == "HAM10000_images_part_2/ISIC_0024307.jpg" and row[c.BODY_SITE] == "back"
    assert table.frame[c.CASE_ID].nunique() == 3 * mini.N_CASES
    assert {"dx_type", "age", "sex", "dataset"} <= set(table.frame)
    (tmp_path / "HAM10000_metadata.csv").rename(tmp_path / "HAM10000_metadata")  # as the Dataverse has it
    assert len(read_ham10000(tmp_path).frame) == len(table)


def test_isic(tmp_path: Path) -> None:
    n_images = mini.write_isic(tmp_path)
    found = read_isic(tmp_path)
    assert found.left_out == {"image(s) without a diagnosis": ["ISIC_9999999"]}
    assert found.counts == {"images_without_lesion": 4}
    frame = found.checked().frame
    assert len(frame) == n_images and frame[c.CASE_ID].nunique() == 3 * mini.N_CASES
    assert frame[c.CASE_ID].tolist()[:3] == ["ISIC_0000000", "IL_0000001", "IL_0000001"]
    assert set(frame[c.CONDITION]) == {"Nevus", "Melanoma, NOS", "Benign soft tissue proliferations - Vascular"}
    assert frame[c.FITZPATRICK].tolist()[0] == 2 and frame[c.BODY_SITE].tolist()[0] == "anterior torso"
    patients = read_isic(tmp_path, case="patient").frame
    assert patients[c.CASE_ID].nunique() == 3 * mini.N_CASES // 2 and "lesion_id" in patients


@pytest.mark.parametrize(
    ("column", "value", "condition"),
    [
        ("diagnosis", "nevus", "Nevus"),
        ("diagnosis", "actinic keratosis", "Solar or actinic keratosis"),
        ("diagnosis", "vascular lesion", "Benign soft tissue proliferations - Vascular"),
        ("benign_malignant", "malignant", "Malignant"),
    ],
)
def test_isic_of_before_the_levels(tmp_path: Path, column: str, value: str, condition: str) -> None:
    mini.table(tmp_path / "metadata.csv", ("isic_id", column), [{"isic_id": "ISIC_1", column: value}])
    mini.image(tmp_path / "ISIC_1.jpg", 0, 0)
    assert read_isic(tmp_path).checked().frame[c.CONDITION].tolist() == [condition]


def test_isic_challenge_of_2018(tmp_path: Path) -> None:
    n_images = mini.write_isic_challenge(tmp_path)
    found = read_isic_challenge(tmp_path)
    frame = found.checked().frame
    assert len(frame) == n_images and found.counts == {"images_without_lesion": 0}
    row = frame.iloc[1]
    assert (row[c.IMAGE_ID], row[c.CASE_ID], row[c.CONDITION]) == ("ISIC_0024307", "HAM_0000001", "melanoma")
    assert row["diagnosis_confirm_type"] == "histopathology" and not set(mini.ISIC_2018[1:]) & set(frame)
    conditions = ["melanoma", "melanocytic nevi", "actinic keratoses and intraepithelial carcinoma"]
    assert frame[c.CONDITION].drop_duplicates().tolist() == conditions
    (tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv").unlink()
    assert read_isic_challenge(tmp_path).counts == {"images_without_lesion": n_images}
    truth = tmp_path / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv"
    changed(truth, MEL="0.0")
    with pytest.raises(CaseTableError, match=r"Training_GroundTruth\.csv row 2: one class must be 1, got none"):
        read_isic_challenge(tmp_path)
    changed(truth, MEL="1.0", DF="1", VASC="0.5")
    with pytest.raises(CaseTableError, match=r"row 2: classes must be 0 or 1, got VASC = '0\.5'"):
        read_isic_challenge(tmp_path)
    changed(truth, VASC="0")
    with pytest.raises(CaseTableError, match="row 2: one class must be 1, got MEL, DF"):
        read_isic_challenge(tmp_path)
    with pytest.raises(CaseTableError, match="is of an ISIC challenge. Read it with: hierderm data isic_challenge"):
        read_isic(truth)
    mini.table(tmp_path / "ISIC2018_Task3_Test_GroundTruth.csv", mini.ISIC_2018, [])
    with pytest.raises(
        CaseTableError, match=r"must hold one published table, it has \['ISIC2018_Task3_Test_GroundTruth"
    ):
        read_isic_challenge(tmp_path)


def test_isic_challenge_of_2019(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"image": f"ISIC_{number}{end}", **dict.fromkeys(mini.ISIC_2019[1:], "0.0"), code: "1.0"}
        for number, (code, end) in enumerate([("AK", ""), ("SCC", "_downsampled"), ("UNK", ""), ("NV", "")])
    ]
    about: list[dict[str, object]] = [
        {"image": "ISIC_0", "age_approx": "55.0", "anatom_site_general": "anterior torso", "lesion_id": "BCN_0000001"},
        {"image": "ISIC_3", "sex": "female"},
    ]
    mini.table(tmp_path / "ISIC_2019_Training_GroundTruth.csv", mini.ISIC_2019, rows)
    columns = ("image", "age_approx", "anatom_site_general", "lesion_id", "sex")
    mini.table(tmp_path / "ISIC_2019_Training_Metadata.csv", columns, about)
    for number, row in enumerate(rows):
        mini.image(tmp_path / "ISIC_2019_Training_Input" / f"{row['image']}.jpg", 0, number)
    found = read_isic_challenge(tmp_path / "ISIC_2019_Training_GroundTruth.csv")
    assert found.left_out == {"image(s) of none of the classes (UNK)": ["ISIC_2"]}
    frame = found.checked().frame
    assert frame[c.CONDITION].tolist() == ["actinic keratosis", "squamous cell carcinoma", "melanocytic nevi"]
    assert frame[c.CASE_ID].tolist() == ["BCN_0000001", "ISIC_1_downsampled", "ISIC_3"]
    assert frame[c.BODY_SITE].tolist() == ["anterior torso", "", ""] and found.counts == {"images_without_lesion": 3}
    with pytest.raises(CaseTableError, match=r"must have a column for each class, of \['MEL'.*; it has \['NV'\]"):
        mini.table(tmp_path / "x_GroundTruth.csv", ("image", "NV"), [])
        read_isic_challenge(tmp_path / "x_GroundTruth.csv")


def test_pad_ufes(tmp_path: Path) -> None:
    mini.write_pad_ufes(tmp_path)
    frame = read_pad_ufes(tmp_path).checked().frame
    assert frame[c.CASE_ID].tolist()[:3] == ["PAT_0", "PAT_1", "PAT_1"]
    assert frame[c.IMAGE_PATH].tolist()[1] == "images/imgs_part_2/PAT_1_882_1.png"
    assert frame[c.IMAGE_ID].tolist()[1] == "PAT_1_882_1" and frame["lesion_id"].tolist()[1] == "PAT_1/882"
    assert frame[c.FITZPATRICK].tolist()[:3] == [pd.NA, pd.NA, 3]
    assert set(frame[c.CONDITION]) == {"basal cell carcinoma", "nevus", "actinic keratosis"}
    lesions = read_pad_ufes(tmp_path, case="lesion").frame
    assert lesions[c.CASE_ID].nunique() == 3 * mini.N_CASES  # not N_CASES: their ids are used again
    assert lesions["patient_id"].tolist()[0] == "PAT_0"


def test_ddi(tmp_path: Path) -> None:
    mini.write_ddi(tmp_path)
    frame = read_ddi(tmp_path).checked().frame
    assert frame[c.CASE_ID].tolist() == frame[c.IMAGE_ID].tolist() == [f"{n + 1:06d}" for n in range(len(frame))]
    assert frame[c.SKIN_TONE].tolist()[:3] == ["I-II", "III-IV", "V-VI"]
    assert frame[c.CONDITION].tolist()[0] == "melanoma in situ" and frame["malignant"].tolist()[0] == "True"
    changed(tmp_path / "ddi_metadata.csv", skin_tone="3")
    with pytest.raises(CaseTableError, match=r"ddi_metadata\.csv row 2: skin_tone must be one of \['12', '34', '56'\]"):
        read_ddi(tmp_path)


def test_derm7pt(tmp_path: Path) -> None:
    n_images = mini.write_derm7pt(tmp_path)
    table = read_derm7pt(tmp_path).checked()
    assert len(table) == n_images and table.frame[c.CASE_ID].nunique() == n_images // 2
    first = table.frame[table.frame[c.CASE_ID] == "1"]
    assert first["modality"].tolist() == ["clinic", "derm"] and first[c.SPLIT].tolist() == ["train", "train"]
    assert first[c.IMAGE_PATH].tolist() == ["images/NEL/Nel002.jpg", "images/NEL/Nel003.jpg"]
    assert first[c.IMAGE_ID].tolist() == ["1-clinic", "1-derm"] and first["atlas_id"].tolist() == ["Nel", "Nel"]
    assert (table.splits == "test").sum() == n_images // 4
    derm = read_derm7pt(tmp_path, modality="derm", published_split=False).frame
    assert len(derm) == n_images // 2 and c.SPLIT not in derm


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index\n0\n", r"test_indexes\.csv must have a column 'indexes', it has \['index'\]"),
        ("indexes\n24\n", r"test_indexes\.csv must hold rows from 0 to 23 of meta\.csv, got '24'"),
        ("indexes\n0\n", r"must be in one of .*, 7 are not, the first is row 0 counted from 0"),
    ],
)
def test_a_split_of_derm7pt_that_does_not_fit(tmp_path: Path, text: str, message: str) -> None:
    mini.write_derm7pt(tmp_path)
    (tmp_path / "meta" / "test_indexes.csv").write_text(text, encoding="utf-8")
    with pytest.raises(CaseTableError, match=message):
        read_derm7pt(tmp_path)


@pytest.mark.parametrize("read", [read_ham10000, read_isic, read_isic_challenge, read_pad_ufes, read_ddi, read_derm7pt])
def test_other_tables_are_refused(tmp_path: Path, read: object) -> None:
    assert callable(read)
    with pytest.raises(CaseTableError, match=r"must be the published folder, with .*\.csv.*; it has none"):
        read(tmp_path)
    (tmp_path / "t.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(CaseTableError, match=r"t\.csv must be the published .*\.csv; it has no column \['"):
        read(tmp_path / "t.csv")


def test_an_isic_table_without_diagnoses(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("isic_id,sex\nISIC_1,male\n", encoding="utf-8")
    with pytest.raises(CaseTableError, match="must have a column of diagnoses, one of"):
        read_isic(tmp_path)


def test_a_loader_by_name(tmp_path: Path) -> None:
    assert loader_of("ham10000:x/y") == ("ham10000", "x/y") and loader_of("cases.csv") is None
    with pytest.raises(ConfigError, match=r"'ham1000:x' is no table; LOADER:FOLDER needs .* Closest: 'ham10000'"):
        loader_of("ham1000:x")
    with pytest.raises(ConfigError, match="'ddi:' is no table"):
        loader_of("ddi:")
    (tmp_path / "a:b.csv").touch()
    assert loader_of(str(tmp_path / "a:b.csv")) is None
    with pytest.raises(
        ConfigError, match=r"huggingface:x needs \['taxonomy'\]: give --data\.taxonomy, or use: hierderm"
    ):
        read_from("huggingface", "x", taxonomy="", root=None, write_images=tmp_path)
    mini.write_ddi(tmp_path / "ddi")
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "ddi" / "images").rename(elsewhere)
    found = read_from("ddi", str(tmp_path / "ddi"), taxonomy="", root=elsewhere, write_images=tmp_path)
    assert found.root == elsewhere and len(found.checked()) == 3 * mini.N_CASES
