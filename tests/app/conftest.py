"""A page on the toy's index."""

from __future__ import annotations

from pathlib import Path

import pytest

from hierderm.data.table import CaseTable
from hierderm.model.encoder import load
from hierderm.search.finder import CaseFinder, make_index
from hierderm.search.persistence import save_index


@pytest.fixture(scope="session")
def toy_index(toy: CaseTable, small_siglip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of training and validation pictures, with skin tones made up for the filters."""
    model, folder = f"hf:{small_siglip}", tmp_path_factory.mktemp("app") / "index"
    toned = CaseTable(toy.frame.assign(fitzpatrick=[1 + k % 6 for k in range(len(toy))]), toy.taxonomy, toy.root)
    index, _ = make_index(toned, load(model).embed(toned), model=model, splits=("train", "validation"), k=5)
    save_index(index, folder)
    return folder


@pytest.fixture(scope="session")
def finder(toy_index: Path) -> CaseFinder:
    return CaseFinder.open(toy_index)
