"""Miniatures of published data sets: their exact folders, files, columns and spellings, with drawn images."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.loaders.test_scin import CASE_COLUMNS, LABEL_COLUMNS

N_CASES = 8  # of each condition

HAM10000 = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset")
ISIC = (
    "isic_id", "attribution", "copyright_license", "age_approx", "anatom_site_1", "anatom_site_general",
    "benign_malignant", "concomitant_biopsy", "diagnosis_1", "diagnosis_2", "diagnosis_3", "diagnosis_4",
    "diagnosis_confirm_type", "fitzpatrick_skin_type", "image_type", "lesion_id", "melanocytic", "patient_id", "sex",
)  # fmt: skip
ISIC_2018 = ("image", "MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
ISIC_2019 = ("image", "MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
PAD_UFES = (
    "patient_id", "lesion_id", "smoke", "drink", "background_father", "background_mother", "age", "pesticide", "gender",
    "skin_cancer_history", "cancer_history", "has_piped_water", "has_sewage_system", "fitspatrick", "region",
    "diameter_1", "diameter_2", "diagnostic", "itch", "grew", "hurt", "changed", "bleed", "elevation", "img_id",
    "biopsed",
)  # fmt: skip
DDI = ("", "DDI_ID", "DDI_file", "skin_tone", "malignant", "disease")
DERM7PT = (
    "case_num", "diagnosis", "seven_point_score", "pigment_network", "streaks", "pigmentation", "regression_structures",
    "dots_and_globules", "blue_whitish_veil", "vascular_structures", "level_of_diagnostic_difficulty", "elevation",
    "location", "sex", "management", "clinic", "derm", "case_id", "notes",
)  # fmt: skip
FITZPATRICK17K = (
    "md5hash", "fitzpatrick_scale", "fitzpatrick_centaur", "label", "nine_partition_label", "three_partition_label",
    "qc", "url", "url_alphanum",
)  # fmt: skip


def table(path: Path, columns: Sequence[str], rows: Sequence[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def image(path: Path, kind: int, number: int) -> None:
    """An image whose colour tells its condition, and whose pixels no other has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng((kind, number)).integers(0, 60, (16, 16, 3), dtype=np.uint8)
    pixels[..., kind % 3] += 120
    Image.fromarray(pixels).save(path)


def write_ham10000(folder: Path) -> int:
    """Two images of every other lesion, in the two folders of the archive."""
    rows: list[dict[str, object]] = []
    for kind, dx in enumerate(("nv", "mel", "bkl")):
        for case in range(N_CASES):
            for _ in range(1 + case % 2):
                name = f"ISIC_{24306 + len(rows):07d}"
                image(folder / f"HAM10000_images_part_{1 + len(rows) % 2}" / f"{name}.jpg", kind, len(rows))
                rows.append({"lesion_id": f"HAM_{kind * 100 + case:07d}", "image_id": name, "dx": dx, "dx_type": "histo",
                             "age": "80.0", "sex": "male", "localization": "back", "dataset": "vidir_modern"})  # fmt: skip
    table(folder / "HAM10000_metadata.csv", HAM10000, rows)
    return len(rows)


def write_isic(folder: Path) -> int:
    levels = (
        ("Benign", "Benign melanocytic proliferations", "Nevus", "Nevus, NOS, Compound"),
        ("Malignant", "Malignant melanocytic proliferations (Melanoma)", "Melanoma, NOS", ""),
        ("Benign", "Benign soft tissue proliferations - Vascular", "", ""),
    )
    rows: list[dict[str, object]] = []
    for kind, diagnoses in enumerate(levels):
        for case in range(N_CASES):
            for _ in range(1 + case % 2):
                name = f"ISIC_{len(rows):07d}"
                image(folder / f"{name}.jpg", kind, len(rows))
                levels_of: dict[str, object] = {f"diagnosis_{level}": text for level, text in enumerate(diagnoses, 1)}
                rows.append(
                    levels_of
                    | {"isic_id": name, "attribution": "Anonymous", "copyright_license": "CC-0", "age_approx": "45",
                       "anatom_site_general": "anterior torso", "image_type": "dermoscopic", "sex": "female",
                       "lesion_id": f"IL_{kind * 100 + case:07d}" if case else "",
                       "patient_id": f"IP_{kind * 100 + case // 2:07d}", "fitzpatrick_skin_type": ("II", "")[case % 2]}
                )  # fmt: skip
    rows.append({"isic_id": "ISIC_9999999", "attribution": "Anonymous", "copyright_license": "CC-0"})
    table(folder / "metadata.csv", ISIC, rows)
    (folder / "attribution.txt").write_text("Anonymous", encoding="utf-8")
    return len(rows) - 1


