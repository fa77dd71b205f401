"""Parquet files, whose text is checked on reading: a damaged one would else fail much later."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hierderm.errors import HierdermError, describe_os_error
from hierderm.files import require_regular


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
