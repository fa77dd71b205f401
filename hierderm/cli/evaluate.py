"""The command that scores embeddings: evaluate."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hierderm.cli.output import JsonFlag, Replace, TaxonomyName, say, show_json
from hierderm.cli.settings import one_path, parse_arguments
from hierderm.errors import ConfigError

if TYPE_CHECKING:
    from hierderm.evaluation.evaluation import Evaluation, Metric


def evaluate(
    taxonomy: TaxonomyName,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="EMBEDDINGS [--evaluation.SETTING VALUE]...",
            help="An .npy file with a row for each row of --cases, or a folder of `hierderm embed`; and settings.",
        ),
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(help="Table with case_id and condition, ideally a split; by default the embeddings' own."),
    ] = None,
    probabilities: Annotated[
        Path | None, typer.Option(help="An .npy file: probabilities of the conditions, in the taxonomy's order.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="JSON file for everything, groups and curves too.")
    ] = None,
    replace: Replace = False,
    as_json: JsonFlag = False,
) -> None:
    """Score embeddings of held-out cases.

    Any embeddings, at every level of the tree, with intervals. With a split column the rows of 'test' are scored, and
    those of 'validation' and 'train' are learnt from; without one all rows are scored. Settings: `hierderm config`.

    Example: `hierderm evaluate embeddings.npy --cases cases.csv -t scin --evaluation.bootstrap_rounds 200`
    """
    from hierderm.config.loading import load_config
    from hierderm.embeddings import EmbeddingTable
    from hierderm.errors import EvaluationWarning
    from hierderm.evaluation.evaluation import evaluate as evaluate_any
    from hierderm.files import require_free, write_json

    words, settings = parse_arguments(arguments, ["evaluation"])
    if out is not None:
        require_free(out, replace=replace, suffixes=(".json",), inputs=[cases, probabilities, taxonomy, *words])
    config = load_config(None, settings).evaluation
    embeddings = one_path(words, "file or folder of embeddings")
    if embeddings.suffix == ".npy" and cases is None:
        raise ConfigError("an .npy file needs --cases: the table whose rows its rows belong to.")
    if embeddings.suffix != ".npy" and probabilities is not None:
        raise ConfigError("--probabilities goes with an .npy file; a folder of embeddings has its own.")
    source = embeddings if embeddings.suffix == ".npy" else EmbeddingTable.load(embeddings)
    table = source.frame if cases is None and isinstance(source, EmbeddingTable) else cases
    assert table is not None  # an .npy file has --cases
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EvaluationWarning)  # they are printed below
        evaluation = evaluate_any(
            source, table, taxonomy, config=config, name=embeddings.name, probabilities=probabilities
        )
    for warning in evaluation.warnings:
        say(f"Warning: {warning}")
    if out is not None:
        write_json(out, evaluation.to_dict(), replace=replace)
    if as_json:
        show_json(evaluation.to_dict())
        return
    typer.echo("\n".join(_lines(evaluation)))


def _lines(evaluation: Evaluation) -> list[str]:
    from hierderm.evaluation.catalogue import metric_name

    width = max((len(metric_name(m.level, m.name)) for m in evaluation.metrics), default=0)
    metrics = [f"{metric_name(m.level, m.name):{width}s} {_value(m)}" for m in evaluation.metrics]
    return [f"{evaluation.n_images} test images of {evaluation.n_cases} cases", *metrics, *_group_lines(evaluation)]


def _value(metric: Metric) -> str:
    if metric.value != metric.value:  # nan
        return "undefined" + (f"  ({metric.skipped} skipped)" if metric.skipped else "")
    ends = "" if metric.low != metric.low else f"  [{metric.low:.3f}, {metric.high:.3f}]"
    return f"{metric.value:7.3f}{ends}" + (f"  ({metric.skipped} skipped)" if metric.skipped else "")


def _group_lines(evaluation: Evaluation) -> list[str]:
    """The gaps between groups in the metric that most readers look at first."""
    from hierderm.report.words import gap_sentence

    found = [gap for gap in evaluation.gaps if (gap.level, gap.name) == ("coarse", "recall_at_1")]
    return [f"By {gap.column}: {gap_sentence(gap)}" for gap in found]
