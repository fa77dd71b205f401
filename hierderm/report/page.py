"""What all pages share: layout, style sheet, script and disclaimer. A page loads nothing from elsewhere."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hierderm import __version__

DISCLAIMER = (
    "This is a research tool, not a medical device. It must not be used to diagnose, to treat, or to decide whether "
    "somebody sees a doctor."
)


GENERATOR = '<meta name="generator" content="hierderm">'  # in every page: what may be written anew


def render(template: str, **values: Any) -> str:
    """The HTML of one of our templates, self-contained."""
    environment = Environment(
        loader=PackageLoader("hierderm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(version=__version__, disclaimer=DISCLAIMER, **values)
