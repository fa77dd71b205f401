"""A search as one self-contained page: the query, the answer, and the cases that were found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from hierderm.data.image_io import open_image
from hierderm.files import write_atomically
from hierderm.report.overlay import why_images
from hierderm.report.page import render
from hierderm.report.thumbnails import thumbnail_uri
from hierderm.search.finder import CaseFinder
from hierderm.search.why import HINT

SIDE = 160  # pixels of an image's longer side
MAX_CANDIDATES = 5  # nodes of a differential that are shown, at each level


def write_contact_sheet(
    path: Path,
    queries: Sequence[tuple[str, Sequence[Image.Image], dict[str, Any]]],
    index: str,
    *,
    why: CaseFinder | None = None,
    replace: bool = False,
) -> None:
    """Write a page of searches: for each query its title, its images and what `FinderResult.to_dict` gives.

    `index`: the folder of the index, as the page shows it. `why`: the finder, where each hit shall show which places of
    it and of the query are alike.
    """
    shown = [_query(title, images, found, why) for title, images, found in queries]
    hint = HINT if why is not None else ""
    write_atomically(path, render("contact.html.j2", index=index, queries=shown, hint=hint), replace=replace)


def _query(title: str, images: Sequence[Image.Image], found: dict[str, Any], why: CaseFinder | None) -> dict[str, Any]:
    def shown(hit: dict[str, Any]) -> dict[str, Any]:
        if why is None or not images:
            return {**hit, "image": thumbnail_uri(open_image(Path(hit["image_path"])), SIDE), "query": ""}
        _, query, case = why_images(why, images, hit["image_id"], SIDE)
        return {**hit, "image": thumbnail_uri(case, SIDE), "query": thumbnail_uri(query, SIDE)}

    answer = found["answer"]
    levels = zip(found["levels"], answer["differential"], strict=True) if answer else ()
    return {
        "title": title,
        "images": [thumbnail_uri(image, SIDE) for image in images],
        "hits": [shown(hit) for hit in found["hits"]],
        "answer": answer,
        "differential": [(level, nodes[:MAX_CANDIDATES]) for level, nodes in levels],
    }
