"""hierderm: hierarchical image embeddings for dermatology research. Not a medical device.

The public surface; heavy parts are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "Taxonomy": "taxonomy.tree",
    "load_taxonomy": "taxonomy.file",
    "read_taxonomy": "taxonomy.file",
    "taxonomy_from_paths": "taxonomy.tree",
    "Config": "config.settings",
    "Comparison": "config.settings",
    "load_config": "config.loading",
    "load_comparison": "config.loading",
    "CaseTable": "data.table",
    "read_cases": "data.checks",
    "split_cases": "data.splits",
    "load_backbone": "model.backbone",
    "load_model": "model.checkpoint",
    "EmbeddingTable": "embeddings",
    "embed_trained": "model.embed",
    "embed_vanilla": "model.embed",
    "evaluate_all": "evaluation.evaluation",
    "Evaluation": "evaluation.evaluation",
    "paired_difference": "evaluation.inference.differences",
    "retrieval_scores": "evaluation.metrics.retrieval",
    "case_scores": "evaluation.metrics.retrieval",
    "CaseIndex": "search.case_index",
    "SearchResult": "search.result",
    "CaseFinder": "search.finder",
    "SearchOptions": "search.finder",
    "compare": "experiment.compare",
    "prepare": "experiment.run",
    "train": "experiment.run",
    "HierdermError": "errors",
}
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'hierderm' has no attribute '{name}'")
    return getattr(import_module(f"hierderm.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
