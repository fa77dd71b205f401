"""The hooks that Lightning calls for each batch, reduced to those that do something."""

from __future__ import annotations

import lightning

HOOKS_OF_A_BATCH = (
    "on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward",
    "on_before_optimizer_step", "configure_gradient_clipping", "on_train_batch_end",
)  # fmt: skip


def skip_empty_hooks(*parts: lightning.Callback | lightning.LightningModule) -> None:
    """Keep Lightning from calling the hooks of a batch that do nothing, which takes a twentieth of a small step.

    Lightning skips a hook that is None. We clip no gradients, so that hook is empty, too.
    """
    for part in parts:
        base = lightning.LightningModule if isinstance(part, lightning.LightningModule) else lightning.Callback
        for name in HOOKS_OF_A_BATCH:
            if hasattr(base, name) and getattr(type(part), name) is getattr(base, name):
                setattr(part, name, None)