def write_isic_challenge(folder: Path) -> int:
    """The training part of 2018, task 3, in its three archives; a lesion has up to two images."""
    start, rows, lesions = "ISIC2018_Task3_Training", list[dict[str, object]](), list[dict[str, object]]()
    for kind, code in enumerate(("MEL", "NV", "AKIEC")):
        for case in range(N_CASES):
            for _ in range(1 + case % 2):
                name = f"ISIC_{24306 + len(rows):07d}"
                image(folder / f"{start}_Input" / f"{name}.jpg", kind, len(rows))
                rows.append({"image": name, **dict.fromkeys(ISIC_2018[1:], "0.0"), code: "1.0"})
                lesion = f"HAM_{kind * 100 + case:07d}"
                lesions.append({"image": name, "lesion_id": lesion, "diagnosis_confirm_type": "histopathology"})
    table(folder / f"{start}_GroundTruth" / f"{start}_GroundTruth.csv", ISIC_2018, rows)
    table(folder / f"{start}_LesionGroupings.csv", ("image", "lesion_id", "diagnosis_confirm_type"), lesions[::-1])
    return len(rows)


def write_pad_ufes(folder: Path) -> int:
    """Lesion ids that are used again for other patients, and rows without clinical data."""
    rows: list[dict[str, object]] = []
    for kind, diagnostic in enumerate(("BCC", "NEV", "ACK")):
        for case in range(N_CASES):
            patient, lesion = kind * N_CASES + case, 881 + case
            for shot in range(1 + case % 2):
                name = f"PAT_{patient}_{lesion}_{len(rows)}.png"
                image(folder / "images" / f"imgs_part_{1 + len(rows) % 3}" / name, kind, len(rows))
                clinical = (
                    {"smoke": "False", "fitspatrick": "3.0", "gender": "FEMALE", "diameter_1": "6.0"} if shot else {}
                )
                rows.append({"patient_id": f"PAT_{patient}", "lesion_id": lesion, "age": 55, "region": "NECK",
                             "diagnostic": diagnostic, "itch": "True", "grew": "UNK", "hurt": "False", "changed": "UNK",
                             "bleed": "False", "elevation": "True", "img_id": name, "biopsed": "True", **clinical})  # fmt: skip
    table(folder / "metadata.csv", PAD_UFES, rows)
    return len(rows)


def write_ddi(folder: Path) -> int:
    """With the row numbers that pandas wrote into a column without name."""
    rows: list[dict[str, object]] = []
    for kind, (disease, malignant) in enumerate(
        (("melanoma-in-situ", True), ("melanocytic-nevi", False), ("wart", False))
    ):
        for case in range(N_CASES):
            name = f"{len(rows) + 1:06d}.png"
            image(folder / "images" / name, kind, len(rows))
            rows.append({"": len(rows), "DDI_ID": len(rows) + 1, "DDI_file": name, "skin_tone": (12, 34, 56)[case % 3],
                         "malignant": malignant, "disease": disease})  # fmt: skip
    table(folder / "ddi_metadata.csv", DDI, rows)
    return len(rows)


