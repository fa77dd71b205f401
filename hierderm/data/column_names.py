"""What other people call our columns: proposals for a table of any origin, which a person confirms."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from hierderm import columns as c
from hierderm.errors import ConfigError

NAMES = {  # of each column, the more telling ones first
    c.IMAGE_PATH: (
        "path", "file_path", "filepath", "image_file", "file_name", "filename", "ddi_file", "file", "img_path", "image",
        "img", "image_name", "photo", "picture", "img_id", "image_id", "isic_id", "md5hash",
    ),
    c.IMAGE_ID: ("img_id", "isic_id", "imageid", "photo_id", "picture_id"),
    c.CASE_ID: (
        "case", "caseid", "case_number", "case_num", "patient_id", "patientid", "pat_id", "patient", "subject_id",
        "subject", "person_id", "lesion_id", "lesion",
    ),
    c.CONDITION: (
        "diagnosis", "diagnose", "dx", "diagnostic", "diagnosis_name", "disease", "condition_name", "label", "labels",
        "class", "class_name", "ground_truth", "target",
    ),
    c.FITZPATRICK: (
        "fitzpatrick_skin_type", "fitzpatrick_scale", "fitzpatrick_type", "fitspatrick", "skin_type", "phototype",
        "fst",
    ),
    c.MONK: ("monk_skin_tone", "monk_scale", "mst"),
    c.BODY_SITE: (
        "anatom_site_general", "anatomical_site", "anatom_site", "localization", "localisation", "body_part",
        "body_location", "location", "site", "region",
    ),
    c.SPLIT: ("partition", "subset"),
}  # fmt: skip


def proposed_columns(columns: Iterable[str], known: Collection[str] = ()) -> dict[str, list[str]]:
    """For each of our columns that the table lacks, its columns that are likely that one, the likeliest first.

    Args:
        columns: The table's column names.
        known: Ours that are named already.
    """
    columns = list(columns)
    spelt = {re.sub(r"\W+", "_", name.casefold()).strip("_"): name for name in reversed(columns)}
    lacking = [ours for ours in NAMES if ours not in columns and ours not in known]
    found = {ours: [spelt[name] for name in (ours, *NAMES[ours]) if name in spelt] for ours in lacking}
    return {ours: theirs for ours, theirs in found.items() if theirs}


def in_words(columns: Mapping[str, str]) -> str:
    """Column names as they are given on the command line."""
    pairs = [f"{ours}={theirs}" for ours, theirs in columns.items()]
    return " ".join(f"--column '{pair}'" if re.search(r"[^\w=.-]", pair) else f"--column {pair}" for pair in pairs)


def named_columns(pairs: Iterable[str] | None) -> dict[str, str]:
    """Our columns and the table's, of texts such as `condition=diagnosis`; ConfigError where they are none."""
    pairs = list(pairs or [])
    parts = [pair.partition("=") for pair in pairs]
    if any(not sign or not ours or not theirs for ours, sign, theirs in parts):
        raise ConfigError(f"--column must look like condition=diagnosis, got {pairs}.")
    if repeated := sorted({ours for ours, _, _ in parts if [part[0] for part in parts].count(ours) > 1}):
        raise ConfigError(f"--column must name each of our columns once, {repeated} come(s) several times.")
    return {ours: theirs for ours, _, theirs in parts}
