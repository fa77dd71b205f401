"""Which weights of the backbone learn."""

from __future__ import annotations

import warnings

from torch import nn

from hierderm.config.methods import Gradient
from hierderm.errors import MissingExtraError
from hierderm.model.backbone import Backbone


def apply_freezing(backbone: Backbone, settings: Gradient) -> None:
    """Set `requires_grad` by `settings.freeze`; with "lora" put adapters into the attention of every block."""
    backbone.requires_grad_(settings.freeze == "full")
    if settings.freeze == "last_blocks":
        # Everything from the first of the last blocks on: what follows the blocks (norm, pooling) learns too.
        parameters = list(backbone.named_parameters())
        first = id(next(backbone.blocks[-min(settings.last_blocks, len(backbone.blocks))].parameters()))
        start = next(i for i, (_, parameter) in enumerate(parameters) if id(parameter) == first)
        for _, parameter in parameters[start:]:
            parameter.requires_grad_(True)
    elif settings.freeze == "lora":
        _add_adapters(backbone, settings.lora_rank)


def by_depth(backbone: Backbone, layer_decay: float) -> list[tuple[float, list[nn.Parameter]]]:
    """The weights that learn, in groups, each with its share of the learning rate.

    The share of what follows the last block is 1, and that of each block and of what stands before the blocks
    `layer_decay` times the next one's.
    """
    learning = {id(weight): weight for weight in backbone.parameters() if weight.requires_grad}
    if layer_decay == 1:
        return [(1.0, list(learning.values()))] if learning else []
    blocks = backbone.blocks
    place = {id(weight): number for number, block in enumerate(blocks) for weight in block.parameters()}
    depth, shares = -1, dict[float, list[nn.Parameter]]()
    for weight in backbone.parameters():  # in the order in which the encoder lists them, input side first
        depth = max(depth, place.get(id(weight), depth))
        behind = len(blocks) if depth == len(blocks) - 1 and id(weight) not in place else depth
        if id(weight) in learning:
            shares.setdefault(layer_decay ** (len(blocks) - behind), []).append(weight)
    return list(shares.items())


def _add_adapters(backbone: Backbone, rank: int) -> None:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise MissingExtraError("training.freeze = 'lora'", "lora") from None
    in_blocks = {id(module) for block in backbone.blocks for module in block.modules()}
    targets = [
        name
        for name, module in backbone.encoder.named_modules()
        if isinstance(module, nn.Linear) and id(module) in in_blocks and "attn" in name
    ]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*")  # between peft and transformers
        backbone.encoder = get_peft_model(backbone.encoder, config)


def merge_adapters(backbone: Backbone) -> None:
    """Fold adapters, where there are any, into the weights they adapt: the encoder is plain again."""
    merge = getattr(backbone.encoder, "merge_and_unload", None)
    if merge is not None:
        backbone.encoder = merge()