def write_derm7pt(folder: Path) -> int:
    """Two images of each case, one of them spelt in another case than its file, and the published split."""
    rows: list[dict[str, object]] = []
    for kind, diagnosis in enumerate(("clark nevus", "melanoma (in situ)", "basal cell carcinoma")):
        for _ in range(N_CASES):
            number = len(rows) + 1
            clinic, derm = (f"Nel{2 * number + shown:03d}.jpg" for shown in (0, 1))
            image(folder / "images" / "NEL" / clinic, kind, 2 * number)
            image(folder / "images" / "NEL" / derm, kind, 2 * number + 1)
            rows.append({"case_num": number, "diagnosis": diagnosis, "seven_point_score": 3, "pigment_network": "absent",
                         "level_of_diagnostic_difficulty": "medium", "elevation": "palpable", "location": "back",
                         "sex": "male", "management": "excision", "clinic": f"NEL/{clinic.upper()}",
                         "derm": f"NEL/{derm}", "case_id": "Nel", "notes": ""})  # fmt: skip
    table(folder / "meta" / "meta.csv", DERM7PT, rows)
    places = list(range(len(rows)))
    for name, part in (("train", (0, 1, 2, 3)), ("valid", (4, 5)), ("test", (6, 7))):
        indexes: list[dict[str, object]] = [{"indexes": place} for place in places if place % N_CASES in part]
        table(folder / "meta" / f"{name}_indexes.csv", ("indexes",), indexes)
    return 2 * len(rows)


def write_fitzpatrick17k(folder: Path) -> int:
    rows: list[dict[str, object]] = []
    for kind, label in enumerate(("psoriasis", "melanoma", "acne")):
        for case in range(N_CASES):
            name = f"{kind}{case:x}{'0' * 30}"
            image(folder / "images" / f"{name}.jpg", kind, len(rows))
            rows.append({"md5hash": name, "fitzpatrick_scale": (-1, 1, 3, 6)[case % 4], "label": label, "url": "u"})
    table(folder / "fitzpatrick17k.csv", FITZPATRICK17K, rows)
    return len(rows)


def write_scin(folder: Path) -> int:
    cases: list[dict[str, object]] = []
    labels: list[dict[str, object]] = []
    for kind, condition in enumerate(("Eczema", "Impetigo", "Tinea")):
        for _ in range(N_CASES):
            number = len(cases) + 1
            image(folder / "images" / f"-{number}.png", kind, number)
            cases.append({"case_id": -number, "image_1_path": f"dataset/images/-{number}.png"})
            labels.append({"case_id": -number, "weighted_skin_condition_label": f"{{'{condition}': 1.0}}",
                           "dermatologist_skin_condition_on_label_name": f"['{condition}']"})  # fmt: skip
    table(folder / "scin_cases.csv", CASE_COLUMNS, cases)
    table(folder / "scin_labels.csv", LABEL_COLUMNS, labels)
    return len(cases)


def write_folder(folder: Path) -> int:
    for kind, place in enumerate(("Eczemas/Eczema", "Infections/Impetigo", "Infections/Tinea")):
        for case in range(N_CASES):
            image(folder / place / f"{kind}{case}.jpg", kind, case)
    return 3 * N_CASES


def write_huggingface(folder: Path) -> int:
    """As `save_to_disk` writes it: images within the tables, labels as numbers, one split."""
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["Eczema", "Impetigo", "Tinea"]),
            "patient": datasets.Value("int64"),
            "boxes": datasets.Sequence(datasets.Value("float32")),
        }
    )
    rows = []
    for number in range(3 * N_CASES):
        path = folder.with_name("pictures") / f"{number}.png"
        image(path, number % 3, number)
        picture = {"bytes": path.read_bytes(), "path": None}
        rows.append({"image": picture, "label": number % 3, "patient": number, "boxes": [0.5]})
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows, features)}).save_to_disk(folder)
    return len(rows)


WRITERS = {
    "folder": write_folder,
    "scin": write_scin,
    "fitzpatrick17k": write_fitzpatrick17k,
    "ham10000": write_ham10000,
    "isic": write_isic,
    "isic_challenge": write_isic_challenge,
    "pad_ufes": write_pad_ufes,
    "ddi": write_ddi,
    "derm7pt": write_derm7pt,
    "huggingface": write_huggingface,
}
