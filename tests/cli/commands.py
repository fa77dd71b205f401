"""Commands as a user gives them: what they print, and how they refuse."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest
from typer.testing import CliRunner

from hierderm.cli.main import app, main
from hierderm.errors import HierdermError

TOY_FLAGS = ["--training.epochs", "1", "--evaluation.bootstrap_rounds=10"]


def run(*arguments: object) -> str:
    """Standard output of a command that must succeed."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*arguments: object) -> str:
    """What the program prints on standard error when it refuses, with exit code 1."""
    printed = io.StringIO()
    given = patch.object(sys, "argv", ["hierderm", *map(str, arguments)])
    with given, redirect_stderr(printed), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1, printed.getvalue()
    return printed.getvalue()


def fails(*arguments: object) -> str:
    """The message of a command's fault."""
    with pytest.raises(HierdermError) as caught:
        CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    return str(caught.value)


def changed(toy_csv: Path, name: str, **columns: object) -> Path:
    frame = pd.read_csv(toy_csv, dtype=str, keep_default_na=False)
    for column, value in columns.items():
        frame[column] = value if isinstance(value, list) else [value, *frame[column][1:]]
    path = toy_csv.with_name(name)
    frame.to_csv(path, index=False)
    return path
