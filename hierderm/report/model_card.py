"""The model card that goes with every trained model."""

from __future__ import annotations

import pandas as pd

from hierderm import columns as c
from hierderm.config.methods import Gradient, Lda, LinearProbe, TreeLda, Vanilla
from hierderm.config.settings import BackboneConfig, Config
from hierderm.data.table import CaseTable
from hierderm.report.methods import describe_method
from hierderm.report.page import DISCLAIMER
from hierderm.report.rows import chosen_setting


def model_card(config: Config, table: CaseTable, history: pd.DataFrame, chosen: int) -> str:
    """Markdown: what the model is, on what it was trained, how it was chosen, and what it must not be used for.

    `chosen`: the row of `history` whose weights the model has.
    """
    best = history.iloc[chosen]
    images = {split: int((table.splits == split).sum()) for split in c.SPLITS}
    choice = "" if isinstance(config.training, Vanilla) else _choice(config.training, history, chosen)
    return f"""# {config.name}

{DISCLAIMER}

| | |
|---|---|
| backbone | `{config.backbone.name}` ({config.backbone.weights}){_origin(config.backbone)} |
| method | `{config.training.method}`: {describe_method(config.training)} |
| taxonomy | {table.taxonomy.summary()} |
| data | `{config.data.cases}` |
| images | {images["train"]} training, {images["validation"]} validation, {images["test"]} test (not seen) |
| split | {table.split_hash} |
{choice}| validation MAP@R | coarse {best["coarse_map_at_r"]:.3f}, fine {best["fine_map_at_r"]:.3f} |

Test metrics, with intervals, are in the report of the comparison. How well the model does on other cameras, clinics
or skin tones than those of its data is not known. Load it with `hierderm.load`, or embed with `hierderm embed`; the
weights are safetensors.
"""


def _origin(backbone: BackboneConfig) -> str:
    """Licence and origin of the weights, where they are those of a listed backbone."""
    from hierderm.model.listing import BACKBONES

    listed = next((one for one in BACKBONES if one.name == backbone.name and backbone.weights == "pretrained"), None)
    return f": {listed.licence}, {listed.pretraining}, {listed.origin}" if listed else ""


def _choice(settings: LinearProbe | Lda | TreeLda | Gradient, history: pd.DataFrame, chosen: int) -> str:
    folds = settings.folds if isinstance(settings, TreeLda) else 0
    beside = f" and, in turn, {folds} parts of the training cases" if folds else ""
    setting = f"{chosen_setting(history, chosen)} ({chosen + 1} of {len(history)})"
    return f"| chosen | {setting}, by {settings.monitor} on validation{beside} |\n"
