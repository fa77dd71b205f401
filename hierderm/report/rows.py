"""What the report needs to know of one model of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from hierderm.config.settings import ModelEntry
from hierderm.embeddings import EmbeddingTable
from hierderm.evaluation.evaluation import Evaluation


@dataclass(frozen=True)
class Row:
    """One model: its entry, its evaluation, its test embeddings and, where it was trained, its history.

    `test`, `history`: of the first fold and seed. `seconds`: wall time of one training run; `n_runs`: the number of
    training runs that the metrics average over; `setting`: the setting chosen on validation, in words.
    """

    entry: ModelEntry
    evaluation: Evaluation
    test: EmbeddingTable
    history: pd.DataFrame | None
    seconds: float
    setting: str = ""
    n_runs: int = 1
