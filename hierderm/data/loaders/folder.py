"""Images in folders: `<coarse>/<fine>/<image>` brings its own tree, `<fine>/<image>` needs a taxonomy."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from hierderm import columns as c
from hierderm.data.loaders.published import Published
from hierderm.errors import CaseTableError, Fault, describe_faults, some_of
from hierderm.files import os_faults

if TYPE_CHECKING:
    from collections.abc import Sequence


@os_faults(CaseTableError)
def read_folder(
    folder: Annotated[Path, "<category>/<condition>/<image>, or <condition>/<image> with --taxonomy."],
    *,
    taxonomy: Annotated[str, "A shipped taxonomy's id, or a file; not needed with categories."] = "",
    case_pattern: Annotated[str, "Regular expression that finds the case id in a file name."] = "",
) -> Published:
    """Images in folders. The tree of <category>/<condition> folders is written beside the table.

    `case_pattern` is searched in each file name; what its first group (or the whole match) finds is the case id.
    Without it every image is a case of its own. Images are known by suffix or content; everything else is left out and
    named.

    Example: `hierderm data folder photos -o cases.csv --case-pattern "^(p[0-9]+)_"`
    """
    from hierderm.data.image_files import find_images
    from hierderm.data.table import frame_from_rows
    from hierderm.taxonomy.file import load_taxonomy
    from hierderm.taxonomy.tree import taxonomy_from_paths

    folder, tree = Path(folder), load_taxonomy(taxonomy) if taxonomy else None
    if not folder.is_dir():
        raise CaseTableError(f"{folder} must be a folder of images, it is not a folder.")
    found = find_images(folder)
    if not found.images:
        raise CaseTableError(f"{folder} holds no images{found.in_words()}; all its folders were searched.")
    depths = {len(p.relative_to(folder).parts): p for p in reversed(found.images)}
    if set(depths) == {3}:
        levels = [p.relative_to(folder).parts[:2] for p in found.images]
        tree = tree or taxonomy_from_paths(levels, ("category", "condition"), id=folder.resolve().name or "folder")
    elif set(depths) != {2} or tree is None:
        examples = some_of([str(depths[depth].relative_to(folder)) for depth in sorted(depths)])
        raise CaseTableError(
            f"{folder} must be laid out as <category>/<condition>/<image>, or as <condition>/<image> with a "
            f"taxonomy (--taxonomy); its images lie {sorted(depth - 1 for depth in depths)} folder(s) deep ({examples})"
            f"{'' if tree else ' and no taxonomy is given'}."
        )
    rows = _rows(folder, found.images, case_pattern)
    return Published(
        frame_from_rows(rows), tree, folder, str(folder), left_out=found.left_out, brings_tree=not taxonomy
    )


def _rows(folder: Path, images: Sequence[Path], case_pattern: str) -> list[dict[str, str]]:
    try:
        pattern = re.compile(case_pattern)
    except re.error as error:
        raise CaseTableError(f"the case pattern '{case_pattern}' is no regular expression ({error}).") from None
    rows, faults = [], []
    stems = Counter(image.with_suffix("") for image in images)
    for image in images:
        relative = image.relative_to(folder)
        several = stems[image.with_suffix("")] > 1  # as 1.jpg and 1.png
        image_id = case_id = (relative if several else relative.with_suffix("")).as_posix()
        if case_pattern:
            match = pattern.search(image.name)
            case_id = "" if match is None else match.group(1 if match.groups() else 0) or ""
            if not case_id:
                faults.append(Fault(str(image), f"the case pattern '{case_pattern}' finds nothing in the file name."))
        rows.append(
            {
                c.IMAGE_PATH: relative.as_posix(),
                c.IMAGE_ID: image_id,
                c.CASE_ID: case_id,
                c.CONDITION: relative.parts[-2],
            }
        )
    if faults:
        raise CaseTableError(describe_faults(f"{folder} has {len(faults)} fault(s):", faults))
    return rows
