"""Data sets for Hugging Face `datasets`: of the hub, saved to disk, or a folder that it reads."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hierderm import columns as c
from hierderm.data.loaders.published import Published
from hierderm.errors import CaseTableError, MissingExtraError

if TYPE_CHECKING:
    from datasets import Dataset

KIND = "images"  # of the folder that images are written to
SPLITS = {
    "train": c.TRAIN, "validation": c.VALIDATION, "valid": c.VALIDATION, "val": c.VALIDATION, "dev": c.VALIDATION,
    "test": c.TEST,
}  # fmt: skip
NESTED = "column(s) with several values in a cell"  # the reason to leave them out


def read_huggingface(
    dataset: Annotated[str, "A folder, or the name of a data set of the hub."],
    *,
    taxonomy: Annotated[str, "A shipped taxonomy's id, or a file."],
    write_images: Annotated[Path, "Folder for the images that the data set holds within its tables."],
    column: Annotated[list[str] | None, "Our column = its column; repeat for several."] = None,
    image: Annotated[str, "Its column of images, where it has several."] = "",
    config: Annotated[str, "Its configuration, where it has several."] = "",
) -> Published:
    """Any data set with images for Hugging Face datasets.

    All its splits are read, and kept where they are called train, validation and test. Columns that --column does not
    name are taken by their names, such as label for condition. Without a case id, every image is a case of its own.

    Example: `hierderm data huggingface saved -t scin --write-images images -o cases.csv --column case_id=patient`
    """
    import pandas as pd

    from hierderm.artifacts import claim_folder
    from hierderm.data.checks import take_columns
    from hierderm.data.column_names import named_columns, proposed_columns
    from hierderm.taxonomy.file import load_taxonomy

    tree, given, parts = load_taxonomy(taxonomy), named_columns(column), _load(dataset, config)
    claim_folder(write_images, KIND)
    rows: list[dict[str, Any]] = []
    nested = dict[str, None]()
    for split, part in parts.items():
        nested |= dict.fromkeys(_nested(part))
        rows += _rows(split, part, image, Path(write_images), dataset)
    if not rows:
        raise CaseTableError(f"{dataset} must have a row an image, it has none.")
    frame = pd.DataFrame(rows, dtype=object).fillna("")
    own = frame.columns.drop([c.IMAGE_PATH, c.IMAGE_ID])
    likely = {ours: theirs[0] for ours, theirs in proposed_columns(own, {*given, c.IMAGE_PATH, c.IMAGE_ID}).items()}
    frame = take_columns(frame, likely | given, dataset)
    each = c.CASE_ID not in frame
    if each:
        frame[c.CASE_ID] = frame[c.IMAGE_ID]
    if len(parts) > 1 and set(parts) <= set(SPLITS) and c.SPLIT not in frame:
        frame[c.SPLIT] = frame["published_split"].map(SPLITS)
    counts = {"images_that_are_a_case_each": len(frame) * each}
    root = Path(write_images).absolute()
    return Published(frame, tree, root, Path(dataset).name, counts=counts, left_out={NESTED: list(nested)})


def _load(dataset: str, config: str) -> dict[str, Dataset]:
    """Its splits by name; a data set without splits is one, 'all'."""
    try:
        from datasets import Dataset, load_dataset, load_from_disk
    except ImportError:
        raise MissingExtraError("a data set of Hugging Face", "datasets") from None
    place = Path(dataset)
    saved = any((place / name).is_file() for name in ("dataset_dict.json", "dataset_info.json"))
    try:
        found = load_from_disk(dataset) if saved else load_dataset(dataset, config or None)
    except (OSError, ValueError, LookupError, RuntimeError) as error:
        raise CaseTableError(f"{dataset} is no data set that `datasets` reads: {error}") from None
    return {"all": found} if isinstance(found, Dataset) else dict(found)


def _nested(part: Dataset) -> list[str]:
    from datasets import ClassLabel, Image, Value

    return [name for name, feature in part.features.items() if not isinstance(feature, ClassLabel | Image | Value)]


def _rows(split: str, part: Dataset, image: str, folder: Path, dataset: str) -> list[dict[str, Any]]:
    """The rows of a split as texts, its images as files."""
    from datasets import ClassLabel, Image, Value

    from hierderm.data.table import as_text

    images = [name for name, feature in part.features.items() if isinstance(feature, Image)]
    if image not in images and (image or len(images) != 1):
        raise CaseTableError(f"{dataset} must have one column of images, or one named by --image; it has {images}.")
    chosen = image or images[0]
    labels = {name: feature.names for name, feature in part.features.items() if isinstance(feature, ClassLabel)}
    texts = [name for name, feature in part.features.items() if isinstance(feature, Value)]
    part = part.select_columns([chosen, *labels, *texts]).cast_column(chosen, Image(decode=False))
    rows = []
    for number, row in enumerate(part):
        where = f"{dataset}, split {split}, row {number}"
        cells = {name: as_text(row[name]) for name in texts}
        cells |= {name: "" if row[name] in (None, -1) else known[row[name]] for name, known in labels.items()}
        ours = {c.IMAGE_PATH: _file_of(row[chosen], folder, where), c.IMAGE_ID: f"{split}-{number}"}
        rows.append({"published_split": split, **cells, **ours})
    return rows


def _file_of(cell: dict[str, Any] | None, folder: Path, where: str) -> str:
    """The path of an image's file; bytes are written to one that is named by them, as they are."""
    from hierderm.data.image_io import format_of
    from hierderm.files import write_atomically

    content, path = (cell or {}).get("bytes"), (cell or {}).get("path")
    if content is None:
        if not path:
            raise CaseTableError(f"{where} must have an image, it has none. Leave such rows out of the data set.")
        return str(Path(path).absolute())
    kind = format_of(content) or "bin"  # the check of the table will say what is wrong with it
    name = f"{hashlib.sha256(content).hexdigest()[:24]}.{'jpg' if kind == 'jpeg' else kind}"
    if not (folder / name).is_file():
        write_atomically(folder / name, content)
    return name
