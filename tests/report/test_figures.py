from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from hierderm.evaluation.evaluation import Evaluation, Metric
from hierderm.evaluation.inference.differences import Difference
from hierderm.report.figures import headline_plot, plot

pytestmark = pytest.mark.usefixtures("drawn")


def drawing(label: str) -> str:
    figure = Figure()
    axes = figure.add_subplot()
    axes.plot([0, 1.23456], [0, 1], "o", markerfacecolor="white", color="#4477AA")
    axes.set_xlabel(label)
    return str(plot("p", "a & b", figure).svg[0])


def test_a_plot_takes_the_colours_of_the_page() -> None:
    svg = drawing("0.12345 & <b>")
    assert svg.startswith('<svg class="plot" role="img" aria-label="a &amp; b" style="max-width: ')
    assert "#000000" not in svg and "#ffffff" not in svg and "var(--paper, #fff)" in svg
    assert "http" not in svg and "matplotlib" not in svg and "<g id" not in svg
    assert ">0.12345 &amp; &lt;b&gt;</text>" in svg  # text is text, and whole
    assert not re.search(r"<[^>]*\.\d{3}", svg)  # places are not to a thousandth of a point
    assert svg == drawing("0.12345 & <b>")


def test_the_plot_of_the_first_screen() -> None:
    found = [Difference(level, "ami", "m", name, 0.1, 0.0, 0.2) for level in ("coarse", "fine") for name in ("a", "b")]
    shown = headline_plot([], found)
    assert shown is not None and shown.name == "paired-differences" and len(shown.svg) == 3
    widths = [float(re.search(r"viewBox=\"0 0 ([\d.]+)", str(svg))[1]) for svg in shown.svg]  # type: ignore[index]
    assert widths[0] >= widths[1] >= widths[2]
    alone = Evaluation("m", (Metric("fine", "ami", 0.5, 0.4, 0.6, 9),), (), 9, 9, {})
    values = headline_plot([alone], [])
    assert values is not None and values.name == "main-metrics" and len(values.svg) == 1
    undefined = Evaluation("m", (Metric("fine", "ami", np.nan, np.nan, np.nan, 0),), (), 9, 9, {})
    assert headline_plot([undefined], []) is None
