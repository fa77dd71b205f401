"""Ids that are damaged, stand for none, or join what can hardly be one case."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierderm.data.ids import damaged_ids, id_notes


@pytest.mark.parametrize(
    "value",
    ["1.57398E+17", "1,57398E+17", "-1.5e+18", "1E+05", "2.50E19", "#N/A", "#REF!", "########", "1.7467982353254e+18"],
)
def test_what_a_spreadsheet_leaves_of_a_number(value: str) -> None:
    assert list(damaged_ids(pd.Series(["a", value]))) == [1]


@pytest.mark.parametrize(
    "value", ["1E5", "12E4", "A+5", "5e", "E+17", "p#1", "1.5", "2023-01-02", "-1000600354148496558", "#12", "1e5f"]
)
def test_what_only_resembles_it(value: str) -> None:
    assert damaged_ids(pd.Series(["a", value])) == {}


@given(st.integers(0, 2**32 - 1), st.integers(3, 9))
def test_long_numbers_that_went_through_a_spreadsheet_or_a_float_are_told(seed: int, size: int) -> None:
    numbers = [int(n) for n in np.random.default_rng(seed).integers(10**17, 9 * 10**18, size)]
    excel = pd.Series([str(round(number, 15 - len(str(number)))) for number in numbers])
    floats = pd.Series([str(int(float(number))) for number in numbers])
    assert len(damaged_ids(excel)) == len(damaged_ids(floats)) == len(numbers)


def test_long_numbers_that_are_whole() -> None:
    numbers = np.random.default_rng(0).integers(10**17, 9 * 10**18, 200)
    assert damaged_ids(pd.Series([str(n) for n in numbers])) == {}
    assert damaged_ids(pd.Series(["1000000000000000", "12345678901234560"])) == {}  # which may be by chance


def notes(cases: list[str], conditions: list[str] | None = None) -> str:
    images = [f"i{number}" for number in range(len(cases))]
    return "\n".join(id_notes(pd.DataFrame({"image_id": images, "case_id": cases, "condition": conditions or "x"})))


@pytest.mark.parametrize("none", ["NA", "n/a", "Unknown", "0", "-", "None", "nan", "-1", "999", "?", "NOT AVAILABLE"])
def test_placeholders_are_counted(none: str) -> None:
    assert f"case_id(s) that may stand for an unknown one: '{none}' (3 image(s)). Each counts as one case." in notes(
        [none] * 3 + ["p17", "p18"]
    )


def test_doubtful_cases_are_named() -> None:
    assert notes(["0", "1", "2", "3"]) == ""  # a numbering from 0
    assert notes(["997", "998", "999", "1000"]) == ""  # one of a count
    assert "1 case(s) have more than 20 images: 'a' (21). Are they one case each?" in notes(["a"] * 21 + ["b"] * 20)
    assert "all 5 images are of one case, 'a': no split by case is possible" in notes(["a"] * 5)
    assert "1 case(s) have images of several conditions: 'a' (Eczema, Psoriasis)." in notes(
        list("aab"), ["Eczema", "Psoriasis", "Eczema"]
    )
    assert "case_ids that differ in case, accents or spaces alone count as different: 'P1' = 'p1'." in notes(
        ["P1", "p1", "q"]
    )
    assert "2 case_id(s) look like numbers read as floating point: 12.0, 13.0." in notes(["12.0", "13.0"])
    assert "2 case_id(s) look like dates that a spreadsheet made of them: 3-Dec, Jan-05." in notes(
        ["3-Dec", "Jan-05", "q"]
    )
    assert notes(["a", "a", "b"]) == ""


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        (
            ["1.57398E+17", "1.57398E+17", "x"],
            "1 value(s) that a spreadsheet or floating point has damaged: 1.57398E+17",
        ),
        (
            [1746803573373870081.0, 2.0, np.nan],
            "1 value(s) that a spreadsheet or floating point has damaged: 1746803573",
        ),
        (["1E5", "2.5", None], ""),
        ([0.5, 1e12, np.nan], ""),
        ([1, 2, 3], ""),
        ([True, None, ["x"]], ""),
    ],
)
def test_damaged_numbers_in_columns_of_the_users_own(values: list[object], wrong: str) -> None:
    said = id_notes(
        pd.DataFrame({"image_id": list("abc"), "case_id": list("pqr"), "condition": "x", "patient": values})
    )
    assert len(said) == bool(wrong)
    assert not wrong or f"column 'patient' has {wrong}" in said[0]
