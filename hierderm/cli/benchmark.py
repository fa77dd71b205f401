"""The commands of the benchmark: bench run, table, difference, tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from hierderm.cli.output import JsonFlag, Replace, TaxonomyName, say, show_json, show_table
from hierderm.cli.settings import TAKES_SETTINGS, require_read, settings_from
from hierderm.errors import BenchmarkError, ConfigError

if TYPE_CHECKING:
    from hierderm.experiment.results import Results

bench_app = typer.Typer(
    help="Run suites of tasks on any models, and read the leaderboard.", no_args_is_help=True, rich_markup_mode=None
)
Folder = Annotated[Path, typer.Argument(help="The folder of a benchmark or a comparison.")]


@bench_app.command("run", context_settings=TAKES_SETTINGS)
def bench_run(
    models: Annotated[
        list[str],
        typer.Option(
            "--models",
            "-m",
            help="NAME=SOURCE, repeated: 'colour', a backbone, <backbone>@random, a model folder, a folder of "
            "embeddings, or X.npy.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of embeddings and results.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[--section.SETTING VALUE]...", help="Settings of data, split and evaluation."),
    ] = None,
    suite: Annotated[list[str] | None, typer.Option(help="A suite or a task, repeated; core by default.")] = None,
    task_file: Annotated[list[Path] | None, typer.Option(help="A Python file that registers a task of yours.")] = None,
) -> None:
    """Run a suite on models.

    Embeddings and results are kept: after an interruption give the same command again, and add a model or a task by
    naming it. With split.folds each fold is the test in turn, and '{fold}' in a source is its number. Seeds of one
    model are joined by '+'.

    Example: `hierderm bench run -m tiny=hierderm:tiny -m colour --data.cases cases.csv --data.taxonomy scin -o bench`
    """
    from hierderm.config.loading import load_config
    from hierderm.config.settings import ProtocolConfig, TaskName
    from hierderm.evaluation.tasks.registry import read_task_file, tasks_named
    from hierderm.experiment.benchmark import bench
    from hierderm.experiment.protocol import divide
    from hierderm.experiment.results import BENCHMARK, COMPARISON
    from hierderm.experiment.sources import parse_model

    tasks = [*(suite or ["core"]), *(name for path in task_file or [] for name in read_task_file(path))]
    ours = [task.name for task in tasks_named(tasks) if task.name in get_args(TaskName)]  # before anything slow
    parsed = [parse_model(text) for text in models]
    names = [name for name, _ in parsed]
    if len({name.casefold() for name in names}) < len(names):
        raise BenchmarkError(f"the names of models must differ by more than case, got {names}.")
    settings = settings_from(arguments, ["data", "split", "evaluation"])
    require_read("bench run", settings, ["evaluation.tasks"], "Name tasks by --suite.")
    config = load_config(None, settings | ({"evaluation.tasks": ours} if ours else {}))
    protocol = ProtocolConfig(every_fold=config.split.folds > 0)
    (folds,) = divide(config.data, config.split, protocol, out, BENCHMARK, COMPARISON)
    tables = [fold.table for fold in folds]
    taxonomy, evaluation = tables[0].taxonomy, config.evaluation
    _print_table(bench(dict(parsed), tables, taxonomy, tasks=tasks, folder=out, config=evaluation))


@bench_app.command("table")
def bench_table(
    folder: Folder,
    as_: Annotated[
        Literal["terminal", "markdown", "csv", "html"], typer.Option("--format", "-f", help="What to write.")
    ] = "terminal",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file instead of standard output.")] = None,
    replace: Replace = False,
) -> None:
    """The leaderboard of a benchmark or a comparison.

    Best mean rank first, with intervals over cases.

    Example: `hierderm bench table bench --format markdown`
    """
    from hierderm.delimited import shielded
    from hierderm.experiment.leaderboard import as_html, as_markdown, warnings_of
    from hierderm.experiment.results import Results
    from hierderm.files import require_free, write_atomically

    if out is not None:
        require_free(out, replace=replace)
    results = Results.open(folder)
    if as_ == "terminal" and out is None:
        _print_table(results)
        first, *more = warnings_of(results) or [""]
        if first:
            say(f"Warning: {first}" + (f"\n{len(more)} more warnings are in --format html." if more else ""))
        return
    texts = {
        "markdown": lambda: as_markdown(results),
        "terminal": lambda: as_markdown(results),
        "csv": lambda: results.to_pandas().map(shielded).to_csv(index=False),  # for spreadsheets
        "html": lambda: as_html(results),
    }
    text = texts[as_]()
    if out is None:
        typer.echo(text)
    else:
        write_atomically(out, text + "\n", replace=replace)
        typer.echo(str(out))


@bench_app.command("difference")
def bench_difference(
    first: Annotated[str, typer.Argument(help="A model's name.")],
    second: Annotated[str, typer.Argument(help="The model it is compared with.")],
    folder: Annotated[Path, typer.Option("--folder", "-i", help="The folder of a benchmark or a comparison.")],
    every: Annotated[bool, typer.Option("--all", help="All metrics, not only those of the leaderboard.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """The paired differences of two models.

    On the same cases, with permutation or bootstrap p-values, adjusted for their number (Holm).

    Example: `hierderm bench difference vanilla colour -i bench`
    """
    from hierderm.evaluation.catalogue import direction, metric_name
    from hierderm.experiment.leaderboard import compare_models
    from hierderm.experiment.results import Results

    found = compare_models(Results.open(folder), first, second, 0.95, every=every)
    if as_json:
        show_json([difference.to_dict() for difference in found])
        return
    width = max((len(metric_name(d.level, d.name)) for d in found), default=0)
    typer.echo(f"{first} minus {second}: difference, 95 % interval, p adjusted for {len(found)} metrics")
    for d in found:
        if d.low != d.low:  # nan
            typer.echo(f"{metric_name(d.level, d.name):{width}s}  {d.value:+.3f}  not tested: no bootstrap rounds")
            continue
        verdict = "better" if d.better else "worse" if d.worse else "no significant difference"
        lower = ", lower is better" if direction(d.name) == "lower" else ""
        p = "no p" if d.p_adjusted != d.p_adjusted else f"p {d.p_adjusted:.3f}"
        name = metric_name(d.level, d.name)
        typer.echo(f"{name:{width}s}  {d.value:+.3f}  [{d.low:+.3f}, {d.high:+.3f}]  {p}  {verdict}{lower}")


@bench_app.command("compression")
def bench_compression(
    embeddings: Annotated[Path, typer.Argument(help="A folder of embeddings of a table with a split.")],
    taxonomy: TaxonomyName,
    dims: Annotated[str, typer.Option(help="Numbers of dimensions to try.")] = "64,128,256",
    as_json: JsonFlag = False,
) -> None:
    """What fewer dimensions and numbers of 8 bits lose in retrieval.

    Principal axes are learnt from the training rows; recall@1 and MAP@R are of the test rows, with their loss and its
    95 % interval over cases.

    Example: `hierderm bench compression embeddings -t tree.csv`
    """
    from hierderm.embeddings import EmbeddingTable
    from hierderm.evaluation.catalogue import metric_name
    from hierderm.evaluation.compression import KEYS, compression_losses
    from hierderm.taxonomy.file import load_taxonomy

    wanted = [part.strip() for part in dims.split(",")]
    if not all(part.isdecimal() and int(part) for part in wanted):
        raise ConfigError(f"--dims must be whole numbers from 1, separated by commas, got '{dims}'.")
    found = compression_losses(EmbeddingTable.load(embeddings), load_taxonomy(taxonomy), [int(part) for part in wanted])
    if as_json:
        show_json(found.astype(object).where(found.notna(), None).to_dict("records"))
        return
    lines = ["| dim | type | bytes | " + " | ".join(metric_name(*key) for key in KEYS) + " |", "|---" * 7 + "|"]
    for row in found.to_dict("records"):
        cells = [str(row[name]) for name in ("dim", "type", "bytes")]
        for name in map(" ".join, KEYS):
            loss = row[f"{name} loss"]
            low, high = row[f"{name} low"], row[f"{name} high"]
            ends = "" if loss != loss else f" (loss {loss:+.3f}, {low:+.3f} to {high:+.3f})"
            cells.append(f"{row[name]:.3f}{ends}")
        lines.append(f"| {' | '.join(cells)} |")
    typer.echo("\n".join(lines))


@bench_app.command("tasks")
def bench_tasks() -> None:
    """The tasks and the suites there are."""
    from hierderm.evaluation.tasks.registry import SUITES, TASKS

    for task in TASKS.values():
        typer.echo(f"{task.name:15s} {task.about}")
    for name, tasks in SUITES.items():
        typer.echo(f"\nsuite {name}: {', '.join(tasks)}")


def _print_table(results: Results) -> None:
    """Models across, metrics down, as there are more of these; and the outcome."""
    from rich.table import Table
    from rich.text import Text

    from hierderm.evaluation.catalogue import direction
    from hierderm.experiment.leaderboard import as_cells, columns_of, outcome

    titles, rows = as_cells(results)
    ways = ["lower", *(direction(name) for _, (_, name) in columns_of(results))]
    shown = Table(title="Leaderboard: best mean rank first, best value in bold; intervals: --format markdown")
    shown.add_column("metric", no_wrap=True)
    for row in rows:
        shown.add_column(row[0], justify="right")
    for number, (title, way) in enumerate(zip(titles[1:], ways, strict=True), start=1):
        values = [row[number].partition(" [")[0] for row in rows]
        known = sorted((value for value in values if value != "–"), key=float, reverse=way == "higher")
        best = known[:1] if way != "none" else []
        shown.add_row(title, *(Text(value, "bold" if value in best else "") for value in values))
    show_table(shown, markup=False)
    typer.echo(outcome(results))
