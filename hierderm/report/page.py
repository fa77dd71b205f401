"""What all pages share: the template environment, the style and the little script, all inside the page."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from hierderm import __version__
from hierderm.report.model_card import DISCLAIMER


def render(template: str, **values: Any) -> str:
    """A page from one of our templates; it loads nothing from elsewhere."""
    here = files("hierderm.report") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((here / template).read_text()).render(
        style=Markup((here / "page.css").read_text()),  # our own files, not the user's text
        script=Markup((here / "page.js").read_text()),
        version=__version__,
        disclaimer=DISCLAIMER,
        **values,
    )
