"""What the report needs to know of one model of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hierderm.config.settings import Config, ModelEntry
from hierderm.embeddings import EmbeddingTable
from hierderm.evaluation.evaluation import Evaluation

SHOWN_SCORES = {"map_at_r": "MAP@R", "recall_at_1": "recall@1"}  # of validation, by the end of the column's name


@dataclass(frozen=True)
class Row:
    """One model: its entry and settings, its evaluation, its test embeddings, and its history.

    `test`, `history`, `chosen`, `by`: of the first fold and seed; `chosen` is the row of `history` that the model is
    of, `by` the score it was chosen by, '' where nothing was chosen. `seconds`: mean wall time of one training;
    `n_runs`: how many trainings went into the values.
    """

    entry: ModelEntry
    config: Config
    evaluation: Evaluation
    test: EmbeddingTable
    history: pd.DataFrame
    chosen: int
    by: str
    seconds: float
    n_runs: int = 1

    @property
    def setting(self) -> str:
        """What was chosen on validation, in words; '' where there was no choice."""
        return chosen_setting(self.history, self.chosen)


def chosen_setting(history: pd.DataFrame, chosen: int) -> str:
    """The values of a row of a history that are settings and not scores, in words."""
    row = history.iloc[chosen]
    scores = ("held_out", "_map_at_r", "_recall_at_1", "_retrieval", "_loss")
    names = [name for name in map(str, history.columns) if not name.endswith(scores)]
    texts = {name: row[name] if isinstance(row[name], str) else f"{row[name]:g}" for name in names}
    return ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in texts.items())


def scores_text(row: pd.Series) -> str:
    """The validation scores of a row of a history, in words."""

    def text(column: str) -> str:
        return "undefined" if np.isnan(row[column]) else f"{row[column]:.3f}"

    parts = [f"{name} coarse {text(f'coarse_{m}')}, fine {text(f'fine_{m}')}" for m, name in SHOWN_SCORES.items()]
    return "; ".join(parts)
