"""A search as one self-contained page: the query, the answer, and the cases that were found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from hierderm.data.image_io import open_image
from hierderm.files import write_atomically
from hierderm.report.page import render
from hierderm.report.thumbnails import thumbnail_uri

SIDE = 160  # pixels of an image's longer side
MAX_CANDIDATES = 5  # nodes of a differential that are shown, at each level


def write_contact_sheet(
    path: Path,
    queries: Sequence[tuple[str, Sequence[Image.Image], dict[str, Any]]],
    index: str,
    *,
    replace: bool = False,
) -> None:
    """Write a page of searches: for each query its title, its images and what `FinderResult.to_dict` gives.

    `index`: the folder of the index, as the page shows it.
    """
    shown = [_query(title, images, found) for title, images, found in queries]
    write_atomically(path, render("contact.html.j2", index=index, queries=shown), replace=replace)


def _query(title: str, images: Sequence[Image.Image], found: dict[str, Any]) -> dict[str, Any]:
    answer = found["answer"]
    levels = zip(found["levels"], answer["differential"], strict=True) if answer else ()
    return {
        "title": title,
        "images": [thumbnail_uri(image, SIDE) for image in images],
        "hits": [{**hit, "image": thumbnail_uri(open_image(Path(hit["image_path"])), SIDE)} for hit in found["hits"]],
        "answer": answer,
        "differential": [(level, nodes[:MAX_CANDIDATES]) for level, nodes in levels],
    }
