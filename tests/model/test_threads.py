"""Threads that share one model: each gets its own answer, the one it would get alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hierderm.config.methods import Gradient
from hierderm.config.settings import BackboneConfig
from hierderm.embeddings import Provenance
from hierderm.model.backbone import Backbone, Features, load_backbone
from hierderm.model.encoder import Encoder
from hierderm.model.loading import load
from hierderm.model.network import Network
from hierderm.model.text import TextTower, load_text_tower
from hierderm.training.gradient.freezing import apply_freezing, merge_adapters

THREADS = 6


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """`work(0)` to `work(5)`, all begun at the same moment."""
    ready = Barrier(THREADS)

    def one(number: int) -> Any:
        ready.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, range(THREADS)))


def noise(number: int, side: int = 40) -> Image.Image:
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))


def assert_own(found: Sequence[Any], alone: Sequence[Any]) -> None:
    """Each result is that of its own input, not just one of the right shape."""
    for number, (one, expected) in enumerate(zip(found, alone, strict=True)):
        np.testing.assert_allclose(one, expected, atol=1e-5)
        assert all(np.abs(one - other).max() > 1e-4 for n, other in enumerate(alone) if n != number)


@pytest.mark.parametrize("features", ["output", "layers"])
@pytest.mark.parametrize("name", ["hierderm:tiny", "timm:test_vit", "timm:test_convnext"])
def test_each_thread_gets_its_own_vectors(name: str, features: Features) -> None:
    torch.manual_seed(0)
    weights = "pretrained" if name == "hierderm:tiny" else "random"
    encoder = Encoder(Network(load_backbone(BackboneConfig(name, weights), features)), Provenance(name))
    alone = [encoder.encode(noise(number)) for number in range(THREADS)]
    for _ in range(2):
        assert_own(at_once(lambda number: encoder.encode(noise(number))), alone)


def test_the_text_tower_is_loaded_once_and_shared(small_siglip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def counted(name: str, dim: int) -> TextTower | None:
        loaded.append(name)
        return load_text_tower(name, dim)

    monkeypatch.setattr("hierderm.model.text.load_text_tower", counted)
    texts = [["red papule"] * (number + 1) for number in range(THREADS)]
    alone = [load(f"hf:{small_siglip}").encode_text(text) for text in texts]
    loaded.clear()
    encoder = load(f"hf:{small_siglip}")
    for found, expected in zip(at_once(lambda number: encoder.encode_text(texts[number])), alone, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(loaded) == 1


def test_models_load_at_once(small_siglip: Path) -> None:
    expected = load(f"hf:{small_siglip}").encode(noise(0))
    found = at_once(lambda _: load(f"hf:{small_siglip}").encode(noise(0)))
    assert all(np.allclose(one, expected, atol=1e-5) for one in found)


@pytest.fixture
def layered(small_siglip: Path) -> Backbone:
    return load_backbone(BackboneConfig(f"hf:{small_siglip}"), "layers")


def test_layers_are_collected_through_adapters(layered: Backbone) -> None:
    """LoRA replaces the encoder by a wrapper and, merged, by a plain one again; untrained, it changes no value."""
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = layered(images)
        apply_freezing(layered, Gradient(freeze="lora"))
        torch.testing.assert_close(layered.eval()(images), expected)
        merge_adapters(layered)
        torch.testing.assert_close(layered(images), expected, atol=1e-5, rtol=1e-4)


def test_a_copy_collects_its_own_layers(layered: Backbone) -> None:
    images = torch.randn(2, 3, 32, 32)
    twin = copy.deepcopy(layered)
    with torch.no_grad():
        expected = layered(images)
        torch.testing.assert_close(twin(images), expected)
        for parameter in twin.parameters():
            parameter.zero_()
        torch.testing.assert_close(layered(images), expected)
        assert not torch.allclose(twin(images), expected)
