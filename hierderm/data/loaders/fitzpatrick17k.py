"""The Fitzpatrick17k table (Groh et al., CVPR workshops 2021): one row a image, named `<md5hash>.jpg`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hierderm import columns as c
from hierderm.data.table import frame_from_rows, read_frame
from hierderm.errors import CaseTableError

WRONGLY_LABELLED = "3 Wrongly labelled"


def read_fitzpatrick17k(table: Path, *, keep_wrong: bool = False) -> pd.DataFrame:
    """Rows of `fitzpatrick17k.csv` (not yet checked), image paths relative to the folder of images.

    There are no patient ids: each image is a case of its own, and near-duplicates, which are known to occur, are
    kept together by the split. Skin type -1 (unknown) becomes empty. Rows that the authors' review marks as wrongly
    labelled are left out unless `keep_wrong`.
    """
    frame = read_frame(table)
    lacking = [name for name in ("md5hash", "label", "fitzpatrick_scale") if name not in frame]
    if lacking:
        raise CaseTableError(f"{table.name} must be the published fitzpatrick17k.csv; it has no column {lacking}.")
    if "qc" in frame and not keep_wrong:
        frame = frame[frame["qc"].str.strip() != WRONGLY_LABELLED]
    return frame_from_rows(
        [
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
    )
