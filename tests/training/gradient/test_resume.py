"""A run that was killed, or stopped by Ctrl-C, goes on when started again, and ends as an unbroken one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from hierderm.config.loading import dump_config, with_overrides
from hierderm.config.settings import Config
from hierderm.experiment.run import prepare, train


def start(config: Path, out: Path) -> subprocess.Popen[bytes]:
    # A shell's job may have been started with SIGINT ignored.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from hierderm.cli.main import main; main()"
    command = [sys.executable, "-c", code, "train", str(config), "-o", str(out)]
    return subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stderr=subprocess.PIPE)


def rows(out: Path) -> int:
    path = out / "history.csv"
    return len(pd.read_csv(path)) if path.is_file() else 0


def broken_off(path: Path, out: Path, n_rows: int, by: signal.Signals) -> tuple[int, str]:
    """Exit code and standard error of a run that gets a signal after `n_rows` epochs."""
    process = start(path, out)
    deadline = time.monotonic() + 200
    while rows(out) < n_rows and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(by)
    _, errors = process.communicate(timeout=60)
    assert n_rows <= rows(out) < 10, "it must end in the middle"
    assert not (out / "model").exists()
    return process.returncode, errors.decode()


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def test_a_killed_run_ends_as_an_unbroken_one(
    toy_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Patience so small that early stopping, too, must remember what it saw before the kill.
    config = with_overrides(toy_config, {"training.epochs": 10, "training.patience": 10, "training.seed": 3})
    path = tmp_path / "config.toml"
    path.write_text(dump_config(config))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    table, _ = prepare(config.data, config.split, whole)
    unbroken = train(config, table, whole)

    broken_off(path, broken, 2, signal.SIGKILL)
    code, errors = broken_off(path, broken, 4, signal.SIGINT)
    assert code == 130 and "Stopped." in errors and "Traceback" not in errors
    finish(start(path, broken))
    pd.testing.assert_frame_equal(pd.read_csv(broken / "history.csv"), unbroken.history, check_exact=False, rtol=1e-6)
    first, second = (load_file(out / "model" / "model.safetensors") for out in (whole, broken))
    for key in first:
        torch.testing.assert_close(second[key], first[key], rtol=1e-5, atol=1e-6)

    assert "toy: already trained." not in caplog.messages
    caplog.set_level("INFO")
    train(config, table, broken)
    assert "toy: already trained." in caplog.messages


def test_another_configuration_does_not_continue_the_run(toy_config: Config, tmp_path: Path) -> None:
    from hierderm.errors import CheckpointError, ConfigError

    table, _ = prepare(toy_config.data, toy_config.split, tmp_path)
    train(toy_config, table, tmp_path)
    with pytest.raises(CheckpointError, match=r"holds another run: training\.epochs was 2, now 9\. Choose"):
        train(with_overrides(toy_config, {"training.epochs": 9}), table, tmp_path)
    with pytest.raises(ConfigError, match=r"other data or another split: split\.seed was 0, now 9\. Choose"):
        prepare(toy_config.data, replace(toy_config.split, seed=9), tmp_path)
