"""Plots that nobody looks at are not drawn: they take a fifth of the time of all trainings and comparisons."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from matplotlib.figure import Figure

_SAVE = Figure.savefig
_patches = pytest.MonkeyPatch()


def leave_undrawn() -> None:
    """From now on plots of trainings are empty, and files of plots are stand-ins."""
    _patches.setattr(Figure, "savefig", _undrawn)
    for name in ("hierderm.plots.history", "hierderm.report.model_card.choice_plot"):
        _patches.setattr(name, lambda *_: Figure())


@contextmanager
def drawing(pngs: bool = True) -> Iterator[None]:
    """Plots are drawn in the block. `pngs`: those of trainings, too, not only those of pages."""
    _patches.undo()
    if not pngs:
        _patches.setattr(Figure, "savefig", _without_png)
    yield
    _patches.undo()
    leave_undrawn()


def _undrawn(figure: Figure, target: Any, **options: Any) -> None:
    if options.get("format") == "svg":
        target.write('<svg width="1pt" height="1pt"></svg>')
    else:
        _without_png(figure, target, **options)


def _without_png(figure: Figure, target: Any, **options: Any) -> None:
    if options.get("metadata") == {"Software": "hierderm"}:
        target.write(b"\x89PNG hierderm, not drawn")
    else:
        _SAVE(figure, target, **options)
