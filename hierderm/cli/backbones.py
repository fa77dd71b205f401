"""The command that lists backbones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from hierderm.cli.output import JsonFlag, show_json, show_table


def backbones(
    timed: Annotated[
        bool, typer.Option("--time", help="Measure how many images a second each takes on this machine.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """List backbones: what is here, what a name needs, size, input, licence.

    Any other model of timm or transformers works by its name, too.

    Example: `hierderm backbones --time`
    """
    from rich.markup import escape
    from rich.table import Table

    from hierderm.model.listing import BACKBONES, images_per_second

    speeds = {one.name: images_per_second(one.name) for one in BACKBONES if timed and not one.needs}
    if as_json:
        rows = [asdict(one) | {"megabytes": one.megabytes, "needs": one.needs} for one in BACKBONES]
        show_json([row | {"images_per_second": speeds.get(str(row["name"]))} for row in rows])
        return
    shown = Table(title="Backbones; any other model of timm ('timm:...') or transformers ('hf:...') works, too")
    numbers = ["million parameters", "MB", "input, px", "dim", *(["images/s"] if timed else [])]
    for title in ("name", *numbers, "licence", "pretraining", "needs"):
        shown.add_column(title, justify="right" if title in numbers else "left", overflow="fold")
    for one in BACKBONES:
        values = [f"{one.parameters:.1f}", f"{one.megabytes:.0f}", str(one.size), str(one.dim)]
        if timed:
            values.append(f"{speeds[one.name]:.0f}" if one.name in speeds else "–")
        shown.add_row(one.name, *values, one.licence, one.pretraining, escape(one.needs or "nothing: it is here"))
    show_table(shown)
