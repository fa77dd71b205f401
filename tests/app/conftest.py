"""A page on the toy's index."""

from __future__ import annotations

from pathlib import Path

import pytest

from hierderm.data.table import CaseTable
from hierderm.search.case_index import CaseIndex
from hierderm.search.finder import CaseFinder


@pytest.fixture(scope="session")
def toy_index(toy: CaseTable, small_siglip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of training and validation images, with skin tones made up for the filters."""
    folder = tmp_path_factory.mktemp("app") / "index"
    toned = CaseTable(toy.frame.assign(fitzpatrick=[1 + k % 6 for k in range(len(toy))]), toy.taxonomy, toy.root)
    CaseIndex.build(toned, f"hf:{small_siglip}", splits=("train", "validation"), k=5).save(folder)
    return folder


@pytest.fixture(scope="session")
def finder(toy_index: Path) -> CaseFinder:
    return CaseFinder.open(toy_index)
