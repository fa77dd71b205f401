"""JSON under a schema: every fault names file, key, value and what to do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hierderm.errors import EmbeddingError, HierdermError, TaxonomyError
from hierderm.json_files import Known, checked, read_json
from hierderm.parquet import read_parquet
from hierderm.taxonomy.file import read_taxonomy
from hierderm.types import Count, Share


@dataclass(frozen=True)
class Inner:
    shares: tuple[Share, ...]


@dataclass(frozen=True)
class Outer:
    inner: Inner | None
    count: Count
    value: Known = 0.5


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"inner": {"shares": [0, 0.5, 1]}, "count": 3}')
    assert read_json(tmp_path / "a.json", Outer, EmbeddingError) == Outer(Inner((0.0, 0.5, 1.0)), 3)
    assert np.isnan(checked({"inner": None, "count": 0, "value": None}, Outer, "x", EmbeddingError).value)
    (tmp_path / "a.json").write_text('{"inner": null, "count": 3, "more": 1}')
    assert read_json(tmp_path / "a.json", Outer, EmbeddingError, extra="ignore").count == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.json is damaged: it must hold one value, it holds 0\. Restore a copy, or make it again\."),
        ('{"inner": null, "count": 1}, {"inner": null, "count": 1}', r"it must hold one value, it holds 2"),
        ("{", r"damaged: Invalid JSON: "),
        ("[" * 5000, r"damaged: Invalid JSON"),
        ("\udcff", r"damaged: Invalid JSON"),
        ("3", r"damaged: it must be an object, got 3\. Restore"),
        ('{"count": 1}', r"damaged: 'inner' is missing\. Restore"),
        ('{"inner": null, "count": true}', r"'count' must be a valid integer, got True"),
        ('{"inner": null, "count": -1}', r"'count' must be greater than or equal to 0, got -1"),
        ('{"inner": {"shares": [0.1, NaN]}, "count": 1}', r"'inner\.shares\.1' must be a finite number, got nan"),
        (
            '{"inner": {"shares": [1.5]}, "count": "1"}',
            r"'inner\.shares\.0' must be less .*, got 1\.5; 'count' must be",
        ),
        ('{"inner": {"shares": [], "more": 1}, "count": 1}', r"'inner\.more' is not known"),
        ('{"inner": null, "count": 1, "value": Infinity}', r"'value' must be a finite number, got inf"),
    ],
)
def test_faults_name_key_and_value(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(EmbeddingError, match=message):
        read_json(tmp_path / "a.json", Outer, EmbeddingError)


def test_pipes_folders_and_absent_files_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "pipe", "it must be a file, it is a pipe, a socket or a device"),
        (Path("/dev/zero"), "it must be a file, it is a pipe, a socket or a device"),
        (tmp_path, "Is a directory. It is a folder: name a file."),
        (tmp_path / "none", "No such file or directory. Check the path."),
        (tmp_path / ("x" * 300), "File name too long. Choose a shorter name."),
    ):
        with pytest.raises(EmbeddingError, match=message):
            read_json(path, Outer, EmbeddingError)
        with pytest.raises(EmbeddingError, match=message):
            read_parquet(path, EmbeddingError)
        with pytest.raises(TaxonomyError, match=message):
            read_taxonomy(path)


def test_text_that_is_no_text_is_found_at_once(tmp_path: Path) -> None:
    import pandas as pd

    path = tmp_path / "a.parquet"
    pd.DataFrame({"a": ["plain", "words"]}).to_parquet(path, compression=None)
    path.write_bytes(path.read_bytes().replace(b"plain", b"pla\xffn"))
    with pytest.raises(HierdermError, match=r"a\.parquet: not a readable Parquet file"):
        read_parquet(path, EmbeddingError)
