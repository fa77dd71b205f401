"""Metadata of the ISIC Archive, as its gallery and `isic image download` write them: a row an image, named by id."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from hierderm import columns as c
from hierderm.data.loaders.isic_challenge import END
from hierderm.data.loaders.published import Published, first_known, read_published
from hierderm.errors import CaseTableError

# The finest that is known of an image counts; the last two are of tables from before the archive had levels.
DIAGNOSES = ("diagnosis_3", "diagnosis_2", "diagnosis_1", "diagnosis", "benign_malignant")
FITZPATRICK = {"I": "1", "II": "2", "III": "3", "IV": "4", "V": "5", "VI": "6"}
NO_DIAGNOSIS = "image(s) without a diagnosis"  # the reason to leave them out


def read_isic(
    folder: Annotated[Path, "The folder that was downloaded, with metadata.csv and the images."],
    *,
    taxonomy: Annotated[str, "A shipped taxonomy's id, or a file."] = "isic",
    case: Annotated[Literal["lesion", "patient"], "What counts as a case, where it is known."] = "lesion",
) -> Published:
    """The ISIC Archive's metadata.csv and its images.

    The condition is the finest level of `diagnosis_1` to `diagnosis_3` that is known; levels 4 and 5 stay as columns.
    Images without a diagnosis are left out and named. Where lesion or patient is not known, the image is a case.

    Example: `hierderm data isic download -o cases.csv --case patient`
    """
    from hierderm.data.checks import take_columns
    from hierderm.taxonomy.file import load_taxonomy

    if (place := Path(folder)).name.endswith(END) or next(place.glob(f"*{END}"), None):
        raise CaseTableError(
            f"{place} is of an ISIC challenge. Read it with: hierderm data isic_challenge {place} -o cases.csv"
        )
    frame, table = read_published(folder, ("metadata.csv",), ("isic_id",))
    if not set(DIAGNOSES) & set(frame):
        raise CaseTableError(f"{table.name} must have a column of diagnoses, one of {list(DIAGNOSES)}.")
    by = ["patient_id", "lesion_id"] if case == "patient" else ["lesion_id"]
    known = first_known(frame, by)
    frame = take_columns(frame, {c.IMAGE_PATH: "isic_id", c.IMAGE_ID: "isic_id"}, table.name)
    frame = frame.assign(
        **{
            c.CASE_ID: first_known(frame, [*by, c.IMAGE_ID]),
            c.CONDITION: first_known(frame, DIAGNOSES),
            c.BODY_SITE: first_known(frame, ["anatom_site_general", "anatom_site_1"]),
        }
    )
    frame[c.SOURCE] = "isic"
    if "fitzpatrick_skin_type" in frame:
        frame[c.FITZPATRICK] = [FITZPATRICK.get(text, text) for text in frame["fitzpatrick_skin_type"]]
    unlabelled = frame[c.CONDITION] == ""
    left_out = {NO_DIAGNOSIS: list(frame[c.IMAGE_ID][unlabelled])}
    counts = {f"images_without_{case}": known.count("")}
    tree = load_taxonomy(taxonomy)
    return Published(frame[~unlabelled], tree, table.parent, table.name, counts=counts, left_out=left_out)
