from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd

from hierderm.data.table import as_text


def test_cells_as_text() -> None:
    cells = (3, 3.0, 2.5, np.float32(0.1), 2**62 + 1, 1e300, Decimal("3.00"), Decimal("2.50"), True, np.int64(-7))
    assert [as_text(cell) for cell in cells] == [
        "3", "3", "2.5", "0.1", "4611686018427387905", str(int(1e300)), "3", "2.50", "True", "-7",
    ]  # fmt: skip
    assert [as_text(cell) for cell in (" arm ", "3.0", "1E5", "inf")] == ["arm", "3.0", "1E5", "inf"]
    assert [as_text(cell) for cell in (None, float("nan"), pd.NA, pd.NaT, np.float32("nan"))] == [""] * 5
    assert as_text(b" arm\xff ") == "arm\\xff"
    assert as_text([1, 2]) == "[1, 2]"
