"""What all pages share: layout, style sheet, script and disclaimer. A page loads nothing from elsewhere."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hierderm import __version__

DISCLAIMER = (
    "This is a research tool, not a medical device. It must not be used to diagnose, to treat, or to decide whether "
    "somebody sees a doctor."
)


_GENERATOR = b'<meta name="generator" content="hierderm">'  # in every page
_TITLE = "hierderm"  # in the title of every page, which its PDF has as UTF-16 in hexadecimal digits, or as it is


def is_ours(content: bytes) -> bool:
    """Whether a page, a PDF of one, or a plot as PNG is of hierderm and may be written anew."""
    if content.startswith(b"%PDF"):
        return _TITLE.encode() in content or _TITLE.encode("utf-16-be").hex().upper().encode() in content
    return (b"hierderm" if content.startswith(b"\x89PNG") else _GENERATOR) in content[:2000]


def render(template: str, **values: Any) -> str:
    """The HTML of one of our templates, self-contained."""
    return _environment().get_template(template).render(version=__version__, disclaimer=DISCLAIMER, **values)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("hierderm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
