"""The points of the map that is part of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hierderm.plots import map_look
from hierderm.types import Floats, IntArray

MAP_SIDE = 560  # in its own units


def map_points(where: Floats, labels: IntArray, texts: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Place, colour, shape and text of each point of a map in the page, and the legend.

    `where`: shape (n, 2); `labels`: the category of each point.
    """
    low, span = where.min(axis=0), np.ptp(where, axis=0)
    placed = (where - low) / np.where(span > 0, span, 1) * (MAP_SIDE - 20) + 10
    style = {label: map_look(n) for n, label in enumerate(np.unique(labels))}
    points = [
        {"n": n, "x": round(float(x), 1), "y": round(float(y), 1), **style[label], "text": text}
        for n, ((x, y), label, text) in enumerate(zip(placed, labels.tolist(), texts, strict=True))
    ]
    return {
        "side": MAP_SIDE,
        "points": points,
        "legend": [{"name": names[label], **look} for label, look in style.items()],
    }
