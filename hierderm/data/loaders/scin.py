"""SCIN as published (Ward et al. 2024): `scin_cases.csv`, `scin_labels.csv` and a folder of images.

Ids are signed 64-bit integers written as text and stay text. Labels are Python literals, read without running them.
"""

from __future__ import annotations

import ast
import json
import statistics
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from hierderm import columns as c
from hierderm.data.loaders.published import Published, read_published
from hierderm.errors import CaseTableError, Fault, describe_faults

if TYPE_CHECKING:
    import pandas as pd

WEIGHTED_LABEL = "weighted_skin_condition_label"
# The data has the first name, its documentation the second.
LABEL_LISTS = ("dermatologist_skin_condition_on_label_name", "dermatologist_skin_condition_label_name")
GRADABLE = "dermatologist_gradable_for_skin_condition_1"
NO_LABEL, NO_IMAGE = "case(s) without a weighted label", "case(s) without an image"  # reasons to leave a case out
BODY_PARTS = (
    "head_or_neck", "arm", "palm", "back_of_hand", "torso_front", "torso_back",
    "genitalia_or_groin", "buttocks", "leg", "foot_top_or_side", "foot_sole", "other",
)  # fmt: skip


def read_scin(
    folder: Annotated[Path, "The published 'dataset' folder: two CSV files and images/."],
    *,
    taxonomy: Annotated[str, "A shipped taxonomy's id, or a file."] = "scin",
    monk_pool: Annotated[Literal["us", "india"], "Whose Monk skin-tone labels to use."] = "us",
) -> Published:
    """SCIN as published: scin_cases.csv, scin_labels.csv and images/.

    The condition is the top-weighted one; of equal weights the one listed first, counted as `tied_top_labels`. The
    whole differential stays in `weights`, rescaled to sum to exactly 1. `fitzpatrick` is the lower median of the
    dermatologists' labels, `fitzpatrick_self` the self-report; `monk` comes from the annotators of `monk_pool`, whose
    readings differ. Cases without a weighted label, or without an image, are left out and named.

    Example: `hierderm data scin dx-scin-public-data/dataset -o scin.csv --unreadable exclude`
    """
    from hierderm.data.table import frame_from_rows, row_numbers
    from hierderm.taxonomy.file import load_taxonomy

    if monk_pool not in ("us", "india"):
        raise CaseTableError(f"monk_pool must be 'us' or 'india', got '{monk_pool}'.")
    folder, paths = Path(folder), [f"image_{number}_path" for number in (1, 2, 3)]
    cases, cases_csv = read_published(folder, ("scin_cases.csv",), ("case_id", *paths))
    labels, labels_csv = read_published(folder, ("scin_labels.csv",), ("case_id", WEIGHTED_LABEL))
    if not any(name in labels for name in LABEL_LISTS):
        raise CaseTableError(f"{labels_csv.name} must have a column {' or '.join(LABEL_LISTS)}.")
    faults = _join_faults(cases, cases_csv.name, labels, labels_csv.name)
    counts: Counter[str] = Counter()
    left_out: dict[str, list[str]] = {NO_LABEL: [], NO_IMAGE: []}
    label_rows = _label_rows(labels, labels_csv.name, monk_pool, faults, counts, left_out)
    rows: list[dict[str, Any]] = []
    for number, row in zip(row_numbers(cases), _records(cases), strict=True):
        if row["case_id"] in label_rows:
            try:
                images = _image_rows(row, label_rows[row["case_id"]])
            except ValueError as error:
                faults.append(Fault(f"{cases_csv.name} row {number}", str(error)))
                continue
            rows += images
            counts["cases"] += bool(images)
            left_out[NO_IMAGE] += [] if images else [row["case_id"]]
    if faults:
        raise CaseTableError(describe_faults(f"SCIN has {len(faults)} fault(s):", faults))
    if not rows:
        raise CaseTableError(f"{labels_csv.name} has no case with a weighted label and an image.")
    counts["images"] = len(rows)
    tree = load_taxonomy(taxonomy)
    return Published(frame_from_rows(rows), tree, folder / "images", "SCIN", dict(counts), left_out)


