"""The command line. Heavy imports happen inside commands, so that help answers at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from hierderm import __version__
from hierderm.cli.backbones import backbones
from hierderm.cli.benchmark import bench_app
from hierderm.cli.data import data_app, split
from hierderm.cli.doctor import doctor
from hierderm.cli.evaluate import evaluate
from hierderm.cli.index import index_app
from hierderm.cli.output import JsonFlag, PdfFlag, say
from hierderm.cli.search import search, serve
from hierderm.cli.settings import TAKES_SETTINGS
from hierderm.cli.share import export, push, truncate
from hierderm.cli.stopping import program, stopping
from hierderm.cli.taxonomy import taxonomy_app
from hierderm.cli.train import compare, embed, inflation, run_comparison, train
from hierderm.cli.tune import tune
from hierderm.errors import ConfigError, HierdermError, describe_os_error
from hierderm.progress import printable, show_messages
from hierderm.shipped import experiment_list
from hierderm.threads import set_threads

EXPERIMENTS = f"\b\nShipped experiments, for [CONFIG]:\n{experiment_list()}"  # of help; \b keeps its lines
app = typer.Typer(
    help="Hierarchical image embeddings for dermatology research. Not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(taxonomy_app, name="taxonomy")
app.add_typer(data_app, name="data")
app.add_typer(index_app, name="index")
app.add_typer(bench_app, name="bench")
app.command(context_settings=TAKES_SETTINGS)(split)
app.command(context_settings=TAKES_SETTINGS, epilog=EXPERIMENTS)(train)
app.command(context_settings=TAKES_SETTINGS, epilog=EXPERIMENTS)(tune)
app.command()(embed)
app.command()(backbones)
app.command()(export)
app.command()(truncate)
app.command()(push)
app.command(context_settings=TAKES_SETTINGS)(evaluate)
app.command(context_settings=TAKES_SETTINGS, epilog=EXPERIMENTS)(compare)
app.command(context_settings=TAKES_SETTINGS, epilog=EXPERIMENTS)(inflation)
app.command()(search)
app.command()(serve)
app.command()(doctor)

SEVERAL_PROCESSES = ("train", "embed")  # what `torchrun` may start


def main() -> None:
    """Run the command line; errors that a user can mend end with their message and exit code 1, without a traceback."""
    with stopping():
        try:
            app()
        except (HierdermError, OSError) as error:
            message = str(error) if isinstance(error, HierdermError) else describe_os_error(error)
            typer.secho(printable(f"Error: {message}"), fg="red" if sys.stderr.isatty() else None, err=True)
            sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hierderm {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with; by default OMP_NUM_THREADS, or all cores.")
    ] = None,
) -> None:
    command, processes = context.invoked_subcommand, os.environ.get("WORLD_SIZE", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ and processes != "1" and command not in SEVERAL_PROCESSES:
        raise ConfigError(
            f"{command} runs in one process, torchrun has started {processes}, which would all write the same. "
            f"Start it without torchrun; with it run {' and '.join(SEVERAL_PROCESSES)}."
        )
    set_threads(threads)
    show_messages()


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of results.")] = Path("runs/demo"),
    pdf: PdfFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Compare on the built-in data, and index it.

    Offline, in a few minutes: what hierderm does, in one command.
    """
    from hierderm.artifacts import holds
    from hierderm.config.loading import load_comparison
    from hierderm.data.checks import read_cases
    from hierderm.search.case_index import CaseIndex
    from hierderm.search.persistence import KIND
    from hierderm.taxonomy.file import read_taxonomy

    comparison = load_comparison("three_way")
    run_comparison(comparison, out, as_json, pdf)
    index = out / "index"
    if not holds(index, KIND):
        say("Indexing the training and validation cases ...")
        cases = read_cases(out / "cases.csv", read_taxonomy(out / "taxonomy.csv"), decode=False)
        # 96 validation cases are too few to promise more than this.
        run = out / "models" / comparison.focus
        CaseIndex.build(
            cases, run / "model", embeddings=run / "embeddings", splits=("train", "validation"), accuracy=0.65
        ).save(index)
    say(f"Search page: {program()} serve {index.resolve()}")


@app.command("config", epilog=EXPERIMENTS)
def show_config(
    file: Annotated[
        Path | None, typer.Argument(help="A TOML file, or a shipped experiment, to check and complete.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="vanilla, linear_probe, lda, tree_lda or gradient; tree_lda by default.")
    ] = "",
) -> None:
    """List the settings of a method, or check a file.

    With a file or a shipped experiment: checked, and completed with the defaults.

    Example: `hierderm config --method gradient > run.toml`
    """
    from hierderm.config.describe import describe_toml
    from hierderm.config.loading import dump_config, load_settings

    if file is not None and method:
        raise ConfigError("give either a file, which names its method, or --method, and not both.")
    if file is not None:
        typer.echo(dump_config(load_settings(file)))
        return
    experiments = "\n".join(f"# {line}" for line in experiment_list().splitlines())
    typer.echo(f"{describe_toml(method)}\n\n# Shipped experiments, which commands take by name:\n{experiments}")


if __name__ == "__main__":
    main()
