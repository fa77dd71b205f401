"""The Fitzpatrick17k table (Groh et al., CVPR workshops 2021): one row an image, named `<md5hash>.jpg`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from hierderm import columns as c
from hierderm.data.loaders.published import Published, read_published
from hierderm.errors import CaseTableError

WRONGLY_LABELLED = "3"  # the code that their review's text begins with
WRONG = "image(s) that the authors mark as wrongly labelled"  # the reason to leave them out


def read_fitzpatrick17k(
    table: Annotated[Path, "The published fitzpatrick17k.csv, or its folder."],
    *,
    images: Annotated[Path | None, "Folder of <md5hash>.jpg; the table's by default."] = None,
    taxonomy: Annotated[str, "A shipped taxonomy's id, or a file."] = "fitzpatrick17k",
    keep_wrong: Annotated[bool, "Keep rows that the authors mark as wrongly labelled."] = False,
) -> Published:
    """The Fitzpatrick17k table and its images.

    There are no patient ids: each image is a case of its own, and near-duplicates, which are known to occur, are kept
    together by the split. Skin type -1 (unknown) becomes empty. Rows that the authors' review marks as wrongly labelled
    are left out, and named.

    Example: `hierderm data fitzpatrick17k fitzpatrick17k.csv --images images -o cases.csv --unreadable exclude`
    """
    from hierderm.data.table import frame_from_rows
    from hierderm.taxonomy.file import load_taxonomy

    frame, table = read_published(table, ("fitzpatrick17k.csv",), ("md5hash", "label", "fitzpatrick_scale"))
    left_out: dict[str, list[str]] = {}
    if "qc" in frame and not keep_wrong:
        wrong = frame["qc"].str.strip().str.startswith(WRONGLY_LABELLED)
        left_out = {WRONG: list(frame["md5hash"][wrong])}
        frame = frame[~wrong]
    if frame.empty:
        said = f": all {len(left_out[WRONG])} are marked as wrongly labelled (--keep-wrong)" if left_out else ""
        raise CaseTableError(f"{table.name} must have a row an image, it has none to take{said}.")
    rows = [
        {
            c.IMAGE_PATH: f"{row['md5hash']}.jpg",
            c.IMAGE_ID: row["md5hash"],
            c.CASE_ID: row["md5hash"],
            c.CONDITION: row["label"],
            c.FITZPATRICK: "" if row["fitzpatrick_scale"].strip() in ("-1", "") else row["fitzpatrick_scale"],
            c.SOURCE: "fitzpatrick17k",
        }
        for row in frame.to_dict("records")
    ]
    made = frame_from_rows(rows).set_axis(frame.index)  # the numbers of the published rows
    return Published(made, load_taxonomy(taxonomy), images or table.parent, table.name, left_out=left_out)
