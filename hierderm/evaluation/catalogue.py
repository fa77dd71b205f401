"""Every metric by name: what it is called in tables, and which way is better."""

from __future__ import annotations

from typing import Literal

Direction = Literal["higher", "lower", "none"]
Key = tuple[str, str]  # level name, metric name
TREE = "tree"  # the level of metrics that look at the whole tree

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
    "mistake_severity": "Severity of wrong nearest",
    "expected_relevance_at_1": "Expected relevance, nearest",
    "expected_relevance_at_10": "Expected relevance, top 10",
    "nearest_is_plausible": "Nearest is plausible",
    "top1_accuracy": "Top-1 accuracy",
    "top3_accuracy": "Top-3 accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "crm_accuracy": "Top-1 accuracy, CRM decoding",
    "top1_is_plausible": "Top 1 is plausible",
    "top3_has_plausible": "Top 3 has a plausible one",
    "hierarchical_f1": "Hierarchical F1 of top 1",
    "top1_height": "Height of common ancestor, top 1",
    "top1_severity": "Severity of wrong top 1",
    "crm_height": "Height of common ancestor, CRM decoding",
    "crm_severity": "Severity of wrong CRM decoding",
    "brier": "Brier score",
    "ece": "Expected calibration error",
    "ece_scaled": "Expected calibration error, temperature-scaled",
    "aurc": "Area under risk-coverage",
    "conformal_coverage": "Coverage of conformal sets",
    "conformal_size": "Size of conformal sets",
    "conformal_nodes": "Nodes of the conformal set",
    "answer_rate": "Share answered",
    "answer_error": "Error of answers",
    "answer_depth": "Depth of answers",
    "answer_precision": "Hierarchical precision of answers",
    "answer_recall": "Hierarchical recall of answers",
    "answer_f1": "Hierarchical F1 of answers",
    "ami": "AMI",
    "nmi": "NMI",
    "ari": "ARI",
    "homogeneity": "Homogeneity",
    "completeness": "Completeness",
    "v_measure": "V-measure",
    "purity": "Purity",
    "purity_unweighted": "Purity, unweighted",
    "agglomerative_ami": "AMI, agglomerative",
    "agglomerative_purity": "Purity, agglomerative",
    "label_silhouette": "Silhouette of labels",
    "cluster_silhouette": "Silhouette of clusters",
    "effective_rank": "Effective rank",
    "mean_cosine": "Mean cosine",
    "train_knn_accuracy": "5-NN accuracy, training cases",
    "linear_probe_accuracy": "Linear probe accuracy",
    "linear_probe_balanced_accuracy": "Linear probe balanced accuracy",
    "few_shot_1": "Few-shot accuracy, 1 picture",
    "few_shot_5": "Few-shot accuracy, 5 pictures",
    "few_shot_10": "Few-shot accuracy, 10 pictures",
}
LOWER_IS_BETTER = frozenset(
    {"lca_height_at_10", "mistake_severity", "top1_height", "top1_severity", "crm_height", "crm_severity", "brier"}
    | {"ece", "ece_scaled", "aurc", "conformal_size", "conformal_nodes", "answer_error"}
)
# No quality of the embedding by itself: tight clusters come from collapse, too; coverage has a target, not a best.
NOT_RANKED = frozenset({"conformal_coverage", "answer_rate", "cluster_silhouette", "effective_rank", "mean_cosine"})
HEADLINES: tuple[Key, ...] = (
    ("coarse", "ami"), ("coarse", "map_at_r"), ("coarse", "recall_at_1"),
    ("fine", "ami"), ("fine", "map_at_r"), ("fine", "recall_at_1"),
)  # fmt: skip


def direction(name: str) -> Direction:
    """Whether a higher or a lower value of a metric is better, or 'none' where neither is."""
    if name in NOT_RANKED:
        return "none"
    return "lower" if name in LOWER_IS_BETTER else "higher"


def metric_name(level: str, name: str) -> str:
    """'fine', 'map_at_r' as 'fine MAP@R'."""
    return f"{level} {METRIC_NAMES.get(name, name)}"
