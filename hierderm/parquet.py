"""Parquet files: text is checked on reading, where a damaged file would else fail much later, and types on writing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from hierderm.errors import HierdermError, OutputError, describe_os_error
from hierderm.files import require_regular
from hierderm.types import Floats


def read_parquet(path: Path, error: type[HierdermError]) -> pd.DataFrame:
    """The table in a Parquet file; `error` where it is none, or damaged."""
    try:
        require_regular(path)
        frame = pd.read_parquet(path)
        for name in frame.select_dtypes(include=["object", "string"]):
            frame[name].to_numpy(dtype=object)
    except OSError as fault:
        raise error(f"{path}: {describe_os_error(fault)}") from None
    except Exception as fault:  # pyarrow raises errors of all kinds
        raise error(f"{path}: not a readable Parquet file ({str(fault)[:200]}). Make it again.") from None
    return frame


def write_parquet(frame: pd.DataFrame, path: Path, vectors: Mapping[str, Floats] | None = None) -> None:
    """A table as Parquet; OutputError with the columns whose cells no type of Parquet holds.

    `vectors`: further columns of lists of one length, each an array of shape (n_rows, dim).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    faults = (pa.ArrowException, OverflowError)
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except faults as error:
        if isinstance(error, OSError):
            raise
        wrong = []
        for name in frame:
            try:
                pa.array(frame[name], from_pandas=True)
            except faults:
                wrong.append(str(name))
        raise OutputError(
            f"each column must hold values of one type to be written as Parquet, {wrong or error} do(es) not. Make it "
            "text, e.g. frame[name] = frame[name].map(str)."
        ) from None
    for name, rows in (vectors or {}).items():  # pandas can't read such columns in a table of its own
        flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
        table = table.append_column(name, pa.FixedSizeListArray.from_arrays(flat, rows.shape[1]))
    pq.write_table(table, path)
