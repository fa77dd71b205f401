"""Derm7pt as published (Kawahara et al., IEEE JBHI 2019): a clinical and a dermoscopic image of each case."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from hierderm import columns as c
from hierderm.data.loaders.published import Published, read_published
from hierderm.errors import CaseTableError

if TYPE_CHECKING:
    import pandas as pd

MODALITIES = ("clinic", "derm")  # their columns
INDEXES = {"train_indexes.csv": c.TRAIN, "valid_indexes.csv": c.VALIDATION, "test_indexes.csv": c.TEST}


def read_derm7pt(
    folder: Annotated[Path, "The published release_v0, with meta/meta.csv and images/."],
    *,
    taxonomy: Annotated[str, "A shipped taxonomy's id, or a file."] = "derm7pt",
    modality: Annotated[Literal["both", "clinic", "derm"], "Which images of each case."] = "both",
    published_split: Annotated[bool, "Keep the published training, validation and test cases."] = True,
) -> Published:
    """Derm7pt: meta/meta.csv, its images and its split.

    Each case has a clinical and a dermoscopic image, named by the column `modality`. The published split is kept, so
    that results compare with others; `--no-published-split` leaves the division to hierderm.

    Example: `hierderm data derm7pt release_v0 -o cases.csv --modality derm`
    """
    import pandas as pd

    from hierderm.data.checks import take_columns
    from hierderm.taxonomy.file import load_taxonomy

    frame, table = read_published(
        folder, ("meta/meta.csv", "meta.csv"), ("case_num", "diagnosis", "location", *MODALITIES)
    )
    frame = frame.rename(columns={c.CASE_ID: "atlas_id"})  # a text of theirs that is not unique
    if published_split:
        frame[c.SPLIT] = _splits(frame, table)
    parts = []
    for name in MODALITIES if modality == "both" else (modality,):
        ours = {c.IMAGE_PATH: name, c.CASE_ID: "case_num", c.CONDITION: "diagnosis", c.BODY_SITE: "location"}
        part = take_columns(frame.drop(columns=[other for other in MODALITIES if other != name]), ours, table.name)
        part[c.IMAGE_ID] = part[c.CASE_ID] + f"-{name}"
        parts.append(part.assign(**{c.SOURCE: "derm7pt", "modality": name}))
    root = table.parent.parent if table.parent.name == "meta" else table.parent
    return Published(pd.concat(parts), load_taxonomy(taxonomy), root, table.name)


def _splits(frame: pd.DataFrame, table: Path) -> list[str]:
    """The split of each case by the published files, which count the rows of the table from 0."""
    from hierderm.data.table import read_text_frame

    found: dict[int, list[str]] = {position: [] for position in range(len(frame))}
    for name, split in INDEXES.items():
        indexes = read_text_frame(table.parent / name)
        if "indexes" not in indexes:
            raise CaseTableError(f"{name} must have a column 'indexes', it has {list(indexes)}. Download it again.")
        for text in indexes["indexes"]:
            if not text.isdecimal() or int(text) not in found:
                raise CaseTableError(f"{name} must hold rows from 0 to {len(frame) - 1} of {table.name}, got '{text}'.")
            found[int(text)].append(split)
    if wrong := [position for position, splits in found.items() if len(splits) != 1]:
        raise CaseTableError(
            f"each row of {table.name} must be in one of {list(INDEXES)}, {len(wrong)} are not, the first is row "
            f"{wrong[0]} counted from 0. Download the files again, or give --no-published-split."
        )
    return [splits[0] for splits in found.values()]
