"""The methods section of a report, in sentences made from the configuration."""

from __future__ import annotations

from collections.abc import Sequence

from hierderm.config.loading import with_overrides
from hierderm.config.settings import Config, LossConfig, ModelEntry, TreeLdaConfig
from hierderm.report.rows import Row

FROZEN = {
    "vanilla": "the backbone's own output, nothing learnt",
    "linear_probe": "multinomial logistic regression on standardised frozen features; the embedding is the logits",
    "lda": "linear discriminants of the conditions with shrinkage on frozen features; the embedding is the projection",
}


def methods(config: Config, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(title, paragraph) pairs: data, models, training, evaluation, statistics."""
    return [
        ("Data and split", _split(config)),
        ("Models", " ".join(_model(config, row.entry) for row in rows)),
        ("Training", _training(config)),
        ("Evaluation", _evaluation(config)),
        ("Statistics", _statistics(config)),
    ]


def _split(config: Config) -> str:
    split, kept = config.split, config.split.validation_fraction
    if config.protocol.every_fold:
        n = config.protocol.repeats
        again = f", {n} times with the cases divided anew" if n > 1 else ""
        how = f"{split.folds}-fold cross-validation{again}, each fold the test once; {kept:.0%} for validation"
    elif split.folds:
        how = f"fold {split.fold} of a {split.folds}-fold split is the test; {kept:.0%} for validation"
    else:
        how = f"{split.test_fraction:.0%} of the cases for the test and {kept:.0%} for validation"
    if split.reuse and not config.protocol.every_fold:
        how = f"the table's own split where it has one, else {how}"
    together = (
        f"Pictures whose perceptual hashes differ in at most {split.near_duplicates} of 256 bits stay in one part."
        if split.near_duplicates >= 0
        else "Near-duplicate pictures were not looked for."
    )
    return f"Cases of {config.data.cases} were divided, never the pictures of one case: {how}. {together}"


def _model(config: Config, entry: ModelEntry) -> str:
    own = with_overrides(config, {**entry.set, "models": []})
    views = _views(own)
    if entry.method == "vanilla":
        return f"{entry.name}: {FROZEN['vanilla']}."
    if entry.method in FROZEN:
        return f"{entry.name}: {FROZEN[entry.method]}{views}."
    if own.training.method == "tree_lda":
        return f"{entry.name}: {_tree_lda(own.tree_lda)}{views}."
    return f"{entry.name}: {_losses(own.loss)}; of the backbone, {_freezing(own)}."


def _tree_lda(grid: TreeLdaConfig) -> str:
    believed = f"belief in the {' and '.join(grid.belief_levels)} level" if grid.belief_levels else "belief"
    tried = (
        ("shrinkage", grid.shrinkages),
        ("decay", grid.decays),
        ("strength", grid.strengths),
        (believed, grid.beliefs),
    )
    text = ", ".join(f"{name} of {', '.join(f'{value:g}' for value in values)}" for name, values in tried)
    held_out = f"validation and {grid.folds} parts of training left out in turn," if grid.folds else "validation"
    control = "; conditions have changed places in the tree by chance, as a control" if grid.shuffle else ""
    return (
        "discriminants of the tree, beside beliefs in its nodes, in closed form on frozen features, the best on "
        f"{held_out} with features {' or '.join(grid.features)}, {text}{control}"
    )


def _losses(loss: LossConfig) -> str:
    parts = []
    if levels := contrastive_levels(loss):
        parts.append(f"{loss.contrastive} on {levels}")
    if loss.classification and loss.classification_weight:
        weight = f"weight {loss.classification_weight:g}"
        parts.append(f"{loss.classification} on the {loss.classification_level} level ({weight})")
    text = " and ".join(parts)
    if len(parts) == 2 and loss.schedule == "coarse_then_fine":
        text += f", the second faded in over the first {loss.coarse_fraction:.0%} of the epochs"
    return text


def contrastive_levels(loss: LossConfig) -> str:
    """The levels of the contrastive loss with their weights, '' where there is none."""
    if not loss.contrastive:
        return ""
    return " and ".join(f"the {level} level (weight {w:g})" for level, w in loss.contrastive_levels.items() if w > 0)


def _freezing(config: Config) -> str:
    training = config.training
    what = {
        "frozen": "nothing learns",
        "last_blocks": f"the last {training.last_blocks} blocks learn",
        "lora": f"LoRA adapters of rank {training.lora_rank} learn",
        "full": "all learns",
    }[training.freeze]
    return what + (_views(config) if training.freeze == "frozen" else "")


def _views(config: Config) -> str:
    views = config.training.views
    return f", with {views} augmented views of each training picture" if views else ""


def _training(config: Config) -> str:
    training, seeds, backbone = config.training, config.protocol.seeds, config.backbone
    monitor = training.monitor.replace("_map_at_r", " MAP@R")
    where = " on each division" if config.protocol.every_fold else ""
    again = (
        f"Each was trained {seeds} times{where} with other seeds." if seeds > 1 else f"Each was trained once{where}."
    )
    of_layers = "its output and mean and deviation of every block's tokens"
    vector = of_layers if backbone.features == "layers" else "its output"
    trained = [with_overrides(config, {**m.set, "models": []}) for m in config.models if m.method == "train"]
    by_losses = (
        f"By losses: AdamW, {training.epochs} epochs at most in batches of {training.batch_size}; learning rate "
        f"{training.learning_rate:g} for heads, {training.backbone_learning_rate:g} for the backbone, weight decay "
        f"{training.weight_decay:g}. "
        if any(own.training.method == "gradient" for own in trained)
        else ""
    )
    return (
        f"Backbone {backbone.name} ({backbone.weights}); a picture's vector is {vector}. {by_losses}Setting or epoch "
        f"was chosen by {monitor} on validation (a mean of levels is geometric). {again}"
    )


def _evaluation(config: Config) -> str:
    chosen = config.evaluation
    return (
        "Test pictures are queries and gallery at once, each query's own case left out. k-means has as many "
        "clusters as "
        f"labels occur and is averaged over {chosen.kmeans_seeds} seeds; agglomerative clustering is Ward's on at most "
        f"{chosen.agglomerative_images} pictures, cut at each level. Temperature, answers at an error rate of "
        f"{chosen.answer_error:.0%} and conformal sets of coverage {1 - chosen.conformal_error:.0%} are learnt on one "
        "validation picture a case."
    )


def _statistics(config: Config) -> str:
    chosen = config.evaluation
    return (
        f"{chosen.confidence:.0%} intervals come from {chosen.bootstrap_rounds} resamplings of whole cases, the "
        "same for all "
        "models; those of retrieval allow for the gallery being a sample, too. Differences are paired. Their "
        "p-values are "
        "of a sign-flip permutation test over cases where the figure is a mean over pictures, else of the "
        "bootstrap, and "
        "are adjusted by Holm's method for all headline comparisons of the report together."
    )
