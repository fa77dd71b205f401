"""The metadata block of a model card, as the hub reads it: data set, taxonomy, and metrics as a model index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hierderm.artifacts import FIGURE, Card
from hierderm.errors import ModelError
from hierderm.evaluation.catalogue import HEADLINES, Key, metric_name
from hierderm.evaluation.evaluation import Evaluation
from hierderm.plots import png, scores
from hierderm.taxonomy.tree import Taxonomy

TASK = "image-feature-extraction"  # the hub's name of what an embedding model does


def card_data(name: str, taxonomy: Taxonomy | None, results: list[EvalResult], base_model: str = "") -> ModelCardData:
    """The metadata of a model. `base_model`: the repository of its backbone, '' where it has none."""
    more: dict[str, Any] = {}
    if taxonomy is not None:
        more["taxonomy"] = {"id": taxonomy.id, "version": taxonomy.version, "hash": taxonomy.content_hash}
    return ModelCardData(
        library_name="hierderm",
        pipeline_tag=TASK,
        tags=["dermatology", "hierarchical", "image-retrieval"],
        base_model=base_model or None,
        model_name=name,
        eval_results=results or None,
        **more,
    )


def results_of(
    values: Mapping[Key, Any], data: str, split: str, *, revision: str = "", more: Mapping[Key, Any] | None = None
) -> list[EvalResult]:
    """Values of metrics by level and name as results on a split of a data set.

    `revision`: of the data set, such as the hash of its split. `more`: what else to report of a value.
    """
    slug = re.sub(r"[^\w.-]+", "-", data).strip("-").lower()
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=slug,
            dataset_name=data,
            dataset_split=split,
            dataset_revision=revision or None,
            metric_type=name,
            metric_name=metric_name(level, name),
            metric_value=round(float(value), 6),
            metric_args={"level": level, **(more or {}).get((level, name), {})},
        )
        for (level, name), value in values.items()
        if value == value  # an undefined one says nothing
    ]


def with_metadata(text: str, data: ModelCardData) -> str:
    """A card: the metadata as the hub reads them, then the text."""
    return f"---\n{data.to_yaml()}\n---\n\n{text}"


def with_figure(text: str) -> str:
    """A card that shows the figure beside it, below its title."""
    return (
        text
        if FIGURE in text
        else re.sub(r"^(# .*\n)", rf"\1\n![Results]({FIGURE})\n", text, count=1, flags=re.MULTILINE)
    )


def completed(card: Card, name: str, taxonomy: Taxonomy | None, evaluation: Evaluation | None, data: str) -> Card:
    """A card with metadata, and with the values of an evaluation on test cases of `data` and their plot.

    The text of `card` may have metadata or not; results that it has on other splits stay. `data`: '' for the data set
    of these. ModelError where the evaluation is of a data set without a name.
    """
    text = card.text
    if not text.startswith("---\n"):
        text = with_metadata(text or f"# {name}\n", card_data(name, taxonomy, []))
    given, figure = ModelCard(text), card.figure
    about: Any = given.data  # of ModelCardData, which its type does not say
    if evaluation is not None:
        known: list[EvalResult] = about.eval_results or []
        data = data or next((result.dataset_name for result in known), "")
        if not data:
            raise ModelError("name the data set that the evaluation is of: push_to_hub(..., data='my data').")
        metrics = {key: metric for key in HEADLINES if (metric := evaluation.get(key)) is not None}
        ends = {
            key: {"low": round(float(metric.low), 6), "high": round(float(metric.high), 6), "n": int(metric.count)}
            for key, metric in metrics.items()
            if metric.low == metric.low
        }
        found = results_of({key: metric.value for key, metric in metrics.items()}, data, "test", more=ends)
        others = [one for one in known if (one.dataset_name, one.dataset_split) != (data, "test")]
        about.model_name = about.model_name or name
        about.eval_results = [*others, *found]
        figure = png(scores(evaluation)) if found else figure
    return Card(with_figure(str(given)) if figure else str(given), figure)
