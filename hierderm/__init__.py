"""hierderm: hierarchical image embeddings for dermatology research. Not a medical device.

The public names; heavy parts are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

_MODULES = {
    "load": "model.loading",
    "Encoder": "model.encoder",
    "evaluate": "evaluation.evaluation",
    "Evaluation": "evaluation.evaluation",
    "paired_difference": "evaluation.inference.differences",
    "CaseIndex": "search.case_index",
    "SearchResult": "search.result",
    "CaseFinder": "search.finder",
    "SearchOptions": "search.finder",
    "Taxonomy": "taxonomy.tree",
    "taxonomy_from_paths": "taxonomy.tree",
    "load_taxonomy": "taxonomy.file",
    "read_taxonomy": "taxonomy.file",
    "write_taxonomy": "taxonomy.file",
    "CaseTable": "data.table",
    "read_cases": "data.checks",
    "split_cases": "data.splits",
    "EmbeddingTable": "embeddings",
    "TreeEmbedding": "training.tree_embedding",
    "Config": "config.settings",
    "Comparison": "config.settings",
    "load_config": "config.loading",
    "load_comparison": "config.loading",
    "prepare": "experiment.run",
    "train": "experiment.run",
    "tune": "experiment.tune",
    "Range": "experiment.tune",
    "compare": "experiment.compare",
    "bench": "experiment.benchmark",
    "Results": "experiment.results",
    "HierdermError": "errors",
}
__all__ = ["__version__", *_MODULES]

if TYPE_CHECKING:  # the same names for type checkers and editors; tests/test_public.py compares the two lists
    from hierderm.config.loading import load_comparison as load_comparison
    from hierderm.config.loading import load_config as load_config
    from hierderm.config.settings import Comparison as Comparison
    from hierderm.config.settings import Config as Config
    from hierderm.data.checks import read_cases as read_cases
    from hierderm.data.splits import split_cases as split_cases
    from hierderm.data.table import CaseTable as CaseTable
    from hierderm.embeddings import EmbeddingTable as EmbeddingTable
    from hierderm.errors import HierdermError as HierdermError
    from hierderm.evaluation.evaluation import Evaluation as Evaluation
    from hierderm.evaluation.evaluation import evaluate as evaluate
    from hierderm.evaluation.inference.differences import paired_difference as paired_difference
    from hierderm.experiment.benchmark import bench as bench
    from hierderm.experiment.compare import compare as compare
    from hierderm.experiment.results import Results as Results
    from hierderm.experiment.run import prepare as prepare
    from hierderm.experiment.run import train as train
    from hierderm.experiment.tune import Range as Range
    from hierderm.experiment.tune import tune as tune
    from hierderm.model.encoder import Encoder as Encoder
    from hierderm.model.loading import load as load
    from hierderm.search.case_index import CaseIndex as CaseIndex
    from hierderm.search.finder import CaseFinder as CaseFinder
    from hierderm.search.finder import SearchOptions as SearchOptions
    from hierderm.search.result import SearchResult as SearchResult
    from hierderm.taxonomy.file import load_taxonomy as load_taxonomy
    from hierderm.taxonomy.file import read_taxonomy as read_taxonomy
    from hierderm.taxonomy.file import write_taxonomy as write_taxonomy
    from hierderm.taxonomy.tree import Taxonomy as Taxonomy
    from hierderm.taxonomy.tree import taxonomy_from_paths as taxonomy_from_paths
    from hierderm.training.tree_embedding import TreeEmbedding as TreeEmbedding
else:  # a type checker must not see this: it would take every misspelt name for one of any type

    def __getattr__(name):
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module 'hierderm' has no attribute '{name}'")
        return getattr(import_module(f"hierderm.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
