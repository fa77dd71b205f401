"""PAD-UFES-20 as published (Pacheco et al., Data in Brief 2020): smartphone photographs with clinical data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from hierderm import columns as c
from hierderm.data.loaders.published import Published, read_published


def read_pad_ufes(
    folder: Annotated[Path, "The published folder, with metadata.csv and images/imgs_part_1 to 3."],
    *,
    taxonomy: Annotated[str, "A shipped taxonomy's id, or a file."] = "pad_ufes",
    case: Annotated[Literal["patient", "lesion"], "What counts as a case."] = "patient",
) -> Published:
    """PAD-UFES-20: metadata.csv and its images.

    A patient is a case, as lesions of one patient resemble each other. `lesion` becomes patient and lesion, since the
    published lesion ids are used again for other patients.

    Example: `hierderm data pad_ufes PAD-UFES-20 -o cases.csv`
    """
    from hierderm.data.checks import take_columns
    from hierderm.taxonomy.file import load_taxonomy

    needed = ("patient_id", "lesion_id", "img_id", "diagnostic", "fitspatrick", "region")
    frame, table = read_published(folder, ("metadata.csv",), needed)
    frame["lesion_id"] = frame["patient_id"] + "/" + frame["lesion_id"]
    ours = {
        c.IMAGE_PATH: "img_id", c.CASE_ID: f"{case}_id", c.CONDITION: "diagnostic", c.FITZPATRICK: "fitspatrick",
        c.BODY_SITE: "region",
    }  # fmt: skip
    frame = take_columns(frame, ours, table.name).assign(**{c.SOURCE: "pad_ufes"})
    frame[c.IMAGE_ID] = frame[c.IMAGE_PATH].str.removesuffix(".png")
    return Published(frame, load_taxonomy(taxonomy), table.parent, table.name)
