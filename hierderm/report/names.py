"""How metrics are called in tables, and which of them carry the summary."""

from __future__ import annotations

METRIC_NAMES = {
    "recall_at_1": "Recall@1",
    "map_at_r": "MAP@R",
    "top1_accuracy": "Top-1 accuracy",
    "ami": "AMI",
    "nmi": "NMI",
    "ari": "ARI",
    "homogeneity": "Homogeneity",
    "completeness": "Completeness",
    "v_measure": "V-measure",
    "purity": "Purity",
    "purity_unweighted": "Purity, unweighted",
    "silhouette": "Silhouette of labels",
}
HEADLINES = (
    ("coarse", "ami"), ("coarse", "map_at_r"), ("coarse", "recall_at_1"),
    ("fine", "ami"), ("fine", "map_at_r"), ("fine", "recall_at_1"),
)  # fmt: skip


def metric_name(level: str, name: str) -> str:
    """'fine', 'map_at_r' as 'fine MAP@R'."""
    return f"{level} {METRIC_NAMES[name]}"
