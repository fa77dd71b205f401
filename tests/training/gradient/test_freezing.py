from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from hierderm.config.methods import Gradient
from hierderm.config.settings import BackboneConfig
from hierderm.errors import MissingExtraError
from hierderm.model.backbone import load_backbone
from hierderm.training.gradient.freezing import apply_freezing, merge_adapters

IMAGES = torch.randn(2, 3, 32, 32)


def learning(siglip: Path, **training: object) -> set[str]:
    backbone = load_backbone(BackboneConfig(f"hf:{siglip}"))
    apply_freezing(backbone, Gradient(**training))  # type: ignore[arg-type]
    return {name.removeprefix("encoder.") for name, weight in backbone.named_parameters() if weight.requires_grad}


def test_policies(small_siglip: Path) -> None:
    everything = learning(small_siglip, freeze="full")
    assert learning(small_siglip, freeze="frozen") == set()
    last = learning(small_siglip, freeze="last_blocks", last_blocks=1)
    assert all("layers.1." in name or name.startswith(("head", "post_layernorm")) for name in last)
    assert any("layers.1." in name for name in last) and any(name.startswith("head") for name in last)
    both = learning(small_siglip, freeze="last_blocks", last_blocks=99)
    assert last < both < everything
    assert {name.split(".")[0] for name in everything - both} == {"embeddings"}


def test_adapters_learn_and_merge_into_plain_weights(small_siglip: Path) -> None:
    backbone = load_backbone(BackboneConfig(f"hf:{small_siglip}"))
    names = set(backbone.state_dict())
    apply_freezing(backbone, Gradient(freeze="lora", lora_rank=2))
    adapters = [(name, weight) for name, weight in backbone.named_parameters() if weight.requires_grad]
    assert adapters and all("lora_" in name for name, _ in adapters)
    for _, weight in adapters:
        torch.nn.init.normal_(weight, std=0.1)
    with torch.no_grad():
        before = backbone(IMAGES)
        merge_adapters(backbone)
        torch.testing.assert_close(backbone(IMAGES), before, rtol=1e-4, atol=1e-5)
    assert set(backbone.state_dict()) == names


def test_without_peft_the_install_command_is_reported(small_siglip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hierderm\[lora\]'"):
        learning(small_siglip, freeze="lora")
