"""The model card that goes with every trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from hierderm import columns as c
from hierderm.artifacts import Card
from hierderm.config.methods import Method, TreeLda
from hierderm.config.settings import BackboneConfig, Config
from hierderm.data.table import CaseTable
from hierderm.evaluation.validation import level_queries
from hierderm.model.card import card_data, results_of, with_figure, with_metadata
from hierderm.model.hub import is_hub_name
from hierderm.model.listing import BACKBONES, Listed
from hierderm.plots import PALETTE, png
from hierderm.report.methods import describe_method
from hierderm.report.page import DISCLAIMER
from hierderm.report.rows import SHOWN_SCORES, chosen_setting, scores_text
from hierderm.report.words import data_name

if TYPE_CHECKING:
    from hierderm.training.fitted import Fitted

LEVELS = ("coarse", "fine")


def model_card(config: Config, table: CaseTable, found: Fitted) -> Card:
    """What the model is, on what it was trained, how it was chosen, what it must not be used for, and a figure."""
    best, validation = found.history.iloc[found.chosen], table.part(c.VALIDATION)
    queries = ", ".join(f"{level} {level_queries(validation, level)[0]}" for level in LEVELS)
    images = {split: int((table.splits == split).sum()) for split in c.SPLITS}
    choice = _choice(config.training, found) if found.by else ""
    data = data_name(config.data.cases)
    text = f"""# {config.name}

{DISCLAIMER}

| | |
|---|---|
| backbone | `{config.backbone.name}` ({config.backbone.weights}){_origin(config.backbone)} |
| method | `{config.training.method}`: {describe_method(config.training)} |
| taxonomy | {table.taxonomy.summary()} |
| data | `{data}` |
| images | {images["train"]} training, {images["validation"]} validation, {images["test"]} test (not seen) |
| split | {table.split_hash} |
{choice}| on validation | {scores_text(best)}; images that have another case to find: {queries} of {len(validation)} |

Test metrics, with intervals, are in the report of a comparison. How well the model does on other cameras, clinics
or skin tones than those of its data is not known. Load it with `hierderm.load`, or embed with `hierderm embed`; the
weights are safetensors.
"""
    values = {(level, metric): best[f"{level}_{metric}"] for metric in SHOWN_SCORES for level in LEVELS}
    results = results_of(values, data, c.VALIDATION, revision=table.split_hash)
    tree = found.network.taxonomy or table.taxonomy
    metadata = card_data(config.name, tree, results, _repository(config.backbone))
    return Card(with_metadata(with_figure(text), metadata), png(choice_plot(found.history, found.chosen)))


def choice_plot(history: pd.DataFrame, chosen: int) -> Figure:
    """The validation scores of every setting or epoch that was tried, those of the chosen one marked."""
    figure = Figure(figsize=(6, 2.7), layout="constrained")
    axes = figure.add_subplot()
    scores = {f"{level} {name}": f"{level}_{metric}" for level in LEVELS for metric, name in SHOWN_SCORES.items()}
    for row, column in enumerate(scores.values()):
        values = history[column].to_numpy(dtype=float)
        axes.plot(values, [row] * len(values), "|", color="#888888", markersize=9, label="tried" if row == 0 else "")
        axes.plot(values[chosen], row, "D", color=PALETTE[0], markersize=7, label="chosen" if row == 0 else "")
        if values[chosen] == values[chosen]:
            axes.text(values[chosen], row - 0.25, f"{values[chosen]:.3f}", ha="center", fontsize=9)
    axes.set_yticks(range(len(scores)), scores)
    axes.set_ylim(len(scores) - 0.5, -0.8)
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"scores on validation; settings or epochs tried: {len(history)}", fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _repository(backbone: BackboneConfig) -> str:
    """Where the hub has the backbone; '' where it has not."""
    listed = _listed(backbone)
    source = backbone.name.removeprefix("hf:")
    return listed.repository if listed else source if backbone.name.startswith("hf:") and is_hub_name(source) else ""


def _listed(backbone: BackboneConfig) -> Listed | None:
    return next((one for one in BACKBONES if one.name == backbone.name and backbone.weights == "pretrained"), None)


def _origin(backbone: BackboneConfig) -> str:
    """Licence and origin of the weights, where they are those of a listed backbone."""
    listed = _listed(backbone)
    return f": {listed.licence}, {listed.pretraining}, {listed.origin}" if listed else ""


def _choice(settings: Method, found: Fitted) -> str:
    folds = settings.folds if isinstance(settings, TreeLda) else 0
    beside = f" and, in turn, {folds} parts of the training cases" if folds else ""
    setting = f"{chosen_setting(found.history, found.chosen)} ({found.chosen + 1} of {len(found.history)})"
    return f"| chosen | {setting}, by {found.by} on validation{beside} |\n"
