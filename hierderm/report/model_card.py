"""The model card that goes with every trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hierderm import columns as c
from hierderm.config.methods import Method, TreeLda
from hierderm.config.settings import BackboneConfig, Config
from hierderm.data.table import CaseTable
from hierderm.evaluation.validation import level_queries
from hierderm.model.card import card_data, results_of, with_metadata
from hierderm.model.hub import is_hub_name
from hierderm.model.listing import BACKBONES, Listed
from hierderm.report.methods import describe_method
from hierderm.report.page import DISCLAIMER
from hierderm.report.rows import chosen_setting, score_text

if TYPE_CHECKING:
    from hierderm.training.fitted import Fitted


def model_card(config: Config, table: CaseTable, found: Fitted) -> str:
    """Markdown: what the model is, on what it was trained, how it was chosen, and what it must not be used for."""
    best, validation = found.history.iloc[found.chosen], table.part(c.VALIDATION)
    scores = ", ".join(
        f"{level} {score_text(best[f'{level}_map_at_r'])} "
        f"({level_queries(validation, level)[0]} of {len(validation)} images have another case to find)"
        for level in ("coarse", "fine")
    )
    images = {split: int((table.splits == split).sum()) for split in c.SPLITS}
    choice = _choice(config.training, found) if found.by else ""
    data = Path(config.data.cases).name  # the card may be published: without the folders of this machine
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
{choice}| validation MAP@R | {scores} |

Test metrics, with intervals, are in the report of the comparison. How well the model does on other cameras, clinics
or skin tones than those of its data is not known. Load it with `hierderm.load`, or embed with `hierderm embed`; the
weights are safetensors.
"""
    values = {(level, "map_at_r"): best[f"{level}_map_at_r"] for level in ("coarse", "fine")}
    results = results_of(values, data, c.VALIDATION, revision=table.split_hash)
    tree = found.network.taxonomy or table.taxonomy
    return with_metadata(text, card_data(config.name, tree, results, _repository(config.backbone)))


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
