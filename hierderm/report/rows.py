"""What the report needs to know of one model of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from hierderm.config.settings import ModelEntry
from hierderm.embeddings import EmbeddingTable
from hierderm.evaluation.evaluation import Evaluation


@dataclass(frozen=True)
class Row:
    """One model: its entry, its figures, its test embeddings and, where it was trained, its history.

    `test`, `history`: of the first fold and seed. `seconds`: wall time of one training or fit; `n_runs`: how many went
    into the figures; `setting`: what was chosen on validation, in words.
    """

    entry: ModelEntry
    evaluation: Evaluation
    test: EmbeddingTable
    history: pd.DataFrame | None
    seconds: float
    setting: str = ""
    n_runs: int = 1
