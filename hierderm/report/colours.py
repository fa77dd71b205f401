"""The colours of categories and models."""

from __future__ import annotations

# Twenty colours told apart by most readers; categories beyond repeat them with another marker.
PALETTE = (
    "#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#999999", "#004488", "#DDAA33", "#BB5566",
    "#000000", "#117733", "#88CCEE", "#DDCC77", "#882255", "#44AA99", "#332288", "#CC6677", "#661100", "#6699CC",
)  # fmt: skip
