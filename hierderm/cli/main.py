"""The command line. Heavy imports happen inside commands, so that help answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hierderm import __version__
from hierderm.cli.benchmark import bench_app
from hierderm.cli.data import data_app, split
from hierderm.cli.evaluate import evaluate
from hierderm.cli.output import JsonFlag, say
from hierderm.cli.search import build_index, index_app, search, serve
from hierderm.cli.taxonomy import taxonomy_app
from hierderm.cli.train import compare, embed, inflation, run_comparison, train
from hierderm.errors import HierdermError

PASS_ON = {"ignore_unknown_options": True}  # settings are flags that the command itself reads

app = typer.Typer(
    help="Hierarchical image embeddings for dermatology research. Not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(taxonomy_app, name="taxonomy")
app.add_typer(data_app, name="data")
app.add_typer(index_app, name="index")
app.add_typer(bench_app, name="bench")
app.command()(split)
app.command(context_settings=PASS_ON)(train)
app.command()(embed)
app.command()(evaluate)
app.command(context_settings=PASS_ON)(compare)
app.command(context_settings=PASS_ON)(inflation)
app.command()(search)
app.command()(serve)


def main() -> None:
    """Run the command line; faults of the input end with their message and exit code 1, without a traceback."""
    try:
        app()
    except HierdermError as error:
        typer.secho(f"Error: {error}", fg="red" if sys.stderr.isatty() else None, err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        say("Stopped. The same command goes on from here.")
        sys.exit(130)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hierderm {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of results.")] = Path("runs/demo"),
    as_json: JsonFlag = False,
) -> None:
    """Compare on the built-in data, and index it.

    Offline, in a few minutes: what hierderm does, in one command.
    """
    from hierderm.artifacts import shipped
    from hierderm.config.loading import load_config
    from hierderm.search.storage import HEADER

    config = load_config(shipped("experiments") / "three_way.toml")
    run_comparison(config, out, as_json)
    index = out / "index"
    if not (index / HEADER).is_file():
        say("Indexing the training and validation cases ...")
        model = str(out / "models" / config.focus / "model")
        # 96 validation cases are too few to promise more than this; at 0.75 it would never name a condition.
        build_index(out / "cases.csv", model, index, splits=("train", "validation"), accuracy=0.65)
    say(f"Index:  {index.resolve()}\nOpen the page on it with: {Path(sys.argv[0])} serve {index}")


@app.command("config")
def show_config(
    file: Annotated[Path | None, typer.Argument(help="A TOML file to check and complete.")] = None,
) -> None:
    """List all settings, or check a file.

    With a file: the file checked and completed with the defaults.

    Example: `hierderm config > run.toml`
    """
    from hierderm.config.loading import describe_fields, dump_config, load_config

    if file is not None:
        typer.echo(dump_config(load_config(file)))
        return
    typer.echo(_default_toml(list(describe_fields())))


def _default_toml(settings: list[tuple[str, str, Any, str]]) -> str:
    import tomli_w

    lines: list[str] = []
    for name, kind, default, text in sorted(settings, key=lambda s: "." in s[0]):
        section, dot, key = name.rpartition(".")
        if dot and f"[{section}]" not in lines:
            lines += ["", f"[{section}]"]
        choices = f" ({kind})" if "|" in kind else ""
        if isinstance(default, dict):  # in one line, so that its comment can follow
            inside = ", ".join(tomli_w.dumps({inner: value}).strip() for inner, value in default.items())
            shown = f"{key} = {{ {inside} }}" if inside else f"{key} = {{}}"
        else:
            shown = tomli_w.dumps({key: default}).strip()
        lines.append(f"{shown}  # {text}{choices}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
