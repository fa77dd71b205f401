"""A tree of nine conditions in three categories, and embeddings of cases made up for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hierderm.embeddings import EmbeddingTable, Provenance, unit_length
from hierderm.taxonomy.tree import taxonomy_from_paths

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")
MADE_BY = Provenance("m", "w" * 12, "p" * 12, TREE.content_hash, "")
DIM = 8


def circle(*degrees: float) -> np.ndarray:
    return np.array([[np.cos(np.radians(d)), np.sin(np.radians(d))] for d in degrees])


def table(
    embeddings: np.ndarray, cases: Sequence[str], fine: Sequence[int] | np.ndarray, start: int = 0
) -> EmbeddingTable:
    n = len(embeddings)
    frame = pd.DataFrame(
        {
            "image_path": [f"{k}.png" for k in range(start, start + n)],
            "image_id": [f"i{k}" for k in range(start, start + n)],
            "case_id": list(cases),
            "condition": [f"F{k}" for k in fine],
            "fitzpatrick": [float(1 + k % 6) for k in range(n)],
        }
    )
    return EmbeddingTable(unit_length(embeddings), frame, MADE_BY)


def random_table(n: int, seed: int = 0, start: int = 0) -> EmbeddingTable:
    """Two images a case, clustered by condition."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(0, 9, n // 2).repeat(2)[:n]
    centres = np.random.default_rng(99).normal(size=(9, DIM))
    cases = [f"s{start}c{k // 2}" for k in range(n)]
    return table(centres[fine] + rng.normal(0, 0.7, (n, DIM)), cases, fine, start)
