"""Running the training to its end, from the start or from where a killed run stopped."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import pandas as pd
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging
from torch import Tensor

from hierderm.config.methods import Gradient
from hierderm.errors import ConfigError
from hierderm.files import write_atomically
from hierderm.progress import Progress
from hierderm.training.gradient.checkpoints import AtomicFiles, BestEpoch, Checkpoints
from hierderm.training.gradient.hooks import skip_empty_hooks
from hierderm.training.gradient.module import TrainingModule
from hierderm.training.gradient.tracking import make_logger
from hierderm.training.ranks import rank, world_size


class History(lightning.Callback):
    """One row an epoch, kept in the checkpoint and written to `history.csv`; a resumed run continues its rows.

    "epoch" is the number of epochs that were done, so 0 is the start, where that is a model already.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, list[dict[str, float]]()

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.rows.append({"epoch": trainer.current_epoch + 1, **_logged(trainer)})
        if trainer.is_global_zero:
            write_atomically(self.path, pd.DataFrame(self.rows).to_csv(index=False))

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = state["rows"]


class Shown(lightning.Callback):
    """How many batches are done, of all epochs."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.progress.total = int(trainer.estimated_stepping_batches) - trainer.global_step  # of a run that goes on

    def on_train_batch_end(self, *_: Any) -> None:
        self.progress.update()

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.progress.what = f"Training, epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"


def run_training(module: TrainingModule, folder: Path) -> tuple[pd.DataFrame, int]:
    """Train to the end, resuming from `folder/checkpoints` where a run was stopped: see `Checkpoints`.

    Returns the history and the row of it whose epoch was best. The module then holds the weights of that epoch. Where
    training starts from the closed form, that start is among the epochs. The same seed gives the same history, broken
    or not.
    """
    settings = module.settings
    require_processes(settings)
    history = History(folder / "history.csv")
    checkpoints = Checkpoints(folder / "checkpoints")
    best = BestEpoch(checkpoints.folder)
    stopping = EarlyStopping("monitor", mode="max", patience=settings.patience, check_on_train_epoch_end=True)
    resumed = checkpoints.resumed()
    with _calm(), warnings.catch_warnings(), Progress("Training", unit="batches") as progress:
        _ignore_known_warnings()
        callbacks = [history, Shown(progress), stopping, best, *_averaging(settings.average)]
        skip_empty_hooks(module, *callbacks)
        trainer = lightning.Trainer(
            default_root_dir=folder,
            max_epochs=settings.epochs,
            precision=settings.precision,
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=_strategy(settings),
            sync_batchnorm=world_size() > 1 and settings.accelerator != "cpu" and torch.cuda.is_available(),
            callbacks=callbacks,
            plugins=[AtomicFiles()],
            logger=make_logger(settings.logger, folder, asdict(settings)) if rank() == 0 else False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
        )
        start = None
        try:
            if settings.init == "tree_lda":
                trainer.validate(module, verbose=False)
                start = _Start.of(module, _logged(trainer))
                history.rows.append({"epoch": 0, **start.scores})
            trainer.fit(module, ckpt_path=resumed, weights_only=True)
        except MisconfigurationException as error:
            raise ConfigError(f"Lightning does not accept the training settings: {error}") from None
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None
    assert best.best_model_score is not None
    rows = pd.DataFrame(history.rows)
    if start and start.scores[settings.monitor] >= float(best.best_model_score):
        module.load_state_dict(start.trained, strict=False)
        return rows, 0
    chosen = checkpoints.best(float(best.best_model_score))
    module.load_state_dict(chosen["state_dict"])
    return rows, int(chosen["epoch"]) + (start is not None)


class _Start(NamedTuple):
    """The validation scores before the first epoch, and what training will change of the module's state."""

    scores: dict[str, float]
    trained: dict[str, Tensor]

    @classmethod
    def of(cls, module: TrainingModule, scores: dict[str, float]) -> _Start:
        frozen = {name for name, weight in module.named_parameters() if not weight.requires_grad}
        return cls(scores, {name: t.clone() for name, t in module.state_dict().items() if name not in frozen})


def _logged(trainer: lightning.Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name != "monitor"}


def require_processes(settings: Gradient) -> None:
    """ConfigError unless as many processes train as the settings say."""
    wanted = settings.devices * settings.num_nodes
    if wanted != world_size():
        start = f"--nproc-per-node {settings.devices}"
        if settings.num_nodes > 1:
            start = f"--nnodes {settings.num_nodes} {start} --rdzv-backend c10d --rdzv-endpoint HOST:PORT"
        raise ConfigError(
            f"training.devices {settings.devices} times training.num_nodes {settings.num_nodes} must be the number of "
            f"processes, got {world_size()}. Start `hierderm train` by `torchrun {start} -m hierderm train ...`."
        )


def _strategy(settings: Gradient) -> str:
    """Lightning's name. What has no part in a step's loss, such as a head or a backbone's, is refused by plain DDP."""
    if settings.strategy == "auto" and world_size() > 1:
        heads = settings.loss.classification != "" or settings.init == "random"  # of the closed form, both always exist
        all_learn = settings.freeze == "frozen" and settings.loss.schedule == "joint" and heads
        return "ddp" if all_learn else "ddp_find_unused_parameters_true"
    return settings.strategy


def _averaging(decay: float) -> list[lightning.Callback]:
    return [EMAWeightAveraging(decay=decay)] if decay else []


@contextmanager
def _calm() -> Iterator[None]:
    """Lightning's greetings and tips off the terminal; its errors stay."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _ignore_known_warnings() -> None:
    """What Lightning warns of and we chose on purpose; any other warning is shown."""
    for message in (
        r".*does not have many workers.*",  # small images from memory: processes would cost more than they bring
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # between Lightning and torch
        r".*Checkpoint directory .* exists and is not empty.*",  # we resume
        r".*The number of training batches .* is smaller than the logging interval.*",
        r".*batch_sampler.*",
        r".*sync_dist=True.*",  # every process has all validation images
        r".*GPU available but not used.*",
    ):
        warnings.filterwarnings("ignore", message)
