"""What the report needs to know of one model of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from hierderm.config import ModelEntry
from hierderm.embeddings import EmbeddingTable
from hierderm.evaluate.summary import Evaluation


@dataclass(frozen=True)
class Row:
    """One model: its entry, its figures, its test embeddings and, where it was trained, its history.

    `seconds`: wall time of the training or fit; `setting`: what was chosen on validation, in words.
    """

    entry: ModelEntry
    evaluation: Evaluation
    test: EmbeddingTable
    history: pd.DataFrame | None
    seconds: float
    setting: str = ""
