"""The forward pass of frozen backbones: the same vectors by each engine, in order, and which engine computes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hierderm.config.settings import BackboneConfig
from hierderm.errors import MissingExtraError, ModelError
from hierderm.model import features, onnx
from hierderm.model.backbone import Backbone, load_backbone
from hierderm.model.features import _by_graph, _groups, image_features
from hierderm.model.loading import load

pytestmark = pytest.mark.together("exporter")


@pytest.fixture(scope="module")
def siglip(small_siglip: Path) -> Backbone:
    return load_backbone(BackboneConfig(f"hf:{small_siglip}", mirrors=True), "layers").eval()


@pytest.fixture(scope="module")
def graph(siglip: Backbone) -> onnx.OnnxGraph:
    return onnx.make_graph(siglip)


@pytest.fixture
def backbone(siglip: Backbone, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """One that chooses its engine for five images already."""
    monkeypatch.setattr(features, "FEWEST", 5)
    monkeypatch.setattr(features, "PAYS", 0.0)
    monkeypatch.setattr(features, "FIRST", 3)
    monkeypatch.setattr(siglip, "engine", "auto")
    onnx._graphs.clear()
    return siglip


def noise(number: int) -> Tensor:
    """The pixels of an image of its own."""
    return torch.randint(0, 256, (3, 32, 32), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)


def vectors(backbone: Backbone, n: int = 8, batch_size: int = 4) -> Tensor:
    return torch.cat([*image_features(backbone, range(n), noise, batch_size=batch_size, total=n)])


def by_hand(backbone: Backbone, n: int = 8) -> Tensor:
    with torch.inference_mode():
        found: Tensor = backbone(backbone.preprocessing.normalise(torch.stack([noise(number) for number in range(n)])))
        return found


def test_engines_agree(siglip: Backbone, graph: onnx.OnnxGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of all layers, the mean over mirror images and views; in order, and the last batch is smaller."""
    torch.manual_seed(0)
    pixels = {n: torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8) for n in range(7)}
    monkeypatch.setitem(onnx._graphs, siglip, (onnx._state(siglip), graph))
    by_engine = []
    for engine in ("torch", "onnx"):
        monkeypatch.setattr(siglip, "engine", engine)
        by_engine.append(torch.cat([*image_features(siglip, range(7), pixels.__getitem__, batch_size=2, total=7)]))
        assert [*image_features(siglip, [], pixels.__getitem__, batch_size=2)] == []
    with torch.inference_mode():
        expected = siglip(siglip.preprocessing.normalise(torch.stack(list(pixels.values()))))
    for found in by_engine:
        unit, wanted = (torch.nn.functional.normalize(values) for values in (found, expected))
        torch.testing.assert_close(unit, wanted, rtol=0, atol=1e-5)


def test_vectors_that_are_not_finite_are_refused(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "vectors", lambda images: torch.full((len(images), 3), float("nan")))
    with pytest.raises(
        ModelError, match="gives vectors that are not finite: its weights, configuration or preprocessing"
    ):
        vectors(backbone, n=2)


def test_many_images_are_computed_by_the_graph(
    graph: onnx.OnnxGraph, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onnx, "OnnxGraph", lambda _: graph)  # which is dear to make
    caplog.set_level(logging.INFO, "hierderm")
    forward = features._forward

    def slowly(*arguments: Any) -> Tensor:
        time.sleep(0.5)  # so that the graph is the faster
        return forward(*arguments)

    monkeypatch.setattr(features, "_forward", slowly)
    torch.testing.assert_close(vectors(backbone), by_hand(backbone), rtol=0, atol=1e-5)
    assert "ONNX Runtime computes the vectors; first images/s" in caplog.text
    assert onnx.known_graph(backbone) is onnx.make_graph(backbone) is graph
    parts = [*image_features(backbone, iter(range(9)), noise, batch_size=4)]
    torch.testing.assert_close(torch.cat(parts), by_hand(backbone, 9), rtol=0, atol=1e-5)
    assert max(map(len, parts)) <= 4
    vectors(backbone, 2)  # few, but the graph is there
    parameter = next(backbone.parameters())
    with torch.no_grad():
        parameter.add_(0.25)
        assert onnx.known_graph(backbone) is None
        torch.testing.assert_close(vectors(backbone, 4), by_hand(backbone, 4))
        parameter.sub_(0.25)


def test_few_images_stay_with_torch(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "make_graph", lambda _: pytest.fail("a graph was made"))
    vectors(backbone, 4)  # below FEWEST
    monkeypatch.setattr(features, "PAYS", 1e9)
    vectors(backbone)
    backbone.engine = "torch"
    monkeypatch.setattr(features, "PAYS", 0.0)
    torch.testing.assert_close(vectors(backbone), by_hand(backbone), rtol=0, atol=1e-5)


