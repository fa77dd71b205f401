"""Losses, one a file; when to use which: docs/losses.md."""

from hierderm.training.losses.himulcon import HiMulConELoss
from hierderm.training.losses.hxe import HXELoss
from hierderm.training.losses.logit_adjusted import LogitAdjustedLoss
from hierderm.training.losses.smooth_hap import SmoothHAPLoss
from hierderm.training.losses.soft_labels import SoftLabelsLoss
from hierderm.training.losses.supcon import SupConLoss
from hierderm.training.losses.tree_margin import TreeMarginLoss
from hierderm.training.losses.tree_supcon import TreeSupConLoss

__all__ = [
    "SupConLoss",
    "TreeSupConLoss",
    "HiMulConELoss",
    "SmoothHAPLoss",
    "HXELoss",
    "SoftLabelsLoss",
    "TreeMarginLoss",
    "LogitAdjustedLoss",
]
