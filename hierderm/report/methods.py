"""The methods section of a report, in sentences made from the settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hierderm.config.methods import ClosedForm, Gradient, Lda, LinearProbe, Loss, Method, TreeLda, Vanilla
from hierderm.config.settings import Comparison, EvaluationConfig
from hierderm.report.rows import Row


def methods(comparison: Comparison, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(title, paragraph) pairs: data, models, training, evaluation, statistics."""
    return [
        ("Data and split", _split(comparison)),
        ("Models", " ".join(f"{row.entry.name}: {describe_method(row.config.training)}." for row in rows)),
        ("Training", _training(comparison, rows)),
        ("Evaluation", _evaluation(comparison.evaluation)),
        ("Statistics", _statistics(comparison.evaluation)),
    ]


def _split(comparison: Comparison) -> str:
    split, kept = comparison.split, comparison.split.validation_fraction
    if comparison.protocol.every_fold:
        n = comparison.protocol.repeats
        again = f", {n} times with the cases divided anew" if n > 1 else ""
        how = f"{split.folds}-fold cross-validation{again}, each fold the test once; {kept:.0%} for validation"
    elif split.folds:
        how = f"fold {split.fold} of a {split.folds}-fold split is the test; {kept:.0%} for validation"
    else:
        how = f"{split.test_fraction:.0%} of the cases for the test and {kept:.0%} for validation"
    if split.reuse and not comparison.protocol.every_fold:
        how = f"the table's own split where it has one, else {how}"
    together = (
        "Cases with the same photograph, also turned, mirrored, cropped or bordered, stay in one part."
        if split.near_duplicates
        else "Near-duplicate images were not searched for."
    )
    return f"Cases of {comparison.data.cases} were divided, never the images of one case: {how}. {together}"


def describe_method(settings: Method) -> str:
    """How a method with these settings makes its embedding, without a full stop."""
    match settings:
        case Vanilla():
            return "the backbone's own output, nothing learnt"
        case Gradient():
            started = f", starting as {_tree_lda(settings.closed_form)}" if settings.init == "tree_lda" else ""
            return f"{_losses(settings.loss)}{started}; of the backbone, {_freezing(settings)}"
        case LinearProbe():
            tried = _values("an inverse penalty", settings.penalties)
            what = f"multinomial logistic regression on frozen features, the embedding its centred logits, {tried}"
        case Lda():
            tried = _values("a shrinkage", settings.shrinkages)
            what = f"linear discriminants of the conditions on frozen features, the embedding the projection, {tried}"
        case TreeLda():
            what = _tree_lda(settings)
    return f"{what}, with features {' or '.join(settings.features)}{_views(settings.views)}"


def _tree_lda(settings: ClosedForm) -> str:
    levels = "".join(f"{level} {weight:g}, " for level, weight in settings.probability_levels.items())
    how = f" ({levels}temperature {settings.probability_temperature:g})" if any(settings.probability_shares) else ""
    tried = (
        ("a shrinkage", settings.shrinkages),
        ("a decay", settings.decays),
        ("a strength", settings.strengths),
        (f"a share of the node probabilities{how}", settings.probability_shares),
    )
    text = ", ".join(_values(name, values) for name, values in tried)
    folds = settings.folds
    held_out = f"validation and {folds} parts of training left out in turn," if folds else "validation"
    control = "; as a control the conditions are assigned to categories at random" if settings.shuffle else ""
    return (
        "discriminants of the tree and node probabilities, in closed form on frozen features, the best on "
        f"{held_out} with {text}{control}"
    )


def _values(name: str, values: Iterable[float]) -> str:
    return f"{name} of {', '.join(f'{value:g}' for value in values)}"


def _losses(loss: Loss) -> str:
    parts = []
    if levels := [(level, weight) for level, weight in loss.contrastive_levels.items() if weight and loss.contrastive]:
        named = " and ".join(f"the {level} level (weight {weight:g})" for level, weight in levels)
        parts.append(f"{loss.contrastive} on {named}")
    if loss.classification and loss.classification_weight:
        weight = f"weight {loss.classification_weight:g}"
        parts.append(f"{loss.classification} on the {loss.classification_level} level ({weight})")
    text = " and ".join(parts)
    if len(parts) == 2 and loss.schedule == "coarse_then_fine":
        text += f", the second faded in over the first {loss.coarse_fraction:.0%} of the epochs"
    return text


def _freezing(settings: Gradient) -> str:
    what = {
        "frozen": f"nothing learns{_views(settings.views)}",
        "last_blocks": f"the last {settings.last_blocks} blocks learn",
        "lora": f"LoRA adapters of rank {settings.lora_rank} learn",
        "full": "all learns",
    }[settings.freeze]
    return f"{what}; features: {settings.features}"


def _views(views: int) -> str:
    return f", with {views} augmented views of each training image" if views else ""


_MONITORS = {
    "mean_retrieval": "the mean of MAP@R and recall@1 of both levels", "coarse_map_at_r": "coarse MAP@R",
    "fine_map_at_r": "fine MAP@R", "mean_map_at_r": "the geometric mean of coarse and fine MAP@R",
}  # fmt: skip


def _training(comparison: Comparison, rows: Sequence[Row]) -> str:
    backbone, seeds = comparison.backbone, comparison.protocol.seeds
    sentences = [
        f"Backbone {backbone.name} ({backbone.weights}); an image's vector is its output, or with features 'layers' "
        "that and the mean and deviation of every block's tokens.",
        *dict.fromkeys(_optimiser(own) for row in rows if isinstance(own := row.config.training, Gradient)),
    ]
    if monitors := dict.fromkeys(row.by for row in rows if row.by):
        named = " or ".join(_MONITORS[monitor] for monitor in monitors)
        sentences.append(f"Setting or epoch was chosen by {named} on validation.")
    where = " on each division" if comparison.protocol.every_fold else ""
    again = f"{seeds} times{where} with other seeds" if seeds > 1 else f"once{where}"
    return " ".join([*sentences, f"Each was trained {again}."])


def _optimiser(settings: Gradient) -> str:
    backbone = "" if settings.freeze == "frozen" else f", {settings.backbone_learning_rate:g} for the backbone"
    batches = f"batches of {settings.batch_size}" if settings.batch_size else "one batch"
    return (
        f"By losses: AdamW, {settings.epochs} epochs at most in {batches}; learning rate {settings.learning_rate:g} "
        f"for heads{backbone}, weight decay {settings.weight_decay:g}."
    )


def _evaluation(chosen: EvaluationConfig) -> str:
    return (
        "Test images are queries and gallery at once, each query's own case left out. k-means has as many clusters as "
        f"labels occur and is averaged over {chosen.kmeans_seeds} seeds; agglomerative clustering is Ward's on at most "
        f"{chosen.agglomerative_images} images, cut at each level. Temperature, answers at an error rate of "
        f"{chosen.answer_error:.0%} and conformal sets of coverage {1 - chosen.conformal_error:.0%} are learnt on one "
        "validation image per case."
    )


def _statistics(chosen: EvaluationConfig) -> str:
    return (
        f"{chosen.confidence:.0%} intervals come from {chosen.bootstrap_rounds} resamplings of whole cases, the "
        "same for all models; those of retrieval allow for the gallery being a sample, too. Differences are paired. "
        "Their p-values are of a sign-flip permutation test over cases where the metric is a mean over images, else of "
        "the bootstrap, and are adjusted by Holm's method for all headline comparisons of the report together."
    )
