"""Images in folders: `<coarse>/<fine>/*.jpg` brings its own tree, `<fine>/*.jpg` needs a taxonomy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from hierderm import columns as c
from hierderm.data.loaders.published import Published
from hierderm.errors import CaseTableError


def read_folder(
    folder: Annotated[Path, "<category>/<condition>/*.jpg, or <condition>/*.jpg with --taxonomy."],
    *,
    taxonomy: Annotated[str, "A shipped taxonomy's id, or a file; not needed with categories."] = "",
    case_pattern: Annotated[str, "Regular expression that finds the case id in a file name."] = "",
) -> Published:
    """Images in folders. The tree of <category>/<condition> folders is written beside the table.

    `case_pattern` is searched in each file name; what its first group (or the whole match) finds is the case id.
    Without it every image is a case of its own.

    Example: `hierderm data folder photos -o cases.csv --case-pattern "^(p[0-9]+)_"`
    """
    from hierderm.data.image_io import SUFFIXES
    from hierderm.data.table import frame_from_rows
    from hierderm.taxonomy.file import load_taxonomy
    from hierderm.taxonomy.tree import taxonomy_from_paths

    tree = load_taxonomy(taxonomy) if taxonomy else None
    if not folder.is_dir():
        raise CaseTableError(f"{folder} must be a folder of images, it is not a folder.")
    images = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not images:
        raise CaseTableError(f"{folder} holds no images; looked for {', '.join(SUFFIXES)} in all its folders.")
    depths = {len(p.relative_to(folder).parts) for p in images}
    if depths == {3}:
        levels = [p.relative_to(folder).parts[:2] for p in images]
        tree = tree or taxonomy_from_paths(levels, ("category", "condition"), id=folder.resolve().name)
    elif depths != {2} or tree is None:
        raise CaseTableError(
            f"{folder} must be laid out as <category>/<condition>/<image>, or as <condition>/<image> with a "
            f"taxonomy (--taxonomy); its images lie {sorted(depth - 1 for depth in depths)} folder(s) deep"
            f"{'' if tree else ' and no taxonomy is given'}."
        )
    rows = [_row(folder, p, case_pattern) for p in images]
    return Published(frame_from_rows(rows), tree, folder, str(folder), brings_tree=not taxonomy)


def _row(folder: Path, image: Path, case_pattern: str) -> dict[str, str]:
    relative = image.relative_to(folder)
    image_id = relative.with_suffix("").as_posix()
    case_id = image_id
    if case_pattern:
        match = re.search(case_pattern, image.name)
        if match is None:
            raise CaseTableError(f"{image}: the case pattern '{case_pattern}' finds nothing in the file name.")
        case_id = match.group(1 if match.groups() else 0)
    return {
        c.IMAGE_PATH: relative.as_posix(),
        c.IMAGE_ID: image_id,
        c.CASE_ID: case_id,
        c.CONDITION: relative.parts[-2],
    }
