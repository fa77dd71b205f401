"""A run that was killed, or stopped by Ctrl-C, goes on when started again, and ends as an unbroken one."""

from __future__ import annotations

import os
import shutil
import signal
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import lightning
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from hierderm.config.loading import dump_config, with_overrides
from hierderm.config.settings import Config
from hierderm.experiment.run import Run, prepare, train
from hierderm.training.gradient.checkpoints import Checkpoints
from hierderm.training.gradient.loop import History
from tests.processes import command

EPOCHS = 7  # some are left when a signal arrives


def start(config: Path, out: Path) -> ForkServerProcess:
    return command(["train", str(config), "-o", str(out)], out.with_suffix(".err"))


def rows(out: Path) -> int:
    path = out / "history.csv"
    return len(pd.read_csv(path)) if path.is_file() else 0


def broken_off(path: Path, out: Path, n_rows: int, by: signal.Signals) -> tuple[int, str]:
    """Exit code and standard error of a run that gets a signal after `n_rows` epochs."""
    process = start(path, out)
    deadline = time.monotonic() + 200
    while rows(out) < n_rows and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.pid
    os.kill(process.pid, by)
    process.join(60)
    assert n_rows <= rows(out) < EPOCHS, "it must end in the middle"
    assert not (out / "model").exists()
    return process.exitcode or 0, out.with_suffix(".err").read_text()


@pytest.mark.together("processes")
def test_a_killed_run_ends_as_an_unbroken_one(
    toy_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Patience so small that early stopping, too, must remember what it saw before the kill.
    config = with_overrides(toy_config, {"training.epochs": EPOCHS, "training.patience": 10, "training.seed": 3})
    path = tmp_path / "config.toml"
    path.write_text(dump_config(config))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    table, _ = prepare(config.data, config.split, whole)
    unbroken = train(config, table, whole)

    broken_off(path, broken, 1, signal.SIGKILL)
    code, errors = broken_off(path, broken, 2, signal.SIGINT)
    assert code == 130 and "Stopped." in errors and "Traceback" not in errors
    last = start(path, broken)
    last.join(300)
    assert last.exitcode == 0, broken.with_suffix(".err").read_text()
    pd.testing.assert_frame_equal(pd.read_csv(broken / "history.csv"), unbroken.history, check_exact=False, rtol=1e-6)
    first, second = (load_file(out / "model" / "model.safetensors") for out in (whole, broken))
    for key in first:
        torch.testing.assert_close(second[key], first[key], rtol=1e-5, atol=1e-6)

    assert "toy: already trained." not in caplog.messages
    caplog.set_level("INFO")
    train(config, table, broken)
    assert "toy: already trained." in caplog.messages


@pytest.fixture(scope="module")
def stopped(toy_config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path, Config]:
    """An unbroken run of four epochs, and the folder of one that was stopped after three."""
    place = tmp_path_factory.mktemp("stopped")
    settings = {"epochs": 4, "patience": 10, "seed": 3, "freeze": "frozen", "init": "tree_lda", "views": 0}
    config = with_overrides(toy_config, {f"training.{name}": value for name, value in settings.items()})
    table, _ = prepare(config.data, config.split, place / "whole")
    whole = train(config, table, place / "whole")
    broken = place / "broken"

    def stop(self: History, trainer: lightning.Trainer, module: object) -> None:
        if trainer.current_epoch == 3:
            raise InterruptedError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(History, "on_train_epoch_start", stop)
        prepare(config.data, config.split, broken)
        train(config, table, broken)
    return whole, broken, config


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    """One bit of the weights: torch itself would not notice."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content[largest.header_offset + 200 + largest.file_size // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, emptied, flipped, Path.unlink])
def test_a_damaged_checkpoint_is_left_aside(
    stopped: tuple[Run, Path, Config], damage: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    for names, resumed in (
        ([], "last.ckpt"),
        (["last"], "last.previous.ckpt"),
        (["best.previous"], "last.ckpt"),
        (["best", "best.previous"], None),
        (["last", "last.previous"], None),
    ):
        shutil.copytree(stopped[1] / "checkpoints", folder)
        for name in names:
            damage(folder / f"{name}.ckpt")
        found = Checkpoints(folder).resumed()
        assert (found and found.name) == resumed, names
        shutil.rmtree(folder)


@pytest.mark.parametrize(("damage", "names"), [(cut, ["last"]), (Path.unlink, ["best"]), (emptied, ["last", "best"])])
def test_after_damage_the_end_is_that_of_an_unbroken_run(
    stopped: tuple[Run, Path, Config],
    damage: Callable[[Path], None],
    names: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole, broken, config = stopped
    folder = tmp_path / "moved"  # the best score so far must not be lost with the old place
    shutil.copytree(broken, folder)
    for name in names:
        damage(folder / "checkpoints" / f"{name}.ckpt")
    run = train(config, prepare(config.data, config.split, folder)[0], folder)
    pd.testing.assert_frame_equal(run.history, whole.history, check_exact=False, rtol=1e-6)
    assert run.chosen == whole.chosen
    first, second = (load_file(place / "model" / "model.safetensors") for place in (whole.folder, folder))
    for key in first:
        torch.testing.assert_close(second[key], first[key], rtol=1e-5, atol=1e-6)
    assert "is missing or damaged, training goes on from the epoch before" in caplog.text


def test_checkpoints_follow_the_umask(stopped: tuple[Run, Path, Config]) -> None:
    usual = (stopped[1] / "history.csv").stat().st_mode
    assert {path.stat().st_mode for path in (stopped[1] / "checkpoints").iterdir()} == {usual}


def test_another_configuration_does_not_continue_the_run(toy_config: Config, tmp_path: Path) -> None:
    from hierderm.errors import CheckpointError, ConfigError

    table, _ = prepare(toy_config.data, toy_config.split, tmp_path)
    train(toy_config, table, tmp_path)
    with pytest.raises(CheckpointError, match=r"holds another run: training\.epochs was 2, now 9\. Choose"):
        train(with_overrides(toy_config, {"training.epochs": 9}), table, tmp_path)
    with pytest.raises(ConfigError, match=r"other data or another split: split\.seed was 0, now 9\. Choose"):
        prepare(toy_config.data, replace(toy_config.split, seed=9), tmp_path)
