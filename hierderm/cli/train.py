"""The commands of models: train, embed, compare, inflation; and the settings they take as flags."""

from __future__ import annotations

from dataclasses import replace as replace_fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hierderm.cli.output import (
    EngineName,
    External,
    JsonFlag,
    ModelName,
    PdfFlag,
    Replace,
    Unknown,
    Unreadable,
    say,
    show_json,
    show_table,
)
from hierderm.cli.settings import file_and_settings, require_read
from hierderm.cli.taxonomy import OwnTaxonomy, tree_for
from hierderm.errors import ConfigError, OutputError
from hierderm.files import file_hash
from hierderm.json_files import read_json
from hierderm.shipped import experiment_list, experiment_titles

if TYPE_CHECKING:
    from hierderm.config.settings import Comparison
    from hierderm.data.shard import Shard


def _complete(incomplete: str) -> list[tuple[str, str]]:
    """Shipped experiments for the shell to complete; where none fits, it completes files."""
    return [pair for pair in experiment_titles().items() if pair[0].startswith(incomplete)]


Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG] [--section.setting VALUE]...",
        help="A TOML file or a shipped experiment, and settings that override it.",
        autocompletion=_complete,
    ),
]

ShardText = Annotated[
    str,
    typer.Option(
        help="Embed one of n parts of the rows, i/n, into OUT.i-of-n; auto: the number of this process of torchrun "
        "or of a Slurm array.",
        show_default=False,
    ),
]


def train(
    arguments: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; runs/NAME by default.")] = None,
) -> None:
    """Train one model.

    After an interruption give the same command again: it continues. Every setting is a flag, too
    (`hierderm config --method NAME` lists them). Several devices or machines: `torchrun ... -m hierderm train ...`.

    Example: `hierderm train --data.cases cases.csv --data.taxonomy scin --training.method gradient -o runs/first`
    """
    from hierderm.config.loading import load_config
    from hierderm.experiment.run import prepare
    from hierderm.experiment.run import train as train_model
    from hierderm.report.rows import chosen_setting, scores_text
    from hierderm.training.ranks import first_alone, rank, together

    file, settings = file_and_settings(arguments)
    require_read("train", settings, ["evaluation"], "Give them to compare or evaluate.")
    config = load_config(file, settings)
    folder = out or Path("runs") / config.name
    with together():
        with first_alone():
            table = prepare(config.data, config.split, folder)[0]
        run = train_model(config, table, folder)
        if rank() > 0:
            return
    best = run.history.iloc[run.chosen]
    setting = chosen_setting(run.history, run.chosen)
    chosen = f", {setting} ({run.chosen + 1} of {len(run.history)}, by {run.by})" if setting else ""
    typer.echo(f"{folder / 'model'}: {config.training.method}{chosen}; validation: {scores_text(best)}")


def embed(
    table: Annotated[Path, typer.Argument(help="A table of cases.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of embeddings to write.")],
    model: ModelName,
    taxonomy: OwnTaxonomy = "",
    unreadable: Unreadable = "error",
    unknown: Unknown = "error",
    external: External = "",
    replace: Replace = False,
    engine: EngineName = "auto",
    shard: ShardText = "",
    join: Annotated[bool, typer.Option("--join", help="Make OUT of the shards beside it, once all are there.")] = False,
) -> None:
    """Embed images with a model or a backbone.

    What is computed is kept: after an interruption give the same command again, it continues. On several machines: the
    command with --shard 1/8, 2/8 and so on, then with --join.

    Example: `hierderm embed cases.csv --model runs/first/model -o embeddings`
    """
    from hierderm.artifacts import require_free_folder
    from hierderm.embeddings import KIND
    from hierderm.model.sharding import Source, finished, join_shards, save_shard

    part = _shard(shard, join, external)
    options = {"model": model, "unreadable": unreadable, "unknown": unknown, "external": external}
    source = Source(file_hash(table), options) if part or join else None
    place = part.folder(out) if part else out
    if part and source and not replace and (n := finished(place, source.key(part))) is not None:
        typer.echo(f"{place}: {n} embeddings, embedded before")
        return
    require_free_folder(place, KIND, replace=replace)  # before anything slow
    say(f"Loading {model} ...")
    from hierderm.data.checks import read_cases
    from hierderm.model.external import embed_external
    from hierderm.model.loading import load
    from hierderm.training.features import unfinished

    tree = tree_for(model, taxonomy)
    cases = read_cases(table, tree, unreadable=unreadable, unknown=unknown, shard=part, check_images=not join)
    encoder = load(model, engine=engine)
    if source and not part:
        made_by = replace_fields(encoder.provenance, taxonomy_hash=tree.content_hash, external=bool(external))
        done = join_shards(out, source, cases, made_by)
        done.save(out, replace=replace)
    else:
        with unfinished(place) as store:
            through = partial(store.embed, encoder)
            done = embed_external(encoder, cases, external, through) if external else through(cases)
            if part and source:
                save_shard(done, len(cases.excluded), place, source.key(part), replace)
            else:
                done.save(place, replace=replace)
    typer.echo(f"{place}: {len(done)} embeddings of length {done.embeddings.shape[1]}")


