"""A search as one self-contained page: the query, the answer, and the cases that were found."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from hierderm import __version__
from hierderm.artifacts import write_atomically
from hierderm.data.image_io import open_image
from hierderm.report.model_card import DISCLAIMER
from hierderm.report.thumbnails import thumbnail_uri

SIDE = 160  # pixels of a picture's longer side
SHOWN = 5  # nodes of a differential


def write_contact_sheet(
    path: Path, queries: Sequence[tuple[str, Sequence[Image.Image], dict[str, Any]]], root_of_index: str
) -> None:
    """Write a page of searches: for each query its title, its pictures and what `CaseFinder.describe` gives."""
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = template.from_string((files("hierderm.report") / "templates" / "contact.html.j2").read_text()).render(
        disclaimer=DISCLAIMER,
        version=__version__,
        index=root_of_index,
        queries=[
            {
                "title": title,
                "pictures": [thumbnail_uri(picture, SIDE) for picture in pictures],
                "hits": [{**hit, "picture": _hit_picture(hit["file"])} for hit in found["hits"]],
                "answer": found["answer"],
                "differential": [
                    (level, nodes[:SHOWN])
                    for level, nodes in zip(found["levels"], found["answer"]["differential"], strict=True)
                ]
                if found["answer"]
                else [],
            }
            for title, pictures, found in queries
        ],
    )
    write_atomically(path, page)


def _hit_picture(file: str) -> str:
    return thumbnail_uri(open_image(Path(file)), SIDE)
