"""A tree of three levels, and a batch of embeddings with its labels."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from hierderm.taxonomy.tree import Taxonomy, taxonomy_from_paths

PATHS = [
    ("A", "Aa", "Aa1"),
    ("A", "Aa", "Aa2"),
    ("A", "Ab", "Ab1"),
    ("B", "Ba", "Ba1"),
    ("B", "Ba", "Ba2"),
    ("C", "Ca", "Ca1"),
]
LABELS = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5])


@pytest.fixture
def tree() -> Taxonomy:
    return taxonomy_from_paths(PATHS, ["category", "group", "condition"], id="three")


@pytest.fixture
def embeddings() -> torch.Tensor:
    torch.manual_seed(0)
    return normalize(torch.randn(len(LABELS), 5, dtype=torch.float64), dim=1).requires_grad_()


@pytest.fixture
def logits() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(len(LABELS), len(PATHS), dtype=torch.float64, requires_grad=True)
