"""The model card that goes with every trained model."""

from __future__ import annotations

import pandas as pd

from hierderm import columns as c
from hierderm.config.settings import Config
from hierderm.data.table import CaseTable
from hierderm.report.methods import contrastive_levels
from hierderm.report.page import DISCLAIMER


def model_card(config: Config, table: CaseTable, history: pd.DataFrame, chosen: int) -> str:
    """Markdown: what the model is, on what it was trained, how it was chosen, and what it must not be used for.

    `chosen`: the row of `history` whose weights the model has.
    """
    best = history.iloc[chosen]
    images = {split: int((table.splits == split).sum()) for split in c.SPLITS}
    tree, loss = table.taxonomy, config.loss
    by_losses = config.training.method == "gradient"
    levels = contrastive_levels(loss)
    contrastive = f"{loss.contrastive} on {levels}" if levels else "none"
    fine = f"{loss.classification} on {loss.classification_level}" if loss.classification else "none"
    learnt = (
        f"""| backbone | `{config.backbone.name}`, learning: {config.training.freeze} |
| contrastive loss | {contrastive} |
| classification loss | {fine}, weight {loss.classification_weight:g} |"""
        if by_losses
        else f"""| backbone | `{config.backbone.name}`, frozen |
| embedding | discriminants of the tree: shrinkage {best["shrinkage"]:g}, decay {best["decay"]:g}, strength \
{best["strength"]:g}; share of the beliefs in its nodes: {best["belief"]:g}; features: {best["features"]}; \
augmented views of the training pictures: {config.training.views} |"""
    )
    choice = "epoch" if by_losses else "setting"
    folds = 0 if by_losses else config.tree_lda.folds
    beside = f" and, in turn, {folds} parts of the training cases" if folds else ""
    return f"""# {config.name}

{DISCLAIMER}

| | |
|---|---|
{learnt}
| taxonomy | {tree.summary()} |
| data | `{config.data.cases}` |
| images | {images["train"]} training, {images["validation"]} validation, {images["test"]} test (not seen) |
| split | {table.split_hash} |
| chosen {choice} | {int(best["epoch"]) + 1} of {len(history)}, by validation {config.training.monitor}{beside} |
| validation MAP@R | coarse {best["coarse_map_at_r"]:.3f}, fine {best["fine_map_at_r"]:.3f} |

Test figures, with intervals, are in the report of the comparison. How well the model does on other cameras, clinics
or skin tones than those of its data is not known. Load it with `hierderm embed` or
`hierderm.model.checkpoint.load_model`; the weights are safetensors.
"""
