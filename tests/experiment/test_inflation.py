"""What a split by image would have claimed."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from hierderm.config.loading import with_overrides
from hierderm.config.settings import Comparison
from hierderm.errors import ConfigError
from hierderm.experiment.inflation import inflation


def test_several_splits_or_seeds_are_refused(toy_comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"once, on one split: it does not read \['protocol.seeds'\]. Leave them out"):
        inflation(with_overrides(toy_comparison, {"protocol.seeds": 2}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_split_by_image_flatters(toy_comparison: Comparison, tmp_path: Path) -> None:
    """Images of one case are alike, so that a query that may find its own case scores higher."""
    rows = inflation(
        with_overrides(toy_comparison, {"models": [{"name": "v", "method": "vanilla"}], "training": {}}), tmp_path
    )
    found = {(row["level"], row["name"]): row for row in rows}
    recall = found["fine", "recall_at_1"]
    assert recall["own_case_allowed"]["value"] > recall["by_case"]["value"]
    assert json.loads((tmp_path / "inflation.json").read_text()) == rows
    assert recall["by_image"]["count"] > 0
    split = pd.read_csv(tmp_path / "by-image" / "cases.csv")
    assert split["case_id"].nunique() == len(split)
