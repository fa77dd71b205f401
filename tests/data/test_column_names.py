from __future__ import annotations

import pytest

from hierderm import columns as c
from hierderm.data.column_names import NAMES, in_words, named_columns, proposed_columns
from hierderm.errors import ConfigError


def test_the_likeliest_names_come_first_and_known_columns_are_left_alone() -> None:
    found = proposed_columns(["File Name", "Lesion-ID", "patient_id", "dx", "Label", "skin type", "x"])
    assert found == {
        c.IMAGE_PATH: ["File Name"],
        c.CASE_ID: ["patient_id", "Lesion-ID"],
        c.CONDITION: ["dx", "Label"],
        c.FITZPATRICK: ["skin type"],
    }
    assert proposed_columns(["dx", "condition"]) == {}
    assert proposed_columns(["dx"], [c.CONDITION]) == {}
    assert proposed_columns(["Case ID"]) == {c.CASE_ID: ["Case ID"]}  # ours, spelt another way


def test_proposals_are_of_our_columns() -> None:
    assert set(NAMES) <= {*c.TEXT, c.FITZPATRICK, c.MONK} and set(c.REQUIRED) <= set(NAMES)


def test_as_they_are_typed() -> None:
    pairs = {c.CONDITION: "dx", c.CASE_ID: "Case No."}
    assert in_words(pairs) == "--column condition=dx --column 'case_id=Case No.'"
    assert named_columns(["condition=dx", "case_id=Case No."]) == pairs
    assert named_columns(None) == {}
    with pytest.raises(ConfigError, match=r"--column must look like condition=diagnosis, got \['condition'\]"):
        named_columns(["condition"])
    with pytest.raises(ConfigError, match=r"name each of our columns once, \['condition'\] come"):
        named_columns(["condition=a", "condition=b"])