def _label_rows(
    labels: pd.DataFrame,
    source: str,
    monk_pool: str,
    faults: list[Fault],
    counts: Counter[str],
    left_out: dict[str, list[str]],
) -> dict[str, dict[str, Any]]:
    """What the labels say of each case that has one; what is wrong, counted or left out is added to the others."""
    from hierderm.data.table import row_numbers

    label_rows: dict[str, dict[str, Any]] = {}
    for number, row in zip(row_numbers(labels), _records(labels), strict=True):
        try:
            weights = _weights(str(row[WEIGHTED_LABEL]))
            fitzpatrick = _dermatologist_fitzpatrick(row)
            monk = _whole(row.get(f"monk_skin_tone_label_{monk_pool}", ""))
        except ValueError as error:
            faults.append(Fault(f"{source} row {number}", str(error)))
            continue
        if not weights:
            left_out[NO_LABEL].append(row["case_id"])
            counts["gradable_without_label"] += str(row.get(GRADABLE, "")).startswith("DEFAULT_YES")
            continue
        counts["tied_top_labels"] += sorted(weights.values())[-2:] == [max(weights.values())] * 2
        label_rows[row["case_id"]] = {
            c.CONDITION: max(weights, key=lambda name: weights[name]),
            c.WEIGHTS: json.dumps(weights, ensure_ascii=False),
            c.FITZPATRICK: fitzpatrick,
            c.MONK: monk,
        }
    return label_rows


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _join_faults(cases: pd.DataFrame, cases_name: str, labels: pd.DataFrame, labels_name: str) -> list[Fault]:
    faults = []
    for frame, name, others, other_name in (
        (cases, cases_name, set(labels["case_id"]), labels_name),
        (labels, labels_name, set(cases["case_id"]), cases_name),
    ):
        repeated = frame["case_id"].duplicated()
        for number, (row, case) in enumerate(frame["case_id"].items()):
            where = f"{name} row {row}"
            if not case.lstrip("-").isdigit():
                hint = "The file was likely saved by a spreadsheet; download it again."
                faults.append(Fault(where, f"case_id must be a whole number, got '{case}'. {hint}"))
            elif repeated.iloc[number]:
                faults.append(Fault(where, f"case_id {case} occurs twice."))
            elif case not in others:
                faults.append(Fault(where, f"case_id {case} is not in {other_name}."))
    return faults


def _literal(text: str, kind: type) -> Any:
    try:
        value = ast.literal_eval(text.strip() or repr(kind()))
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # the last two of what is nested deeply
        value = None
    if not isinstance(value, kind):
        raise ValueError(f"must be a Python {kind.__name__} literal, got '{text[:60]}'.")
    return value


def _weights(text: str) -> dict[str, float]:
    from hierderm.data.checks import WEIGHT_TOLERANCE

    found = _literal(text, dict)
    if not all(isinstance(weight, int | float) and weight >= 0 for weight in found.values()):
        raise ValueError(f"{WEIGHTED_LABEL} must have weights from 0, got '{text[:60]}'.")
    weights = {str(name).strip(): float(weight) for name, weight in found.items() if weight > 0}
    total = sum(weights.values())
    if weights and abs(total - 1) > WEIGHT_TOLERANCE * max(1, len(weights) / 2):
        raise ValueError(f"{WEIGHTED_LABEL} must sum to 1 up to rounding, got {total:.3f}.")
    return {name: weight / total for name, weight in weights.items()}


def _dermatologist_fitzpatrick(row: dict[str, Any]) -> int | str:
    given = [str(row.get(f"dermatologist_fitzpatrick_skin_type_label_{number}", "")) for number in (1, 2, 3)]
    types = [_fitzpatrick(text) for text in given]
    known = [number for number in types if isinstance(number, int)]
    return statistics.median_low(known) if known else ""


def _fitzpatrick(text: str) -> int | str:
    """1 to 6 from 'FST1' to 'FST6'; '' where blank or NONE_IDENTIFIED."""
    text = text.strip()
    if text in ("", "NONE_IDENTIFIED"):
        return ""
    if not (text.startswith("FST") and text[3:] in "123456" and len(text) == 4):
        raise ValueError(f"a Fitzpatrick type must be FST1 to FST6, got '{text}'.")
    return int(text[3:])


def _whole(text: Any) -> int | str:
    if not str(text).strip():
        return ""
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not number.is_integer():
        raise ValueError(f"a Monk skin tone must be a whole number, got '{text}'.")
    return int(number)


def _image_rows(case: dict[str, Any], label: dict[str, Any]) -> list[dict[str, Any]]:
    sites = [part for part in BODY_PARTS if str(case.get(f"body_parts_{part}", "")).strip() == "YES"]
    rows = []
    for number in (1, 2, 3):
        path = str(case[f"image_{number}_path"]).strip()
        if not path:
            continue
        file = PurePosixPath(path)
        rows.append(
            {
                c.IMAGE_PATH: file.name,
                # The same file can appear under two cases: the case makes the id unique.
                c.IMAGE_ID: f"{case['case_id']}/{file.stem}",
                c.CASE_ID: case["case_id"],
                **label,
                "fitzpatrick_self": _fitzpatrick(str(case.get("fitzpatrick_skin_type", ""))),
                c.BODY_SITE: "|".join(sites),
                c.SOURCE: "scin",
                "shot_type": str(case.get(f"image_{number}_shot_type", "")),
                "age_group": str(case.get("age_group", "")),
                "sex_at_birth": str(case.get("sex_at_birth", "")),
            }
        )
    return rows
