"""Ground truth of the ISIC challenges of 2018 (task 3) and 2019: a row an image, a column of 0 and 1 a class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from hierderm import columns as c
from hierderm.data.loaders.published import Published, first_known, read_published
from hierderm.errors import CaseTableError, Fault, describe_faults

if TYPE_CHECKING:
    import pandas as pd

CLASSES = ("MEL", "NV", "BCC", "AK", "AKIEC", "BKL", "DF", "VASC", "SCC")
UNKNOWN = "UNK"  # none of the other classes, in the test of 2019
NO_CLASS = "image(s) of none of the classes (UNK)"  # the reason to leave them out
END = "_GroundTruth.csv"
BESIDE = ("LesionGroupings", "Metadata")  # tables of the same images: of 2018 and of 2019


def read_isic_challenge(
    folder: Annotated[Path, "The folder of a ..._GroundTruth.csv, its images and its other tables; or that file."],
    *,
    taxonomy: Annotated[str, "A shipped taxonomy's id, or a file."] = "isic_challenge",
) -> Published:
    """An ISIC challenge: the one-hot ground truth of 2018 (task 3) or 2019.

    The case is the lesion, from the published ..._LesionGroupings.csv (2018) or ..._Metadata.csv (2019), or the image
    where it is not known. Images of none of the classes (UNK) are left out and named.

    Example: `hierderm data isic_challenge ISIC2018 -o cases.csv`
    """
    from hierderm.data.checks import take_columns
    from hierderm.taxonomy.file import load_taxonomy

    folder = Path(folder)
    found = sorted(folder.rglob(f"*{END}")) if folder.is_dir() else [folder]
    if len(found) > 1:
        names = [str(path.relative_to(folder)) for path in found]
        raise CaseTableError(f"{folder} must hold one published table, it has {names}. Give the file that you want.")
    frame, table = read_published(found[0] if found else folder, ("..." + END,), ("image",))
    root = folder if folder.is_dir() else table.parent
    frame = frame.drop(columns=[*_codes(frame), UNKNOWN], errors="ignore").assign(
        **{c.CONDITION: _classes(frame, table)}
    )
    frame = take_columns(_with_others(frame, table, root), {c.IMAGE_PATH: "image", c.IMAGE_ID: "image"}, table.name)
    frame[c.CASE_ID] = first_known(frame, ["lesion_id", c.IMAGE_ID])
    frame[c.BODY_SITE] = first_known(frame, ["anatom_site_general"])
    frame[c.SOURCE] = "isic_challenge"
    known, unknown = first_known(frame, ["lesion_id"]), frame[c.CONDITION] == UNKNOWN
    left_out = {NO_CLASS: list(frame[c.IMAGE_ID][unknown])}
    counts = {"images_without_lesion": known.count("")}
    return Published(frame[~unknown], load_taxonomy(taxonomy), root, table.name, counts=counts, left_out=left_out)


def _codes(frame: pd.DataFrame) -> list[str]:
    return [code for code in (*CLASSES, UNKNOWN) if code in frame]


def _classes(frame: pd.DataFrame, table: Path) -> list[str]:
    """The code of each row's class; CaseTableError where a row has none, or several, or other numbers than 0 and 1."""
    codes = _codes(frame)
    if len(codes) < 2:
        raise CaseTableError(
            f"{table.name} must have a column for each class, of {[*CLASSES, UNKNOWN]}; it has {codes}."
        )
    found, faults = [], []
    for row, cells in zip(frame.index, frame[codes].itertuples(index=False), strict=True):
        values = {code: {"0": 0, "0.0": 0, "1": 1, "1.0": 1}.get(cell) for code, cell in zip(codes, cells, strict=True)}
        mine = [code for code, value in values.items() if value]
        if wrong := [f"{code} = '{cell}'" for code, cell in zip(codes, cells, strict=True) if values[code] is None]:
            faults.append(Fault(f"{table.name} row {row}", f"classes must be 0 or 1, got {', '.join(wrong)}"))
        elif len(mine) != 1:
            faults.append(Fault(f"{table.name} row {row}", f"one class must be 1, got {', '.join(mine) or 'none'}"))
        found.append(mine[0] if mine else "")
    if faults:
        raise CaseTableError(describe_faults(f"{table.name} has {len(faults)} fault(s):", faults))
    return found


def _with_others(frame: pd.DataFrame, table: Path, root: Path) -> pd.DataFrame:
    """The table with the columns of the published tables of its images, where they are there."""
    start = table.name.removesuffix(END)
    for kind in BESIDE:
        for path in sorted(root.rglob(f"{start}_{kind}.csv"))[:1]:
            other, _ = read_published(path, (path.name,), ("image",))
            if twice := sorted(set(other["image"][other["image"].duplicated()])):
                raise CaseTableError(f"{path.name} must have a row an image, {len(twice)} have several: {twice[:3]}.")
            added = other.set_index("image").drop(columns=[name for name in other if name in frame], errors="ignore")
            frame = frame.join(added.reindex(frame["image"]).fillna("").set_axis(frame.index))
    return frame
