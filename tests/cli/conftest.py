"""The table of the toy as the command line gets it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def toy_csv(toy_folder: Path) -> Path:
    return toy_folder / "cases.csv"
