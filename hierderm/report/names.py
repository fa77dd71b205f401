"""How metrics are called in tables, which of them carry the summary, and the colours of categories."""

from __future__ import annotations

# Twenty colours told apart by most readers; categories beyond repeat them with another marker.
PALETTE = (
    "#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#999999", "#004488", "#DDAA33", "#BB5566",
    "#000000", "#117733", "#88CCEE", "#DDCC77", "#882255", "#44AA99", "#332288", "#CC6677", "#661100", "#6699CC",
)  # fmt: skip
METRIC_NAMES = {
    "recall_at_1": "Recall@1",
    "recall_at_10": "Recall@10",
    "precision_at_10": "Precision@10",
    "r_precision": "R-precision",
    "map_at_r": "MAP@R",
    "mrr": "Mean reciprocal rank",
    "knn_accuracy": "5-NN accuracy",
    "case_recall_at_1_best": "Recall@1 of cases, by best pair",
    "case_recall_at_1_mean": "Recall@1 of cases, by mean",
    "case_map_at_r_best": "MAP@R of cases, by best pair",
    "case_map_at_r_mean": "MAP@R of cases, by mean",
    "ndcg": "nDCG",
    "hap": "Hierarchical AP",
    "asi": "Average set intersection",
    "lca_height_at_10": "Height of common ancestor, top 10",
    "mistake_severity": "Severity of wrong top 1",
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
