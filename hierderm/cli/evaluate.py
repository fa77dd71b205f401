"""The command that scores embeddings: evaluate."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hierderm.cli.output import JsonFlag, Replace, Workers, say, show_json
from hierderm.cli.search import Aggregated, MovedModel, Where, Within, columns_of
from hierderm.cli.settings import one_path, parse_arguments
from hierderm.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from hierderm.config.settings import EvaluationConfig
    from hierderm.embeddings import EmbeddingTable
    from hierderm.evaluation.evaluation import Evaluation, Metric
    from hierderm.search.case_index import CaseIndex
    from hierderm.types import Mask


def evaluate(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="EMBEDDINGS [--evaluation.SETTING VALUE]...",
            help="An .npy file with a row for each row of --cases, or a folder of `hierderm embed`; and settings.",
        ),
    ] = None,
    taxonomy: Annotated[
        str, typer.Option("--taxonomy", "-t", help="A shipped taxonomy's id, or a file; with --index its own.")
    ] = "",
    cases: Annotated[
        Path | None,
        typer.Option(help="Table with case_id and condition, ideally a split; by default the embeddings' own."),
    ] = None,
    probabilities: Annotated[
        Path | None, typer.Option(help="An .npy file: probabilities of the conditions, in the taxonomy's order.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option("--index", "-i", help="Evaluate this index with the cases as queries.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="With --index: number of cases.")] = 10,
    within: Within = None,
    where: Where = None,
    aggregation: Aggregated = "best",
    splits: Annotated[str, typer.Option(help="With --index: splits that query, e.g. test; all by default.")] = "",
    model: MovedModel = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="JSON file for everything, groups and curves too.")
    ] = None,
    replace: Replace = False,
    workers: Workers = 0,
    as_json: JsonFlag = False,
) -> None:
    """Score embeddings of held-out cases, or an index.

    Any embeddings, at every level of the tree, with intervals. With a split column the rows of 'test' are scored, and
    those of 'validation' and 'train' are learnt from; without one all rows are scored. Settings: `hierderm config`.

    With --index: recall, precision, MAP and k-NN of the first k cases and its answers as it is served, with its kind
    and filters, each query's own case left out, beside exact search. Without EMBEDDINGS the index's model embeds the
    images of --cases; without --cases, too, its own cases query it.

    Example: `hierderm evaluate embeddings.npy --cases cases.csv -t scin --evaluation.bootstrap_rounds 200`
    """
    from hierderm.config.loading import load_config
    from hierderm.errors import EvaluationWarning
    from hierderm.files import require_free, write_json
    from hierderm.search.case_index import CaseIndex
    from hierderm.search.evaluation import evaluate_index

    words, settings = parse_arguments(arguments, ["evaluation"])
    if out is not None:
        require_free(out, replace=replace, suffixes=(".json",), inputs=[cases, probabilities, taxonomy, index, *words])
    config = load_config(None, settings).evaluation
    if index is None and not taxonomy:
        raise ConfigError("give --taxonomy, the tree of the conditions, or --index.")
    if index is None and (k, within, where, aggregation, splits, model) != (10, None, None, "best", "", ""):
        raise ConfigError("-k, --within, --where, --aggregation, --splits and --model go with --index.")
    if index is not None and (taxonomy or probabilities):
        raise ConfigError("an index has its own tree and its cases vote: give neither --taxonomy nor --probabilities.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EvaluationWarning)  # they are printed below
        if index is None:
            source = one_path(words, "file or folder of embeddings")
            evaluation = _evaluate(source, cases, taxonomy, probabilities, config)
        else:
            opened = CaseIndex.open(index)
            queries = _queries(opened, words, cases, splits, model, workers)
            evaluation = evaluate_index(
                opened, queries, k=k, within=within, where=columns_of(where or []),
                aggregation=aggregation, config=config, name=str(index),
            )  # fmt: skip
    for warning in evaluation.warnings:
        say(f"Warning: {warning}")
    if out is not None:
        write_json(out, evaluation.to_dict(), replace=replace)
    if as_json:
        show_json(evaluation.to_dict())
        return
    typer.echo("\n".join(_lines(evaluation) if index is None else _index_lines(evaluation)))


def _evaluate(
    embeddings: Path, cases: Path | None, taxonomy: str, probabilities: Path | None, config: EvaluationConfig
) -> Evaluation:
    from hierderm.embeddings import EmbeddingTable
    from hierderm.evaluation.evaluation import evaluate as evaluate_any

    if embeddings.suffix == ".npy" and cases is None:
        raise ConfigError("an .npy file needs --cases: the table whose rows its rows belong to.")
    if embeddings.suffix != ".npy" and probabilities is not None:
        raise ConfigError("--probabilities goes with an .npy file; a folder of embeddings has its own.")
    source = embeddings if embeddings.suffix == ".npy" else EmbeddingTable.load(embeddings)
    table = source.frame if cases is None and isinstance(source, EmbeddingTable) else cases
    assert table is not None  # an .npy file has --cases
    return evaluate_any(source, table, taxonomy, config=config, name=embeddings.name, probabilities=probabilities)


def _queries(
    index: CaseIndex, words: list[str], cases: Path | None, splits: str, model: str, workers: int
) -> EmbeddingTable:
    """Embeddings of the cases that query an index: of a file or folder, by its model, or its own."""
    import numpy as np

    from hierderm.data.checks import read_cases
    from hierderm.embeddings import EmbeddingTable, embeddings_of
    from hierderm.evaluation.subject import case_table
    from hierderm.search.building import embed_queries

    if not words and cases is not None:
        table = read_cases(cases, index.taxonomy)
        return embed_queries(index, table.select(_in_splits(table.frame, splits)), model or None, workers=workers)
    if not words:
        found = EmbeddingTable(np.asarray(index.vectors), index.frame, index.provenance)
    elif (embeddings := one_path(words, "file or folder of embeddings")).suffix == ".npy":
        if cases is None:
            raise ConfigError("an .npy file needs --cases: the table whose rows its rows belong to.")
        found = embeddings_of(embeddings, case_table(cases, index.taxonomy))
    elif cases is None:
        found = EmbeddingTable.load(embeddings)
    else:
        raise ConfigError("--cases goes with an .npy file or with images; a folder of embeddings has its own table.")
    return found.select(_in_splits(found.frame, splits)) if splits else found


def _in_splits(frame: pd.DataFrame, splits: str) -> Mask:
    """Which rows are of some splits, such as 'test,validation'; all for ''."""
    import numpy as np

    from hierderm import columns as c

    wanted = {name.strip() for name in splits.split(",") if name.strip()}
    found = frame[c.SPLIT].to_numpy(dtype=str) if c.SPLIT in frame else np.full(len(frame), "")
    if not wanted <= set(found):
        raise ConfigError(f"--splits must name splits of the queries, got '{splits}'; they have {sorted(set(found))}.")
    return np.isin(found, list(wanted)) if wanted else np.ones(len(frame), dtype=bool)


def _index_lines(evaluation: Evaluation) -> list[str]:
    """A line a metric: through the index, exactly, and the difference."""
    from hierderm.evaluation.catalogue import metric_name

    about = evaluation.details["index"]
    served = [metric for metric in evaluation.metrics if metric.name.startswith("index_")]
    names = [metric_name(metric.level, metric.name).removesuffix(", index") for metric in served]
    width = max(map(len, names))
    lines = [
        f"{evaluation.n_cases} cases query {about['images_within_filters']} of {about['images']} images of "
        f"{evaluation.model} ({about['kind']}), {about['k']} cases each; exact values of {about['exact_queries']}",
        f"{'':{width}s} {'index':>24s} {'exact':>24s} {'exact - index':>24s}",
    ]
    for name, metric in zip(names, served, strict=True):
        base = metric.name.removeprefix("index_")
        others = [evaluation.get((metric.level, prefix + base)) for prefix in ("exact_", "loss_")]
        cells = [_value(other).strip() if other is not None else "" for other in (metric, *others)]
        lines.append(f"{name:{width}s} " + " ".join(f"{cell:>24s}" for cell in cells).rstrip())
    return lines


def _lines(evaluation: Evaluation) -> list[str]:
    from hierderm.evaluation.catalogue import metric_name

    width = max((len(metric_name(m.level, m.name)) for m in evaluation.metrics), default=0)
    metrics = [f"{metric_name(m.level, m.name):{width}s} {_value(m)}" for m in evaluation.metrics]
    return [f"{evaluation.n_images} test images of {evaluation.n_cases} cases", *metrics, *_group_lines(evaluation)]


def _value(metric: Metric) -> str:
    ends = "" if metric.low != metric.low else f"  [{metric.low:.3f}, {metric.high:.3f}]"
    return f"{metric.value:7.3f}{ends}" + (f"  ({metric.skipped} skipped)" if metric.skipped else "")


def _group_lines(evaluation: Evaluation) -> list[str]:
    """The gaps between groups in the metric that most readers look at first."""
    found = [gap for gap in evaluation.gaps if (gap.level, gap.name) == ("coarse", "recall_at_1")]
    return [
        f"By {gap.column}: coarse Recall@1 is worst for {gap.worst} and best for {gap.best}, a gap of {gap.value:.3f} "
        f"[{gap.low:.3f}, {gap.high:.3f}], p {gap.p_value:.3f} (permutation)"
        for gap in found
    ]
