"""hierderm: hierarchical image embeddings for dermatology research. Not a medical device.

The public surface; heavy parts are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "Taxonomy": "taxonomy",
    "load_taxonomy": "taxonomy_file",
    "read_taxonomy": "taxonomy_file",
    "taxonomy_from_paths": "taxonomy",
    "Config": "config",
    "load_config": "config",
    "CaseTable": "data.cases",
    "read_cases": "data.cases",
    "split_cases": "data.splits",
    "load_backbone": "model.backbone",
    "load_model": "model.checkpoint",
    "EmbeddingTable": "embeddings",
    "embed_trained": "embed",
    "embed_vanilla": "embed",
    "evaluate_all": "evaluate.summary",
    "Evaluation": "evaluate.summary",
    "paired_difference": "evaluate.differences",
    "retrieval_scores": "evaluate.retrieval",
    "case_scores": "evaluate.retrieval",
    "CaseIndex": "index.case_index",
    "Filter": "index.filters",
    "save_index": "index.folder",
    "open_index": "index.folder",
    "updating": "index.folder",
    "CaseFinder": "finder",
    "compare": "comparison",
    "train_run": "pipeline",
    "HierdermError": "errors",
}
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'hierderm' has no attribute '{name}'")
    return getattr(import_module(f"hierderm.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
