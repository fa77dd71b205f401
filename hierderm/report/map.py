"""A map of the embeddings as SVG inside the page: points whose picture shows when they are pointed at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hierderm.report.colours import PALETTE
from hierderm.types import Floats, IntArray

SIDE = 560  # of the drawing, in its own units
SHAPES = ("circle", "square", "diamond")


def map_points(where: Floats, labels: IntArray, texts: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """What the template draws: for each point its place, colour, shape and text; and the legend.

    `where`: shape (n, 2); `labels`: the category of each point; the 20 colours repeat with another shape.
    """
    low, span = where.min(axis=0), np.ptp(where, axis=0)
    placed = (where - low) / np.where(span > 0, span, 1) * (SIDE - 20) + 10
    style = {label: (PALETTE[n % 20], SHAPES[n // 20 % len(SHAPES)]) for n, label in enumerate(np.unique(labels))}
    points = [
        {
            "n": n,
            "x": round(float(x), 1),
            "y": round(float(y), 1),
            "colour": style[label][0],
            "shape": style[label][1],
            "text": text,
        }
        for n, ((x, y), label, text) in enumerate(zip(placed, labels.tolist(), texts, strict=True))
    ]
    legend = [{"name": names[label], "colour": colour, "shape": shape} for label, (colour, shape) in style.items()]
    return {"side": SIDE, "points": points, "legend": legend}
