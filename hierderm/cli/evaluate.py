"""The command that scores embeddings: evaluate."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hierderm.cli.output import (
    EngineName,
    External,
    ExternalChoice,
    JsonFlag,
    Replace,
    say,
    show_json,
    show_table,
    value_with_interval,
)
from hierderm.cli.search import Aggregated, MovedModel, Where, Within
from hierderm.cli.settings import one_path, parse_arguments
from hierderm.errors import ConfigError

if TYPE_CHECKING:
    from hierderm.config.settings import EvaluationConfig, ForwardEngine
    from hierderm.embeddings import EmbeddingTable
    from hierderm.evaluation.evaluation import Evaluation
    from hierderm.taxonomy.tree import Taxonomy as Tree


Arguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="EMBEDDINGS [--evaluation.SETTING VALUE]...",
        help="An .npy file with a row for each row of --cases, a folder of `hierderm embed`, or a trained model, which "
        "embeds --cases; and settings.",
    ),
]
TaxonomyName = Annotated[
    str, typer.Option("--taxonomy", "-t", help="A shipped taxonomy's id, or a file; an index has its own.")
]
Cases = Annotated[
    Path | None, typer.Option(help="Table with case_id and condition, ideally a split; by default the embeddings' own.")
]
Probabilities = Annotated[
    Path | None, typer.Option(help="An .npy file: probabilities of the conditions, in the taxonomy's order.")
]
Index = Annotated[
    str | None,
    typer.Option("--index", "-i", help="Evaluate the index of this folder or address; the cases are the queries."),
]
Splits = Annotated[str, typer.Option(help="With --index: splits that query, e.g. test; all by default.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="JSON file for everything, groups and curves too.")]


def evaluate(
    arguments: Arguments = None,
    taxonomy: TaxonomyName = "",
    cases: Cases = None,
    probabilities: Probabilities = None,
    index: Index = None,
    k: Annotated[int, typer.Option("-k", help="With --index: number of cases.")] = 10,
    within: Within = None,
    where: Where = None,
    aggregation: Aggregated = "best",
    splits: Splits = "",
    model: MovedModel = "",
    external: External = "",
    out: Out = None,
    replace: Replace = False,
    engine: EngineName = "auto",
    every: Annotated[bool, typer.Option("--all", help="All metrics, not only the main ones.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Score embeddings of held-out cases, or an index.

    Any embeddings, or a trained model, at every level of the tree, with intervals. With a split column the rows of
    'test' are scored, and those of 'validation' and 'train' are learnt from; without one all rows are scored.

    With --index: recall, precision, MAP and k-NN of the first k cases and its answers as it is served, with its kind
    and filters, each query's own case left out, beside exact search. Without EMBEDDINGS the index's model embeds the
    images of --cases; without --cases, too, its own cases query it.

    Example: `hierderm evaluate embeddings.npy --cases cases.csv -t scin --evaluation.bootstrap_rounds 200`
    """
    from hierderm.cli.evaluate_index import config_of, queries_of
    from hierderm.files import require_free, write_json
    from hierderm.search.evaluation import evaluate_index
    from hierderm.search.filters import where_of
    from hierderm.search.places import place_of

    words, settings = parse_arguments(arguments, ["evaluation"])
    if out is not None:
        require_free(out, replace=replace, suffixes=(".json",), inputs=[cases, probabilities, taxonomy, index, *words])
    config = config_of(settings, index)
    if index is None:
        if (k, within, where, aggregation, splits, model) != (10, None, None, "best", "", ""):
            raise ConfigError("-k, --within, --where, --aggregation, --splits and --model go with --index.")
        evaluation = _evaluate(words, cases, taxonomy, probabilities, external, engine, config)
    elif taxonomy or probabilities or external:
        raise ConfigError("an index has its own tree and its cases vote: no --taxonomy, --probabilities, --external.")
    else:
        opened, queries = queries_of(index, words, cases, splits, model, engine)
        evaluation = evaluate_index(
            opened, queries, k=k, within=within, where=where_of(where or [], opened.gallery.values),
            aggregation=aggregation, config=config, name=str(place_of(index)),
        )  # fmt: skip
    if out is not None:
        write_json(out, evaluation.to_dict(), replace=replace)
    if as_json:
        show_json(evaluation.to_dict())
        return
    _print(evaluation, every)


