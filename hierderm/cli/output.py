"""What the commands share: common options, and how results, tables and messages are printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from hierderm.evaluation.evaluation import Metric

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
PdfFlag = Annotated[
    bool,
    typer.Option("--pdf", help="Print one page of the report, too, by Chromium, Chrome or Edge (HIERDERM_BROWSER)."),
]
OutFile = Annotated[Path, typer.Option("--out", "-o", help="CSV or Parquet file to write.")]
Replace = Annotated[bool, typer.Option("--replace", help="Replace the output of an earlier run.")]
TaxonomyName = Annotated[str, typer.Option("--taxonomy", "-t", help="A shipped taxonomy's id, or a file.")]
ModelName = Annotated[
    str, typer.Option("--model", "-m", help="A model folder or a run's, or a backbone by name such as hierderm:tiny.")
]
EngineName = Annotated[
    Literal["auto", "torch", "onnx"], typer.Option("--engine", help="What computes on a CPU; auto: the faster.")
]
Unreadable = Annotated[
    Literal["error", "exclude"], typer.Option(help="Images that can't be read: stop, or leave out and list.")
]
ExternalChoice = Literal["", "error", "exclude"]
External = Annotated[
    ExternalChoice,
    typer.Option(
        help="The cases are of another source than the model's training. What it has seen, by case, file or "
        "photograph: stop, or leave out and list.",
        show_default=False,
    ),
]
Unknown = Annotated[
    Literal["error", "exclude"], typer.Option(help="Conditions the taxonomy lacks: stop, or leave out and list.")
]


def say(text: str) -> None:
    """A message to the user, on standard error."""
    typer.echo(text, err=True)


def show_json(content: Any) -> None:
    """A result on standard output, as JSON."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def show_table(table: Table, *, width: int = 160, markup: bool = True) -> None:
    """A table on standard output, as wide as the terminal, or `width` characters where there is none."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else width, markup=markup).print(table)


def show(result: dict[str, Any], as_json: bool, text: str) -> None:
    """A result on standard output, as JSON or as text."""
    if as_json:
        show_json(result)
    else:
        typer.echo(text)


def value_with_interval(metric: Metric) -> str:
    """A metric as text, with its interval and how many images or cases have no value."""
    if metric.value != metric.value:  # nan
        return "undefined" + (f"  ({metric.skipped} skipped)" if metric.skipped else "")
    ends = "" if metric.low != metric.low else f"  [{metric.low:.3f}, {metric.high:.3f}]"
    return f"{metric.value:7.3f}{ends}" + (f"  ({metric.skipped} skipped)" if metric.skipped else "")
