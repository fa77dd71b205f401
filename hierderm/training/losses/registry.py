"""The losses by name: ours and those of pytorch-metric-learning."""

from __future__ import annotations

import inspect
from typing import Any

import pytorch_metric_learning.losses as pml_losses
from torch import Tensor, nn

from hierderm.config.methods import LossKind, loss_kind
from hierderm.errors import ConfigError, suggest
from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.losses.fine_labels import FineLogitLoss
from hierderm.training.losses.himulcon import HiMulConELoss
from hierderm.training.losses.hxe import HXELoss
from hierderm.training.losses.logit_adjusted import LogitAdjustedLoss
from hierderm.training.losses.smooth_hap import SmoothHAPLoss
from hierderm.training.losses.soft_labels import SoftLabelsLoss
from hierderm.training.losses.supcon import SupConLoss
from hierderm.training.losses.tree_margin import TreeMarginLoss
from hierderm.training.losses.tree_supcon import TreeSupConLoss

# A new loss is a file, an entry here, and one in LOSS_KINDS of hierderm.config.methods: what it is called with.
OUR_LOSSES: dict[str, type[nn.Module]] = {
    "SupCon": SupConLoss,
    "TreeSupCon": TreeSupConLoss,
    "HiMulConE": HiMulConELoss,
    "SmoothHAP": SmoothHAPLoss,
    "CrossEntropy": nn.CrossEntropyLoss,
    "LogitAdjusted": LogitAdjustedLoss,
    "HXE": HXELoss,
    "SoftLabels": SoftLabelsLoss,
    "TreeMargin": TreeMarginLoss,
}


def make_contrastive_loss(name: str, options: dict[str, Any], taxonomy: Taxonomy | None = None) -> nn.Module:
    """A loss of (embeddings, labels) by name.

    Args:
        name: one of OUR_LOSSES that is not of the kind 'logits', or a loss of pytorch-metric-learning.
        options: its keyword arguments.
        taxonomy: for losses of the kind 'tree'.

    Raises:
        ConfigError: the name is unknown, the options do not fit, or the taxonomy is missing.
    """
    if loss_kind(name) == "logits":
        raise ConfigError(f"loss '{name}' takes logits: name it in training.loss.classification, not .contrastive.")
    return _made(_loss_class(name, ("levels", "tree")), name, options, taxonomy=taxonomy)


def make_classification_loss(
    name: str, options: dict[str, Any], *, class_counts: Tensor, dim: int, taxonomy: Taxonomy | None = None
) -> nn.Module:
    """The loss of the classified level by name.

    Args:
        name: one of OUR_LOSSES of the kind 'logits', which takes (logits, labels) of the model's classifier, or a loss
            of pytorch-metric-learning, which takes (embeddings, labels).
        options: its keyword arguments.
        class_counts: training images of each class, shape (n_classes,).
        dim: length of the embeddings, for losses with class weights of their own, such as ArcFaceLoss.
        taxonomy: the tree of the labels, for HXE, SoftLabels and TreeMargin.

    Raises:
        ConfigError: the name is unknown, the options do not fit, the taxonomy is missing or its finest level is not the
            one that is classified.
    """
    if name in OUR_LOSSES and loss_kind(name) != "logits":
        raise ConfigError(f"loss '{name}' takes embeddings: name it in training.loss.contrastive, not .classification.")
    loss_class = _loss_class(name, ("logits",))
    n_classes = len(class_counts)
    if issubclass(loss_class, FineLogitLoss) and taxonomy is not None and taxonomy.size(-1) != n_classes:
        raise ConfigError(
            f"loss '{name}' must classify the taxonomy's finest level, {taxonomy.size(-1)} classes, got {n_classes}: "
            "set training.loss.classification_level = 'fine'."
        )
    given = {"class_counts": class_counts, "num_classes": n_classes, "embedding_size": dim}
    return _made(loss_class, name, options, taxonomy=taxonomy, **given)


def _loss_class(name: str, kinds: tuple[LossKind, ...]) -> type[nn.Module]:
    """The class called `name`; `kinds` are those of our losses that an error message offers."""
    if name in OUR_LOSSES:
        return OUR_LOSSES[name]
    ours = [other for other in OUR_LOSSES if loss_kind(other) in kinds]
    known = [other for other in dir(pml_losses) if inspect.isclass(getattr(pml_losses, other)) and "Loss" in other]
    if name not in known:
        raise ConfigError(f"unknown loss '{name}'.{suggest(name, [*ours, *known])} Ours: {ours}; others: {known}.")
    found: type[nn.Module] = getattr(pml_losses, name)
    return found


def _made(loss_class: type[nn.Module], name: str, options: dict[str, Any], **given: Any) -> nn.Module:
    """The loss with its options and, of what is `given`, the arguments that it takes."""
    if own := sorted(set(options) & set(given)):
        raise ConfigError(f"the options of loss '{name}' must not have {own}: data, tree and model decide on them.")
    taken = set(inspect.signature(loss_class).parameters)
    if hasattr(loss_class, "get_logits"):  # pytorch-metric-learning's: some hide these behind *args
        taken |= {"num_classes", "embedding_size"}
    arguments = {key: value for key, value in given.items() if key in taken} | options
    if arguments.get("taxonomy", "") is None:
        raise ConfigError(f"loss '{name}' needs a taxonomy, got none.")
    try:
        return loss_class(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the options {sorted(options)} do not fit loss '{name}': {error}.") from None
