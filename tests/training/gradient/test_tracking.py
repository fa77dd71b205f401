"""Each logger writes where it is told, without a network; a run that goes on continues; a missing extra says so."""

from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest

from hierderm.config.loading import with_overrides
from hierderm.config.settings import Config
from hierderm.data.table import CaseTable
from hierderm.errors import MissingExtraError
from hierderm.experiment.run import train
from hierderm.training.gradient.tracking import make_logger

SETTINGS = {"epochs": 2, "loss": {"contrastive": "SupCon"}}


def test_without_a_name_there_is_none(tmp_path: Path) -> None:
    assert make_logger("", tmp_path, SETTINGS) is False and list(tmp_path.iterdir()) == []


def test_csv_files_of_a_training(toy_config: Config, toy: CaseTable, tmp_path: Path) -> None:
    config = with_overrides(toy_config, {"training.logger": "csv", "training.epochs": 1})
    run = train(config, toy, tmp_path / "run")
    logged = pd.read_csv(run.folder / "csv" / "version_0" / "metrics.csv")
    assert logged["coarse_map_at_r"].dropna().tolist() == pytest.approx(run.history["coarse_map_at_r"].tolist())
    assert "epochs: 1" in (run.folder / "csv" / "version_0" / "hparams.yaml").read_text()


def test_tensorboard_files(tmp_path: Path) -> None:
    logger = make_logger("tensorboard", tmp_path, SETTINGS)
    logger.log_metrics({"train_loss": 0.5}, step=1)
    logger.finalize("success")
    assert list((tmp_path / "tensorboard").glob("events*"))


class Fake:
    """In place of a logger whose package takes seconds to start: what it is given is looked at."""

    made: ClassVar[list[Fake]] = []
    run_id = "r1"

    def __init__(self, *given: Any, **options: Any) -> None:
        self.given, self.options = given, options
        Fake.made.append(self)

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.params = params


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[Fake]:
    for name in ("WandbLogger", "MLFlowLogger"):
        monkeypatch.setattr(f"lightning.pytorch.loggers.{name}", Fake)
    monkeypatch.setattr(Fake, "made", [])
    return Fake.made


def test_wandb_knows_a_run_that_goes_on(fake: list[Fake], tmp_path: Path) -> None:
    for _ in range(2):
        make_logger("wandb", tmp_path / "mine", SETTINGS)
    first, again = fake
    assert first.options == again.options and first.params == SETTINGS
    assert first.options | {"id": ""} == {
        "project": "hierderm", "name": "mine", "id": "", "save_dir": str(tmp_path / "mine"), "resume": "allow",
    }  # fmt: skip
    make_logger("wandb", tmp_path / "other", SETTINGS)
    assert len(first.options["id"]) == 12 and fake[2].options["id"] != first.options["id"]


def test_mlflow_writes_into_the_folder_or_to_the_server_that_is_named(
    fake: list[Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    make_logger("mlflow", tmp_path, SETTINGS)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:9")
    make_logger("mlflow", tmp_path, SETTINGS)
    first, again = fake
    assert first.given == ("hierderm", tmp_path.name, f"sqlite:///{tmp_path}/mlflow.db") and first.params == SETTINGS
    assert first.options["run_id"] is None and again.options["run_id"] == "r1"
    assert again.given[2] == "http://localhost:9"


@pytest.mark.skipif(not os.environ.get("HIERDERM_SLOW"), reason="starts W&B and MLflow, 15 s: set HIERDERM_SLOW=1")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "left"), [("wandb", "wandb/offline-run-*/*.wandb"), ("mlflow", "mlflow.db")])
def test_the_packages_themselves_write_offline(
    kind: str, left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for step in range(2):  # the second goes on
        logger = make_logger(kind, tmp_path, SETTINGS)
        logger.log_metrics({"train_loss": 0.5}, step=step)
        logger.finalize("success")
    assert list(tmp_path.glob(left))


@pytest.mark.parametrize("kind", ["wandb", "mlflow", "tensorboard"])
def test_a_missing_extra_says_what_to_install(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refusing(name: str, *args: Any, **more: Any) -> Any:
        if name == "lightning.pytorch.loggers":
            raise ModuleNotFoundError(f"no {kind}")
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(
        MissingExtraError, match=rf"training.logger = '{kind}' needs .* pip install 'hierderm\[{kind}\]'"
    ):
        make_logger(kind, tmp_path, SETTINGS)
