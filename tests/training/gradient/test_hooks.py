from __future__ import annotations

from pathlib import Path

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hierderm.training.gradient.checkpoints import BestEpoch
from hierderm.training.gradient.hooks import HOOKS_OF_A_BATCH, skip_empty_hooks


class Counting(lightning.Callback):
    n_batches = 0

    def on_train_batch_end(self, *_: object) -> None:
        self.n_batches += 1


class Line(lightning.LightningModule):
    n_backward = 0

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Tensor, step: int) -> Tensor:
        return self.layer(batch).square().mean()  # type: ignore[no-any-return]

    def on_after_backward(self) -> None:
        self.n_backward += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def left(part: object) -> set[str]:
    return {name for name in HOOKS_OF_A_BATCH if getattr(part, name, None) is not None}


@pytest.mark.filterwarnings("ignore")  # Lightning's, which `run_training` knows
def test_only_hooks_that_do_something_are_left_and_called(tmp_path: Path) -> None:
    module, counting, best = Line(), Counting(), BestEpoch(tmp_path)
    skip_empty_hooks(module, counting, best)
    assert left(module) == {"on_after_backward"}
    assert left(counting) == {"on_train_batch_end"}
    assert left(best) == set()
    before = module.layer.weight.detach().clone()
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[counting], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(torch.ones(3, 1)))  # type: ignore[arg-type]
    assert module.n_backward == counting.n_batches == 3
    assert not torch.equal(module.layer.weight, before)
