from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from hierderm.config.methods import Gradient
from hierderm.config.settings import BackboneConfig
from hierderm.errors import MissingExtraError
from hierderm.model.backbone import load_backbone
from hierderm.training.gradient.freezing import apply_freezing, by_depth, merge_adapters

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


def test_blocks_nearer_to_the_input_learn_more_slowly(small_siglip: Path) -> None:
    """By hand: two blocks; what stands before them has the square of the decay times that, what follows 1."""
    backbone = load_backbone(BackboneConfig(f"hf:{small_siglip}"))
    apply_freezing(backbone, Gradient(init="random", freeze="full"))
    names = {id(weight): name for name, weight in backbone.named_parameters()}
    shares = {names[id(weight)]: share for share, group in by_depth(backbone, 0.5) for weight in group}
    assert len(shares) == len(names)
    found = {share: {name for name in shares if shares[name] == share} for share in set(shares.values())}
    assert set(found) == {1.0, 0.5, 0.25, 0.125}
    assert all("layers.1." in name for name in found[0.5]) and all("layers.0." in name for name in found[0.25])
    assert all("embeddings" in name for name in found[0.125])
    apply_freezing(backbone, Gradient(init="random", freeze="last_blocks", last_blocks=1))
    assert {share for share, _ in by_depth(backbone, 0.5)} == {1.0, 0.5}
    assert by_depth(backbone, 1.0)[0][0] == 1.0 and len(by_depth(backbone, 1.0)) == 1
    assert by_depth(backbone.requires_grad_(False), 1.0) == []
