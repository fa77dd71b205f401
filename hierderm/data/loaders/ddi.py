"""Diverse Dermatology Images as published (Daneshjou et al., Science Advances 2022)."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated

from hierderm import columns as c
from hierderm.data.loaders.published import Published, read_published
from hierderm.errors import CaseTableError, Fault, describe_faults

TONES = {"12": "I-II", "34": "III-IV", "56": "V-VI"}  # Fitzpatrick types are published in pairs


def read_ddi(
    folder: Annotated[Path, "The published folder, with ddi_metadata.csv and the images."],
    *,
    taxonomy: Annotated[str, "A shipped taxonomy's id, or a file."] = "ddi",
) -> Published:
    """Diverse Dermatology Images: ddi_metadata.csv and its images.

    There are no patient ids: each image is a case of its own, and near-duplicates are kept together by the split.
    Fitzpatrick types are published in pairs and become `skin_tone`: I-II, III-IV or V-VI.

    Example: `hierderm data ddi ddidiversedermatologyimages -o cases.csv`
    """
    from hierderm.data.checks import take_columns
    from hierderm.data.table import row_numbers
    from hierderm.taxonomy.file import load_taxonomy

    frame, table = read_published(folder, ("ddi_metadata.csv",), ("DDI_file", "skin_tone", "disease"))
    faults = [
        Fault(f"{table.name} row {number}", f"skin_tone must be one of {list(TONES)}, got '{tone}'.")
        for number, tone in zip(row_numbers(frame), frame["skin_tone"], strict=True)
        if tone not in TONES
    ]
    if faults:
        raise CaseTableError(describe_faults(f"{table.name} has {len(faults)} fault(s):", faults))
    frame = take_columns(frame, {c.IMAGE_PATH: "DDI_file", c.CONDITION: "disease"}, table.name)
    stems = [PurePosixPath(name).stem for name in frame[c.IMAGE_PATH]]
    tones = [TONES[tone] for tone in frame["skin_tone"]]
    frame = frame.assign(**{c.IMAGE_ID: stems, c.CASE_ID: stems, c.SKIN_TONE: tones, c.SOURCE: "ddi"})
    return Published(frame, load_taxonomy(taxonomy), table.parent, table.name)
