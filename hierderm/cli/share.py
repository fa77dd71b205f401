"""The commands that make a model ready for others: export, truncate, push."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hierderm.cli.output import Replace, say
from hierderm.errors import CaseTableError, ConfigError, EmbeddingError

if TYPE_CHECKING:
    from hierderm.evaluation.evaluation import Evaluation
    from hierderm.model.encoder import Encoder


def export(
    model: Annotated[str, typer.Argument(help="A model folder, a run's, of the hub, or a backbone by name.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="ONNX file to write.")],
    replace: Replace = False,
) -> None:
    """Write a model as one ONNX file.

    Backbone, neck and heads in one graph, for ONNX Runtime. hierderm reads it without torch, other programs find in its
    metadata what the input must be.

    Example: `hierderm export runs/first/model -o model.onnx`
    """
    from hierderm.files import require_free

    require_free(out, replace=replace, suffixes=(".onnx",))
    if out.suffix != ".onnx":
        raise ConfigError(f"{out} must end in .onnx.")
    from hierderm.model.loading import load

    difference = load(model).export(out, replace=replace)
    size = out.stat().st_size / 1e6
    typer.echo(f"{out}: {size:.1f} MB; its outputs differ from torch's by {difference:.0e} at most")


def truncate(
    model: Annotated[str, typer.Argument(help="A model folder, a run's, of the hub, or a backbone by name.")],
    embeddings: Annotated[Path, typer.Argument(help="Its folder of `hierderm embed`, of a table with a split.")],
    dim: Annotated[int, typer.Option(min=1, help="Length of the new embeddings.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model folder to write.")],
    replace: Replace = False,
) -> None:
    """Make a model whose embeddings are shorter.

    They are projected on principal axes, which are learnt from the training rows. What retrieval loses by it:
    `hierderm bench compression`.

    Example: `hierderm truncate runs/first/model embeddings --dim 128 -o runs/first-128`
    """
    from hierderm.artifacts import require_free_folder
    from hierderm.columns import SPLIT, TRAIN
    from hierderm.embeddings import EmbeddingTable
    from hierderm.model.loading import KIND, load

    require_free_folder(out, KIND, replace=replace)
    table, encoder = EmbeddingTable.load(embeddings), load(model)
    for what in ("weights_hash", "preprocessing_hash"):
        if getattr(table.provenance, what) != getattr(encoder.provenance, what):
            raise EmbeddingError(
                f"{embeddings} must be of {model}, its {what} is of another model ({table.provenance.model}). "
                f"Embed its training images: hierderm embed cases.csv --model {model} -o FOLDER"
            )
    train = table.frame[SPLIT].to_numpy() == TRAIN if SPLIT in table.frame else None
    if train is None or not train.any():
        raise EmbeddingError(
            f"{embeddings} must be of a table whose column split has 'train' rows: axes are learnt from them."
        )
    short = encoder.truncated(table.embeddings[train], dim)
    short.save(out, replace=replace)
    typer.echo(f"{out}: {dim} of {encoder.dim} dimensions, axes of {train.sum()} training images")


def push(
    model: Annotated[Path, typer.Argument(help="A model folder, or a run's.")],
    repository: Annotated[str, typer.Argument(help="USER/NAME on the Hugging Face hub; made where there is none.")],
    public: Annotated[
        bool, typer.Option("--public", help="A repository that is made is for everybody to see.")
    ] = False,
    cases: Annotated[
        Path | None, typer.Option(help="A table with a test split: its metrics, computed now, go into the card.")
    ] = None,
    data: Annotated[str, typer.Option(help="Name of that data set in the card; by default the training's.")] = "",
) -> None:
    """Put a model on the Hugging Face hub.

    Private unless --public. The token is that of HF_TOKEN or of `hf auth login`. What the model has seen stays here.

    Example: `hierderm push runs/first user/first --cases runs/first/cases.csv --data "My clinic"`
    """
    from hierderm.artifacts import holds
    from hierderm.model.hub import require_hub, require_repository
    from hierderm.model.loading import KIND, load

    if not (holds(model, KIND) or holds(model / "model", KIND)):
        what = "is none" if model.exists() else "does not exist"
        raise ConfigError(f"push takes a model folder, or a run's, '{model}' {what}. Train one with: hierderm train")
    require_repository(repository)
    if data and cases is None:
        raise ConfigError("--data names the data set of --cases: give both.")
    require_hub()  # before anything slow
    encoder, evaluation = load(model), None
    if cases is not None:
        evaluation = _tested(encoder, cases)
    address = encoder.push_to_hub(repository, private=not public, evaluation=evaluation, data=data)
    typer.echo(f"{address}\nRead it with: hierderm.load('{repository}'), or --model {repository}")


def _tested(encoder: Encoder, cases: Path) -> Evaluation:
    """The metrics of a trained model on the test rows of a table."""
    import warnings

    from hierderm.columns import SPLIT, TEST
    from hierderm.data.checks import read_cases
    from hierderm.errors import EvaluationWarning
    from hierderm.evaluation.evaluation import evaluate

    if encoder.taxonomy is None:
        raise ConfigError(f"{encoder.name} has learnt no taxonomy, so --cases can't be scored.")
    table = read_cases(cases, encoder.taxonomy)
    if SPLIT not in table.frame or not (table.splits == TEST).any():
        raise CaseTableError(f"{cases} must have a column split with 'test' rows, as cases.csv of a run has.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EvaluationWarning)  # they are printed
        evaluation = evaluate(encoder, table, table.taxonomy)
    for warning in evaluation.warnings:
        say(f"Warning: {warning}")
    return evaluation