def test_a_graph_with_other_vectors_is_not_used(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong:
        require_equal = onnx.OnnxGraph.require_equal

        def __call__(self, pixels: Tensor) -> Tensor:
            with torch.inference_mode():
                found: Tensor = backbone(backbone.preprocessing.normalise(pixels)) * 1.01
                return found

    caplog.set_level(logging.INFO, "hierderm")
    monkeypatch.setattr(onnx, "make_graph", lambda _: Wrong())
    torch.testing.assert_close(vectors(backbone), by_hand(backbone), rtol=0, atol=1e-5)
    assert "torch computes the vectors; as a graph of ONNX Runtime its vectors differ from torch's by 1.0e-02" in (
        caplog.text
    )
    backbone.engine = "onnx"
    with pytest.raises(
        ModelError, match=r"engine = 'onnx' can't compute it: its vectors differ .* Use engine = 'torch'"
    ):
        vectors(backbone)


def test_a_backbone_that_has_no_graph(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no operator for it\nlong text")

    monkeypatch.setattr(onnx, "export_program", fail)
    torch.testing.assert_close(vectors(backbone), by_hand(backbone), rtol=0, atol=1e-5)
    backbone.engine = "onnx"
    with pytest.raises(ModelError, match=r"it can't be exported \(no operator for it\)\. Use engine = 'torch'"):
        vectors(backbone)


def test_without_the_extra(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hierderm")
    monkeypatch.setattr(onnx, "find_spec", lambda _: None)
    torch.testing.assert_close(vectors(backbone), by_hand(backbone), rtol=0, atol=1e-5)
    assert "ONNX Runtime may be several times as fast: pip install 'hierderm[onnx]'" in caplog.text
    backbone.engine = "onnx"
    with pytest.raises(MissingExtraError, match=r"engine = 'onnx' needs .*pip install 'hierderm\[onnx\]'"):
        vectors(backbone)


def test_order_and_progress_of_items_that_are_not_counted(
    backbone: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone.engine = "torch"
    found = [*image_features(backbone, iter(range(9)), noise, batch_size=4, progress=True)]
    torch.testing.assert_close(torch.cat(found), by_hand(backbone, 9), rtol=0, atol=1e-5)
    assert max(map(len, found)) <= 4 and "Encoding" in capsys.readouterr().err


def test_an_error_of_an_image_comes_out_and_stops(backbone: Backbone) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    def pixels(number: int) -> Tensor:
        if number == 6:
            raise ModelError("image 6 is damaged")
        return noise(number)

    with pytest.raises(ModelError, match="image 6 is damaged"):
        list(image_features(backbone, items(), pixels, batch_size=4))
    assert len(taken) < 20


def test_a_stop_waits_for_one_image_though_threads_take_several(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hierderm.model.features.n_threads", lambda: 1)
    begun: list[int] = []

    def pixels(number: int) -> Tensor:
        begun.append(number)
        time.sleep(0.05 * (number >= 8))
        return noise(number)

    backbone.engine = "torch"
    batches = image_features(backbone, iter(range(100)), pixels, batch_size=8)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert begun[:8] == list(range(8)) and len(begun) <= 8 + 4  # of 8 that the thread had taken


def test_threads_take_less_towards_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hierderm.model.features.n_threads", lambda: 2)
    sizes = [len(group) for group in _groups(iter(range(100)), 16, 100)]
    assert sizes == [12, 11, 9, 8, 7, 6, 5, 5, 4, 4, 3, 3, 2, 2, 2, 2] + [1] * 15
    uncounted = list(_groups(iter(range(40)), 16, None))
    assert [*chain(*uncounted)] == list(range(40)) and [len(group) for group in uncounted] == [16, 16, 8]


def test_beside_a_graph_the_caller_computes_alone(graph: onnx.OnnxGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of OpenMP that wait for the caller's next operation take a core from those that read."""
    joined, before = [], torch.get_num_threads()

    def cat(batch: list[Tensor]) -> Tensor:
        joined.append(torch.get_num_threads())
        return torch.stack([one[0] for one in batch])

    monkeypatch.setattr("hierderm.model.features.torch.cat", cat)
    torch.set_num_threads(2)
    try:
        for _ in zip(*(_by_graph(graph, iter(range(6)), noise, 2, 6) for _ in range(2)), strict=True):
            assert torch.get_num_threads() == 2  # what is done with the vectors is none of our business
        assert joined == [1] * 6
    finally:
        torch.set_num_threads(before)


def test_the_engine_is_a_setting_of_a_model(small_siglip: Path) -> None:
    name = f"hf:{small_siglip}"
    by_torch, by_graph = (load(name, engine=engine) for engine in ("torch", "onnx"))
    assert (by_torch.network.backbone.engine, by_graph.network.backbone.engine) == ("torch", "onnx")
    assert by_graph.provenance == by_torch.provenance
    assert load_backbone(BackboneConfig(name, engine="torch")).engine == "torch"
    with pytest.raises(ModelError, match=r"engine must be of \['auto', 'torch', 'onnx'\], got 'openvino'"):
        load(name, engine="openvino")  # type: ignore[arg-type]


def test_bf16_is_computed_by_torch(backbone: Backbone, small_siglip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"bf16": True})
    monkeypatch.setattr(onnx, "make_graph", lambda _: pytest.fail("a graph was made"))
    made = load_backbone(BackboneConfig(f"hf:{small_siglip}", precision="bf16", mirrors=True), "layers").eval()
    exact = by_hand(backbone)
    torch.testing.assert_close(vectors(made), exact, rtol=0, atol=float(0.03 * exact.abs().max()))
    made.engine = "onnx"
    with pytest.raises(ModelError, match=r"in float32; the model is on 'cpu', its precision is bf16: use 'torch'"):
        vectors(made)


def test_a_slow_first_pass_is_not_the_pace_of_torch(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are made in the first pass: a small backbone must not get a graph for it."""
    calls: list[int] = []

    def forward(_: Backbone, images: list[Tensor]) -> Tensor:
        calls.append(len(images))
        time.sleep(0.2 if len(calls) == 1 else 0.001)
        return torch.zeros(len(images), 2)

    monkeypatch.setattr(features, "_forward", forward)
    monkeypatch.setattr(features, "PAYS", 0.5)
    monkeypatch.setattr(onnx, "make_graph", lambda _: pytest.fail("a graph was made"))
    assert len(vectors(backbone)) == 8 and calls[:2] == [1, 2]
