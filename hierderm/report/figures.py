"""Plots inside pages: vector graphics in the colours of the page, which its script hands out as SVG and PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from hierderm import plots
from hierderm.evaluation.evaluation import Evaluation
from hierderm.evaluation.inference.differences import Difference

# Text stays text; the same plot has the same bytes.
_TEXT: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "hierderm"}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


class Plot(NamedTuple):
    """A plot of a page. `name`: the end of its file names; `alt`: what it shows, in words; `svg`: widest layout first.

    Where there are several layouts the page shows the one that fits its width.
    """

    name: str
    alt: str
    svg: tuple[Markup, ...]


def plot(name: str, alt: str, *figures: Figure) -> Plot:
    """Figures, one for each layout, as the plot of a page."""
    return Plot(name, alt, tuple(_svg(figure, alt) for figure in figures))


def headline_plot(evaluations: Sequence[Evaluation], differences: Sequence[Difference]) -> Plot | None:
    """The plot of the first screen: paired differences, or without any the values with their intervals.

    None where there are neither.
    """
    if differences:
        by_level = sorted(differences, key=lambda d: (d.level, d.name))
        by_metric = sorted(differences, key=lambda d: (d.name, d.level))  # in two columns coarse and fine side by side
        layouts = ((by_level, 6), (by_level, 3), (by_metric, 2))
        alt = f"forest plot: {differences[0].model} minus each other model in the main metrics, with intervals"
        return plot("paired-differences", alt, *(plots.forest(found, columns) for found, columns in layouts))
    if plots.headline_keys(evaluations):
        return plot("main-metrics", "main metrics with their intervals", plots.scores(evaluations))
    return None


def _svg(figure: Figure, alt: str) -> Markup:
    """The figure as an element of a page: black is the page's ink, white its paper."""
    buffer = io.StringIO()
    with mpl.rc_context(_TEXT):
        figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata=_NO_METADATA)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for pattern, text in (
        (r"<metadata>.*?</metadata>|<!--.*?-->", ""),
        (r' xmlns(:xlink)?="[^"]*"', ""),  # a page knows them
        (r'<g id="[^"]*">', "<g>"),
        (r">\s+<", "><"),
        (r"\s*\n\s*", " "),
        ("#000000", "currentColor"),
        ("#ffffff", "var(--paper, #fff)"),
    ):
        svg = re.sub(pattern, text, svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)  # hundredths of a point
    width, height = (float(svg.split(f'{side}="', 1)[1].split("pt", 1)[0]) for side in ("width", "height"))
    head = f'<svg class="plot" role="img" aria-label="{Markup.escape(alt)}" style="max-width: {width / 0.75:.0f}px"'
    return Markup(f'{head} viewBox="0 0 {width:.2f} {height:.2f}">{svg.split(">", 1)[1]}')