def _shard(text: str, join: bool, external: str) -> Shard | None:
    """The part of the rows that is asked for; one taken from the environment is said."""
    from hierderm.data.shard import parse_shard, shard_of_process

    if text and join:
        raise ConfigError("--shard embeds a part, --join makes one folder of all parts: give one of them.")
    if (text or join) and external == "exclude":
        raise ConfigError(
            "--external exclude leaves out whole cases, which may lie in several shards: write the table without them "
            "first, and give --external error."
        )
    if text != "auto":
        return parse_shard(text) if text else None
    found, where = shard_of_process()
    say(f"Shard {found}: {where}.")
    return found


def run_comparison(comparison: Comparison, folder: Path, as_json: bool, pdf: bool) -> None:
    """Compare, and print the main metrics, the outcome, and where the report is."""
    from hierderm.experiment.compare import compare

    page = compare(comparison, folder, pdf=pdf)
    report = read_json(folder / "report.json", dict[str, Any], OutputError)
    if as_json:
        show_json(report)
        return
    _print_table(report)
    typer.echo(report["summary"][0])
    files = [page, *([page.with_name("report.pdf")] if pdf else [])]
    n_warnings = len(report["warnings"])
    noted = f" ({n_warnings} warning{'s' if n_warnings > 1 else ''}, above and in it)" if n_warnings else ""
    typer.echo(f"Report: {', '.join(str(file.resolve()) for file in files)}{noted}")


def _print_table(report: dict[str, Any]) -> None:
    from rich.table import Table

    shown = Table(title=f"{report['title']}: held-out cases, higher is better, best in bold")
    shown.add_column("model", no_wrap=True)
    for name in report["main"]["metrics"]:
        shown.add_column(name, justify="right")
    for row in report["main"]["rows"]:
        cells = [f"[bold]{cell['text']}[/bold]" if cell["marked"] else cell["text"] for cell in row["cells"]]
        shown.add_row(row["model"], *cells)
    show_table(shown, width=120)


def compare(
    arguments: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of results; runs/NAME by default.")] = None,
    pdf: PdfFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Train and compare models; write a report.

    All on one split; the report is report.html and report.json, and with --pdf one page, report.pdf. After an
    interruption, or for a PDF of what is finished, give the same command again: it continues, and trains and
    evaluates nothing twice. Every setting is a flag, too (`hierderm config` lists them).

    Example: `hierderm compare three_way --data.cases cases.csv --data.taxonomy tree.csv -o runs/mine`
    """
    from hierderm.config.loading import load_comparison

    path, overrides = file_and_settings(arguments)
    if path is None:
        raise ConfigError(
            f"a comparison needs a TOML file with [[models]], or a shipped experiment:\n{experiment_list()}"
        )
    comparison = load_comparison(path, overrides)
    run_comparison(comparison, out or Path("runs") / comparison.name, as_json, pdf)


def inflation(
    arguments: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of results; runs/NAME-inflation.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure how much a split by image would inflate the metrics.

    Trains the same model on a split by case and on a split by image, where images of one case are on both sides, and
    shows the metrics of both. With [[models]] in the file: each of them.

    Example: `hierderm inflation --data.cases cases.csv --data.taxonomy tree.csv -o runs/inflation`
    """
    from hierderm.config.loading import load_comparison

    comparison = load_comparison(*file_and_settings(arguments))
    _inflation(comparison, out or Path("runs") / f"{comparison.name}-inflation", as_json)


def _inflation(comparison: Comparison, folder: Path, as_json: bool) -> None:
    """Run `inflation` and print its table."""
    from hierderm.evaluation.catalogue import metric_name
    from hierderm.experiment.inflation import inflation

    rows = inflation(comparison, folder)
    if as_json:
        show_json(rows)
        return
    lines = ["| model | metric | by case | own case allowed | by image | inflation |", "|---|---|---|---|---|---|"]
    for row in rows:
        values = [row[way]["value"] for way in ("by_case", "own_case_allowed", "by_image")]
        cells = " | ".join("–" if value is None else f"{value:.3f}" for value in values)
        gained = "–" if None in values else f"{values[2] - values[0]:+.3f}"
        lines.append(f"| {row['model']} | {metric_name(row['level'], row['name'])} | {cells} | {gained} |")
    typer.echo("\n".join(lines))
