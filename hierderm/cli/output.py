"""What the commands share: common options, and how results, tables and messages are printed."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.table import Table

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
OutFile = Annotated[Path, typer.Option("--out", "-o", help="CSV or Parquet file to write.")]
TaxonomyName = Annotated[str, typer.Option("--taxonomy", "-t", help="A shipped taxonomy's id, or a file.")]
Workers = Annotated[int, typer.Option(help="Processes that load images.")]
Unreadable = Annotated[
    Literal["error", "exclude"], typer.Option(help="Images that can't be read: stop, or leave out and list.")
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


WHAT_TO_DO = {
    errno.ENOSPC: "Free some space, or choose a folder on another disk.",
    errno.EDQUOT: "Free some space, or choose a folder on another disk.",
    errno.EROFS: "Choose a folder that can be written.",
    errno.EACCES: "Choose another place, or ask for permission.",
    errno.EPERM: "Choose another place, or ask for permission.",
    errno.ENOTDIR: "A part of the path is a file: choose another place.",
    errno.EEXIST: "A file is in the way: choose another place.",
    errno.EISDIR: "It is a folder: name a file.",
    errno.ENOENT: "Check the path.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EMFILE: "Too many files are open: use fewer workers, or raise the limit (ulimit -n).",
}


def describe_os_error(error: OSError) -> str:
    """What the operating system refused, where, and what to do."""
    paths = [str(path) for path in (error.filename, error.filename2) if path]
    reason = error.strerror or str(error) or type(error).__name__
    advice = WHAT_TO_DO.get(error.errno or 0, "")
    return f"{' -> '.join(paths)}{': ' if paths else ''}{reason}. {advice}".rstrip()
