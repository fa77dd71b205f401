"""Where the curves of a training go while it runs: a logger of Lightning, by the name in `training.logger`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hierderm.errors import MissingExtraError
from hierderm.files import text_hash, write_atomically

PROJECT = "hierderm"


def make_logger(kind: str, folder: Path, settings: Mapping[str, Any]) -> Any:
    """The logger of a training in its run folder, with the settings logged; False for none.

    A training that goes on continues its curves: W&B and MLflow know the run by an id, and `csv` begins another file.
    W&B and MLflow send to the server that their own environment variables name; without one W&B asks for a login, or
    writes into the folder with WANDB_MODE=offline, and MLflow writes a database into the folder.
    """
    if not kind:
        return False
    try:
        logger = {"tensorboard": _tensorboard, "csv": _csv, "wandb": _wandb, "mlflow": _mlflow}[kind](folder)
    except ModuleNotFoundError:
        raise MissingExtraError(f"training.logger = '{kind}'", kind) from None
    logger.log_hyperparams(dict(settings))
    return logger


def _tensorboard(folder: Path) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(str(folder), name="tensorboard", version="", default_hp_metric=False)


def _csv(folder: Path) -> Any:
    from lightning.pytorch.loggers import CSVLogger

    return CSVLogger(str(folder), name="csv")


def _wandb(folder: Path) -> Any:
    from lightning.pytorch.loggers import WandbLogger

    run = text_hash(str(folder.resolve()))
    return WandbLogger(project=PROJECT, name=folder.name, id=run, save_dir=str(folder), resume="allow")


def _mlflow(folder: Path) -> Any:
    from lightning.pytorch.loggers import MLFlowLogger

    stamp, place = folder / "mlflow-run.txt", folder.resolve()
    server = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{place / 'mlflow.db'}"
    known = stamp.read_text(encoding="utf-8").strip() if stamp.is_file() else None
    logger = MLFlowLogger(PROJECT, folder.name, server, artifact_location=str(place / "mlflow"), run_id=known)
    if known is None:
        write_atomically(stamp, f"{logger.run_id}\n")
    return logger