def _evaluate(
    words: list[str],
    cases: Path | None,
    taxonomy: str,
    probabilities: Path | None,
    external: ExternalChoice,
    engine: ForwardEngine,
    config: EvaluationConfig,
) -> Evaluation:
    from hierderm.artifacts import holds
    from hierderm.embeddings import EmbeddingTable
    from hierderm.errors import EvaluationWarning
    from hierderm.evaluation.evaluation import evaluate as evaluate_any

    given = one_path(words, "file or folder of embeddings, or model")
    tree: Tree | str = taxonomy
    source: EmbeddingTable | Path = given
    if given.suffix != ".npy" and probabilities is not None:
        raise ConfigError("--probabilities goes with an .npy file; a model and a folder of embeddings have their own.")
    if holds(given, "model") or holds(given / "model", "model"):
        source, tree = _embedded(given, cases, taxonomy, external, engine)
        cases = None
    elif external:
        raise ConfigError(
            "--external goes with a trained model. For a folder of embeddings give it to `hierderm embed`."
        )
    elif not taxonomy:
        raise ConfigError("give --taxonomy, the tree of the conditions, or --index.")
    elif given.suffix != ".npy":
        source = EmbeddingTable.load(given)
    elif cases is None:
        raise ConfigError("an .npy file needs --cases: the table whose rows its rows belong to.")
    table = source.frame if cases is None and isinstance(source, EmbeddingTable) else cases
    assert table is not None  # an .npy file has --cases
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EvaluationWarning)  # they are printed with the result
        return evaluate_any(source, table, tree, config=config, name=given.name, probabilities=probabilities)


def _embedded(
    model: Path, cases: Path | None, taxonomy: str, external: ExternalChoice, engine: ForwardEngine
) -> tuple[EmbeddingTable, Tree]:
    """The images of a table by a trained model, and its tree."""
    from hierderm.cli.taxonomy import tree_for
    from hierderm.data.checks import read_cases
    from hierderm.model.external import embed_external
    from hierderm.model.loading import load

    if cases is None:
        raise ConfigError("a trained model needs --cases: the table whose images it embeds.")
    table, encoder = read_cases(cases, tree_for(str(model), taxonomy)), load(model, engine=engine)
    found = embed_external(encoder, table, external) if external else encoder.embed(table)
    return found, table.taxonomy


def _print(evaluation: Evaluation, every: bool) -> None:
    """A table and at most three lines."""
    from hierderm.cli.evaluate_index import print_index_table

    if "index" in evaluation.details:
        print_index_table(evaluation)
    else:
        _print_table(evaluation, every)
    first, *more = evaluation.warnings or [""]
    if first:
        say(f"Warning: {first}" + (f" ({len(more)} more: --json)" if more else ""))


def _print_table(evaluation: Evaluation, every: bool) -> None:
    """Metrics down, levels across: the main ones of each task, or all; and the worst group in one line."""
    from rich.table import Table

    from hierderm.evaluation.catalogue import METRICS, TREE, direction, find_entry
    from hierderm.evaluation.tasks.registry import TASKS
    from hierderm.report.words import gap_sentence

    main = {key for task in TASKS.values() for key in task.main}
    some = [m for m in evaluation.metrics if every or (m.level, m.name) in main] or list(evaluation.metrics)
    levels = sorted(dict.fromkeys(m.level for m in some), key=lambda level: level == TREE)
    shown = Table(title=f"{evaluation.n_images} test images of {evaluation.n_cases} cases")
    for title in ("metric", *levels):
        shown.add_column(title, justify="left" if title == "metric" else "right", no_wrap=title != "metric")
    order = list(METRICS)
    for name in sorted(dict.fromkeys(m.name for m in some), key=lambda n: order.index(n) if n in order else len(order)):
        entry, found = find_entry(name), [evaluation.get((level, name)) for level in levels]
        lower = " (less is better)" if direction(name) == "lower" else ""
        cells = ["" if metric is None else value_with_interval(metric).strip() for metric in found]
        shown.add_row((entry.title if entry else name) + lower, *cells)
    show_table(shown, markup=False)
    gaps = [gap for gap in evaluation.gaps if (gap.level, gap.name) == ("coarse", "recall_at_1")]
    if gaps:
        widest = max(gaps, key=lambda gap: gap.value)
        typer.echo(f"By {widest.column}: {gap_sentence(widest)}")
    if len(some) < len(evaluation.metrics):
        typer.echo(f"{len(evaluation.metrics) - len(some)} more metrics: --all; with groups and curves: --json")
