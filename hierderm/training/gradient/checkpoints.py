"""What a training leaves for its resumption: the last epoch and the best, and of both the one before."""

from __future__ import annotations

import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from hierderm.errors import CheckpointError
from hierderm.files import replacing, require_regular

NEEDED = {"epoch", "state_dict", "callbacks"}
logger = logging.getLogger(__name__)


class AtomicFiles(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, and keeps the one that it replaces."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        with replacing(path) as temporary:
            torch.save(checkpoint, temporary)
            if path.is_file():
                path.replace(_previous(path))

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        found: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return found


class BestEpoch(ModelCheckpoint):
    """Saves each epoch, and the best by the score that the module logs as 'monitor'."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder.resolve(),
            filename="best",
            monitor="monitor",
            mode="max",
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    on_train_batch_end = Callback.on_train_batch_end  # it saves after epochs alone

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As Lightning's, which forgets the best score where the folder was moved meanwhile."""
        best = str(Path(str(self.dirpath), "best.ckpt"))
        moved = {"dirpath": self.dirpath, "best_model_path": best, "kth_best_model_path": best}
        moved |= {"last_model_path": str(Path(str(self.dirpath), "last.ckpt"))}
        super().load_state_dict({**state_dict, **moved, "best_k_models": {best: state_dict["best_model_score"]}})


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a training in its folder."""

    folder: Path

    def resumed(self) -> Path | None:
        """The newest epoch that training can go on from, None to begin; what had to be left aside is logged.

        With it the best epoch so far must be there, or a later one that was better: training finds that again.
        """
        last, best = self.folder / "last.ckpt", self.folder / "best.ckpt"
        scores = [_score(state) for path in (best, _previous(best)) if (state := _read(path)) is not None]
        for path in (last, _previous(last)):
            state = _read(path)
            if state is not None and any(score >= _score(state) for score in scores):
                if path != last:
                    logger.warning(
                        "%s: last.ckpt or best.ckpt is missing or damaged, training goes on from the epoch before.",
                        self.folder,
                    )
                return path
        if any(self.folder.glob("*.ckpt")):
            logger.warning("%s holds no epoch with all that resuming needs: training begins anew.", self.folder)
        return None

    def best(self, score: float) -> dict[str, Any]:
        """The checkpoint of the epoch with this score; CheckpointError where it is missing or damaged."""
        best = self.folder / "best.ckpt"
        for path in (best, _previous(best)):
            state = _read(path)
            if state is not None and _score(state) == score:
                return state
        raise CheckpointError(f"{best} is missing or damaged. Give the command again: training goes on before it.")


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _read(path: Path) -> dict[str, Any] | None:
    """A checkpoint, None where it is missing or damaged; torch does not compare the checksums in the file."""
    try:
        require_regular(path)
        with zipfile.ZipFile(path) as content:
            whole = content.testzip() is None
        state = torch.load(path, map_location="cpu", weights_only=True) if whole else None
        if isinstance(state, dict) and set(state) >= NEEDED:
            _score(state)
            return state
    except FileNotFoundError:
        return None
    except Exception as fault:  # zipfile and torch raise errors of all kinds
        logger.debug("%s: %r", path, fault)
    logger.warning("%s is damaged and not used.", path)
    return None


def _score(state: dict[str, Any]) -> float:
    """The best score until a checkpoint was made."""
    own = next(value for name, value in state["callbacks"].items() if name.startswith(BestEpoch.__qualname__))
    return float(own["best_model_score"])
