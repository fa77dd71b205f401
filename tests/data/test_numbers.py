from __future__ import annotations

import pandas as pd

from hierderm.data.numbers import without_decimal_commas


def test_decimal_commas_are_read_and_said() -> None:
    frame = pd.DataFrame(
        {
            "case_id": ["1,5", "2,5", ""],  # an id is no number
            "diameter": ["3,5", "12", ""],
            "people": ["1,234", "5,678", ""],  # thousands
            "mixed": ["1,5", "2.5", ""],
            "note": ["1,5", "large", ""],
            "whole": ["1", "2", ""],
            "fitzpatrick": ["3,0", "2,0", ""],
        }
    )
    found, notes = without_decimal_commas(frame)
    assert found["diameter"].tolist() == ["3.5", "12", ""] and found["fitzpatrick"].tolist() == ["3.0", "2.0", ""]
    assert found.drop(columns=["diameter", "fitzpatrick"]).equals(frame.drop(columns=["diameter", "fitzpatrick"]))
    assert notes == [
        "column 'diameter' has decimal commas: '3,5' is read as 3.5.",
        "column 'people' stays text: the comma of '1,234' may divide thousands.",
        "column 'mixed' stays text: the comma of '1,5' may divide thousands.",
        "column 'fitzpatrick' has decimal commas: '3,0' is read as 3.0.",
    ]


def test_columns_that_are_no_text() -> None:
    frame = pd.DataFrame({"age": [1.5, None], "list": [["1,5"], ["2"]], "both": ["1,5", 2.5]}, index=[4, 7])
    found, notes = without_decimal_commas(frame)
    assert found.equals(frame) and notes == []
