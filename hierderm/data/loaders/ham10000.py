"""HAM10000 as published (Tschandl et al., Scientific Data 2018): a row an image, named by id alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from hierderm import columns as c
from hierderm.data.loaders.published import Published, read_published

TABLES = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")  # of Kaggle, and of the Dataverse


def read_ham10000(
    folder: Annotated[Path, "The published folder, with HAM10000_metadata.csv and the folders of images."],
    *,
    taxonomy: Annotated[str, "A shipped taxonomy's id, or a file."] = "ham10000",
) -> Published:
    """HAM10000: HAM10000_metadata.csv and its images.

    A lesion is a case: several images of one lesion stay together. Patients are not published.

    Example: `hierderm data ham10000 HAM10000 -o cases.csv`
    """
    from hierderm.data.checks import take_columns
    from hierderm.taxonomy.file import load_taxonomy

    frame, table = read_published(folder, TABLES, ("lesion_id", "image_id", "dx", "localization"))
    ours = {
        c.IMAGE_PATH: "image_id", c.IMAGE_ID: "image_id", c.CASE_ID: "lesion_id", c.CONDITION: "dx",
        c.BODY_SITE: "localization",
    }  # fmt: skip
    frame = take_columns(frame, ours, table.name).assign(**{c.SOURCE: "ham10000"})
    return Published(frame, load_taxonomy(taxonomy), table.parent, table.name)
