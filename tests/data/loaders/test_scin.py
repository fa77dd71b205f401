"""SCIN's loader on a miniature of the exact published format."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from hierderm import columns as c
from hierderm.data.checks import check_cases
from hierderm.data.loaders.scin import BODY_PARTS, read_scin
from hierderm.errors import CaseTableError
from hierderm.taxonomy.file import load_taxonomy

RACES = (
    "american_indian_or_alaska_native", "asian", "black_or_african_american", "hispanic_latino_or_spanish_origin",
    "middle_eastern_or_north_african", "native_hawaiian_or_pacific_islander", "white", "other_race", "prefer_not_to_answer",
)  # fmt: skip
SYMPTOMS = (
    "bothersome_appearance", "bleeding", "increasing_size", "darkening", "itching", "burning", "pain",
    "no_relevant_experience",
)  # fmt: skip
OTHER = ("fever", "chills", "fatigue", "joint_pain", "mouth_sores", "shortness_of_breath", "no_relevant_symptoms")
CASE_COLUMNS = [
    "case_id", "source", "release", "year", "age_group", "sex_at_birth", "fitzpatrick_skin_type",
    *(f"race_ethnicity_{race}" for race in RACES),
    *(f"textures_{texture}" for texture in ("raised_or_bumpy", "flat", "rough_or_flaky", "fluid_filled")),
    *(f"body_parts_{part}" for part in BODY_PARTS),
    *(f"condition_symptoms_{symptom}" for symptom in SYMPTOMS),
    *(f"other_symptoms_{symptom}" for symptom in OTHER),
    "related_category", "condition_duration",
    *(f"image_{number}_{what}" for what in ("path", "shot_type") for number in (1, 2, 3)),
    "combined_race", "race_ethnicity_two_or_more_after_mitigation",
]  # fmt: skip
LABEL_COLUMNS = [
    "case_id",
    *(f"dermatologist_gradable_for_skin_condition_{number}" for number in (1, 2, 3)),
    "dermatologist_skin_condition_on_label_name", "dermatologist_skin_condition_confidence",
    "weighted_skin_condition_label",
    *(f"dermatologist_gradable_for_fitzpatrick_skin_type_{number}" for number in (1, 2, 3)),
    *(f"dermatologist_fitzpatrick_skin_type_label_{number}" for number in (1, 2, 3)),
    "gradable_for_monk_skin_tone_india", "gradable_for_monk_skin_tone_us",
    "monk_skin_tone_label_india", "monk_skin_tone_label_us",
]  # fmt: skip

CASES = [
    {"case_id": "-1000600354148496558", "fitzpatrick_skin_type": "FST3", "body_parts_arm": "YES", "body_parts_leg": "YES",
     "image_1_path": "dataset/images/-11.png", "image_2_path": "dataset/images/22.png", "image_1_shot_type": "CLOSE_UP"},
    {"case_id": "9007199254740993", "fitzpatrick_skin_type": "NONE_IDENTIFIED", "image_1_path": "dataset/images/33.png"},
    {"case_id": "77", "image_1_path": "dataset/images/44.png"},
    {"case_id": "88", "image_1_path": "dataset/images/33.png"},  # the same image under another case
]  # fmt: skip
LABELS = [
    {"case_id": "-1000600354148496558", "dermatologist_skin_condition_on_label_name": "['Eczema', 'Psoriasis']",
     "weighted_skin_condition_label": "{'Eczema': 0.69, 'Acute and chronic dermatitis': 0.11, "
     "'Post-Inflammatory hyperpigmentation': 0.11, 'Psoriasis': 0.08}",
     "dermatologist_fitzpatrick_skin_type_label_1": "FST4", "dermatologist_fitzpatrick_skin_type_label_2": "FST2",
     "monk_skin_tone_label_us": "4.0", "monk_skin_tone_label_india": "6"},
    {"case_id": "9007199254740993", "weighted_skin_condition_label": "{'Impetigo': 0.5, 'Eczema': 0.5}"},
    {"case_id": "77", "weighted_skin_condition_label": "{}",
     "dermatologist_gradable_for_skin_condition_1": "DEFAULT_YES_IMAGE_QUALITY_SUFFICIENT"},
    {"case_id": "88", "weighted_skin_condition_label": "{\"Kaposi's sarcoma of skin\": 1.0}"},
]  # fmt: skip


def write(folder: Path, cases: list[dict[str, str]] = CASES, labels: list[dict[str, str]] = LABELS) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    for name in ("-11", "22", "33", "44"):
        Image.new("RGB", (8, 8), "pink").save(folder / "images" / f"{name}.png")
    for name, columns, rows in (("scin_cases", CASE_COLUMNS, cases), ("scin_labels", LABEL_COLUMNS, labels)):
        with (folder / f"{name}.csv").open("w", newline="") as handle:
            writer = csv.DictWriter(handle, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
    return folder


def test_the_miniature_has_the_published_columns() -> None:
    assert (len(CASE_COLUMNS), len(LABEL_COLUMNS)) == (57, 17)


def test_rows(tmp_path: Path) -> None:
    scin = read_scin(write(tmp_path))
    rows = scin.frame.to_dict("records")
    assert [row[c.CASE_ID] for row in rows] == ["-1000600354148496558"] * 2 + ["9007199254740993", "88"]
    assert [row[c.CONDITION] for row in rows] == ["Eczema", "Eczema", "Impetigo", "Kaposi's sarcoma of skin"]
    first = rows[0]
    assert first[c.IMAGE_PATH] == "-11.png"
    assert first[c.BODY_SITE] == "arm|leg"
    assert (first[c.FITZPATRICK], first["fitzpatrick_self"], first[c.MONK]) == (2, 3, 4)  # the lower median of 4 and 2
    assert rows[2]["fitzpatrick_self"] == ""
    weights = json.loads(first[c.WEIGHTS])
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["Eczema"] == pytest.approx(0.69 / 0.99)
    assert scin.counts == {"cases": 3, "images": 4, "gradable_without_label": 1, "tied_top_labels": 1}
    assert scin.left_out == {"case(s) without a weighted label": ["77"], "case(s) without an image": []}


def test_cases_without_an_image_are_named_and_values_are_not_cut(tmp_path: Path) -> None:
    cases = [*CASES[:3], {**CASES[3], "image_1_path": ""}]
    assert read_scin(write(tmp_path, cases)).left_out["case(s) without an image"] == ["88"]
    for column, value, message in (
        ("monk_skin_tone_label_us", "4.5", "row 2: a Monk skin tone must be a whole number, got '4.5'"),
        ("weighted_skin_condition_label", "{'Eczema': -0.1, 'Psoriasis': 1.0}", "row 2: .* must have weights from 0"),
    ):
        with pytest.raises(CaseTableError, match=message):
            read_scin(write(tmp_path, labels=[{**LABELS[0], column: value}, *LABELS[1:]]))


def test_the_other_monk_pool(tmp_path: Path) -> None:
    assert read_scin(write(tmp_path), monk_pool="india").frame[c.MONK].tolist()[0] == 6
    with pytest.raises(CaseTableError, match="monk_pool must be 'us' or 'india', got 'fr'"):
        read_scin(write(tmp_path), monk_pool="fr")  # type: ignore[arg-type]


def test_the_table_passes_the_check_under_the_shipped_tree(tmp_path: Path) -> None:
    scin = read_scin(write(tmp_path))
    table = check_cases(scin.frame, load_taxonomy("scin"), tmp_path / "images", source="SCIN")
    assert len(table) == 4
    assert len(set(table.frame[c.IMAGE_ID])) == 4  # one file under two cases has two ids


def test_scin_goes_through_the_pipeline_with_its_differentials(tmp_path: Path) -> None:
    """Names that are never the top label leave the tree; the differentials must follow."""
    from hierderm.config.loading import load_config
    from hierderm.experiment.run import prepare

    scin = read_scin(write(tmp_path))
    check_cases(scin.frame, load_taxonomy("scin"), tmp_path / "images").write(tmp_path / "scin.csv")
    config = load_config(None, {"data.cases": str(tmp_path / "scin.csv"), "data.taxonomy": "scin"})
    table, _ = prepare(config.data, config.split, tmp_path / "run")
    assert table.taxonomy.names() == ("Eczema", "Impetigo", "Kaposi's sarcoma of skin")
    assert json.loads(table.frame[c.WEIGHTS].iloc[0]) == {"Eczema": 1.0}
    assert len(prepare(config.data, config.split, tmp_path / "run")[0]) == 4


def test_the_documented_name_of_the_label_column(tmp_path: Path) -> None:
    labels = write(tmp_path) / "scin_labels.csv"
    text = labels.read_text()
    labels.write_text(text.replace("skin_condition_on_label_name", "skin_condition_label_name"))
    assert len(read_scin(tmp_path).frame) == 4
    labels.write_text(text.replace("skin_condition_on_label_name", "other"))
    with pytest.raises(CaseTableError, match="must have a column dermatologist_skin_condition_on_label_name or"):
        read_scin(tmp_path)


def test_all_faults_at_once(tmp_path: Path) -> None:
    cases = [*CASES, {"case_id": "-1e+18", "image_1_path": "dataset/images/44.png"}, CASES[2]]
    labels = [*LABELS[:1], {**LABELS[1], "weighted_skin_condition_label": "__import__('os')"},
              {**LABELS[2], "weighted_skin_condition_label": "{'Eczema': 0.4}"},
              {**LABELS[3], "dermatologist_fitzpatrick_skin_type_label_1": "FST9"}, {"case_id": "99"}]  # fmt: skip
    with pytest.raises(CaseTableError) as caught:
        read_scin(write(tmp_path, cases, labels))
    message = str(caught.value)
    for part in (
        "scin_cases.csv row 6: case_id must be a whole number, got '-1e+18'. The file was likely saved by a spreadsheet",
        "scin_cases.csv row 7: case_id 77 occurs twice.",
        "scin_labels.csv row 6: case_id 99 is not in scin_cases.csv.",
        "scin_labels.csv row 3: must be a Python dict literal, got '__import__('os')'.",
        "scin_labels.csv row 4: weighted_skin_condition_label must sum to 1 up to rounding, got 0.400.",
        "scin_labels.csv row 5: a Fitzpatrick type must be FST1 to FST6, got 'FST9'.",
    ):
        assert part in message


def test_another_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "scin_cases.csv").write_text((tmp_path / "scin_labels.csv").read_text())
    with pytest.raises(
        CaseTableError, match=r"scin_cases\.csv must be the published scin_cases\.csv; it has no column"
    ):
        read_scin(tmp_path)
