"""Commands as a user gives them: what they print, and how they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from hierderm.cli.main import app
from hierderm.errors import HierdermError

TOY_FLAGS = ["--training.epochs", "1", "--evaluation.bootstrap_rounds=10"]


def run(*arguments: object) -> str:
    """Standard output of a command that must succeed."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*arguments: object) -> str:
    """What a real process prints when it refuses: exit code 1, no traceback."""
    command = [sys.executable, "-m", "hierderm", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def fails(*arguments: object) -> str:
    """As `refusal`, in this process: faster."""
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
