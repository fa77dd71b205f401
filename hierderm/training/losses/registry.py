"""The losses, by name: ours and those of pytorch-metric-learning."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning.losses import BaseMetricLossFunction
from pytorch_metric_learning.reducers import AvgNonZeroReducer, BaseReducer
from pytorch_metric_learning.utils import loss_and_miner_utils
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hierderm.errors import ConfigError, suggest


class SupConLoss(BaseMetricLossFunction):  # type: ignore[misc]  # pytorch-metric-learning has no types
    """Supervised contrastive loss, L_out of Khosla et al. 2020 (arXiv 2004.11362, equation 2).

    For an anchor i with positives P(i) and all others A(i):

        L_i = -1/|P(i)| * sum over p in P(i) of log( exp(s_ip / t) / sum over a in A(i) of exp(s_ia / t) )

    with s the cosine and t the `temperature` > 0. Same values and gradients as pytorch-metric-learning's SupConLoss
    from one dense log-sum-exp, at 0.57 of its memory for 4,096 embeddings (benchmarks/supcon.py). Anchors without
    positives do not count; a batch without any gives 0. Works with the library's miners (pairs they leave out leave
    P and A), cross-batch memory and distributed wrapper.
    """

    def __init__(self, temperature: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not temperature > 0:
            raise ConfigError(f"temperature must be > 0, got {temperature}.")
        self.temperature = temperature
        self.add_to_recordable_attributes(list_of_names=["temperature"], is_stat=False)

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
    ) -> Any:
        similarity = self.distance(embeddings, ref_emb) / self.temperature  # (n, n_references)
        positive, other = _pair_masks(similarity, labels, indices_tuple, embeddings, ref_emb, ref_labels)
        n_positives = positive.sum(dim=1)
        denominator = torch.where(other, similarity, -torch.inf).logsumexp(dim=1)
        mean_positive = (similarity * positive).sum(dim=1) / n_positives.clamp(min=1)
        has_positive = n_positives > 0
        loss = torch.where(has_positive, torch.where(has_positive, denominator, 0.0) - mean_positive, 0.0)
        return {"loss": {"losses": loss, "indices": torch.arange(len(loss)), "reduction_type": "element"}}

    def get_default_reducer(self) -> BaseReducer:
        return AvgNonZeroReducer()

    def get_default_distance(self) -> Any:
        from pytorch_metric_learning.distances import CosineSimilarity

        return CosineSimilarity()


def _pair_masks(
    similarity: Tensor,
    labels: Tensor | None,
    indices_tuple: tuple[Tensor, ...] | None,
    embeddings: Tensor,
    ref_emb: Tensor,
    ref_labels: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Which pairs are positives, and which stand in the denominator, each shape (n, n_references), bool."""
    if indices_tuple is None:
        assert labels is not None and ref_labels is not None
        positive = labels[:, None] == ref_labels[None, :]
        other = torch.ones_like(positive)
        if ref_emb is embeddings:
            other.fill_diagonal_(False)
        return positive & other, other
    anchor, found, anchor_of_negative, negative = loss_and_miner_utils.convert_to_pairs(
        indices_tuple, labels, ref_labels
    )
    positive = torch.zeros_like(similarity, dtype=torch.bool)
    positive[anchor, found] = True
    other = positive.clone()
    other[anchor_of_negative, negative] = True
    return positive, other


class LogitAdjustedLoss(nn.Module):
    """Cross-entropy on logits + tau * log prior (Menon et al. 2021, arXiv 2007.07314, equation 10).

    It makes up for a long tail: rare classes must win by a margin in training, so they are not drowned in use.
    `class_counts`: images of each class, shape (n_classes,); empty classes count as one. `tau` >= 0; 0 is plain.
    """

    log_prior: Tensor

    def __init__(self, class_counts: Tensor, tau: float = 1.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        counts = class_counts.clamp(min=1).float()
        self.register_buffer("log_prior", tau * (counts / counts.sum()).log())
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits + self.log_prior, labels, label_smoothing=self.label_smoothing)


def make_contrastive_loss(name: str, options: dict[str, Any]) -> nn.Module:
    """A loss of (embeddings, labels): 'SupCon' is ours, other names are pytorch-metric-learning's."""
    if name == "SupCon":
        return _built(SupConLoss, name, options)
    return _built(_pml_class(name, ["SupCon"]), name, options)


LOGIT_LOSSES = ("CrossEntropy", "LogitAdjusted")


def make_classification_loss(name: str, options: dict[str, Any], *, class_counts: Tensor, dim: int) -> nn.Module:
    """The fine loss. Those of LOGIT_LOSSES take (logits, labels) of the model's classifier.

    Any other name is a loss of pytorch-metric-learning and takes (embeddings, labels); one with class weights of its
    own, such as ArcFaceLoss, is built for `len(class_counts)` classes and embeddings of length `dim`.
    """
    if name == "CrossEntropy":
        return _built(nn.CrossEntropyLoss, name, options)
    if name == "LogitAdjusted":
        return _built(LogitAdjustedLoss, name, {"class_counts": class_counts, **options})
    loss_class = _pml_class(name, list(LOGIT_LOSSES))
    if hasattr(loss_class, "get_logits"):
        options = {"num_classes": len(class_counts), "embedding_size": dim, **options}
    return _built(loss_class, name, options)


def _pml_class(name: str, ours: list[str]) -> Any:
    known = [other for other in dir(pml_losses) if inspect.isclass(getattr(pml_losses, other)) and "Loss" in other]
    if name not in known:
        raise ConfigError(f"unknown loss '{name}'.{suggest(name, [*ours, *known])} Ours: {ours}; others: {known}.")
    return getattr(pml_losses, name)


def _built(loss_class: Any, name: str, options: dict[str, Any]) -> nn.Module:
    try:
        loss: nn.Module = loss_class(**options)
    except TypeError as error:
        raise ConfigError(f"the options {sorted(options)} do not fit loss '{name}': {error}.") from None
    return loss
