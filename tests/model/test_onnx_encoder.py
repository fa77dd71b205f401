"""A model in an ONNX file gives what torch gives, and needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx as onnx_files
import pytest
import torch

from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.errors import CheckpointError, MissingExtraError, ModelError, OutputError
from hierderm.model import onnx, onnx_export
from hierderm.model.backbone import load_backbone
from hierderm.model.checkpoint import save_model
from hierderm.model.encoder import Encoder
from hierderm.model.heads import Discriminants, NetworkShape
from hierderm.model.loading import load, tree_of_model
from hierderm.model.network import Network
from hierderm.search.case_index import CaseIndex
from hierderm.search.finder import CaseFinder
from hierderm.taxonomy.tree import taxonomy_from_paths
from tests.cli.commands import fails, run

pytestmark = pytest.mark.together("exporter")
WITHOUT_TORCH = """
import json, sys
import numpy as np
import hierderm
model = hierderm.load(sys.argv[1])
vectors = model.encode(sys.argv[2:])
probabilities = model.predict_proba(sys.argv[2:], "coarse")
heavy = [name for name in ("torch", "torchvision", "transformers", "timm") if name in sys.modules]
print(json.dumps([heavy, vectors.tolist(), probabilities.to_numpy().tolist(), list(probabilities.columns)]))
"""


def tree_lda(siglip: Path, toy: CaseTable) -> Network:
    """Discriminants of the features of all layers, node probabilities in the embedding, a condition without images.

    The mean over mirror images is in the graph: other programs shall compute it, too.
    """
    backbone = load_backbone(BackboneConfig(f"hf:{siglip}", mirrors=True), "layers")
    rng, n_fine = np.random.default_rng(0), toy.taxonomy.size(-1)
    members = np.concatenate([toy.taxonomy.membership(level) for level in (0, 1)], axis=1)
    bias = np.where(np.arange(n_fine) == 4, -np.inf, rng.normal(size=n_fine))
    weight, condition_weight = rng.normal(size=(6, backbone.dim)), rng.normal(size=(n_fine, backbone.dim))
    found = Discriminants(weight, rng.normal(size=6), condition_weight, bias, members, (0, 1), 0.3, 0.7)
    return Network.from_discriminants(backbone, found, toy.taxonomy)


def gradient(siglip: Path, toy: CaseTable) -> Network:
    backbone = load_backbone(BackboneConfig("timm:test_efficientnet", "random"), "layers")
    shape = NetworkShape("standardised", 12, 16, "cosine", probability_levels=(0,))
    network = Network(backbone, shape, toy.taxonomy, 1)
    assert network.node_probabilities is not None
    network.node_probabilities.share.fill_(0.4)
    network.scale.fill_(1.7)
    return network


@pytest.fixture(scope="module", params=[None, tree_lda, gradient], ids=["vanilla", "tree_lda", "gradient"])
def pair(
    request: pytest.FixtureRequest, small_siglip: Path, toy: CaseTable, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Encoder, Path]:
    """A model and its file."""
    if request.param is None:
        folder = request.getfixturevalue("exported_siglip")
    else:
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp(request.param.__name__)
        save_model(request.param(small_siglip, toy), folder / "model", split_hash="abc")
        shown = run("export", folder / "model", "-o", folder / "model.onnx")
        assert "MB; its outputs differ from torch's by" in shown
    return load(folder / "model"), folder / "model.onnx"


def test_the_same_without_torch(pair: tuple[Encoder, Path], toy: CaseTable) -> None:
    model, path = pair
    by_graph, few = load(path), toy.select(np.arange(len(toy)) < 5)
    found = by_graph.embed(few)
    expected = model.embed(few)
    np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=1e-4)
    assert found.embeddings.dtype == np.float32 and by_graph.dim == model.dim
    assert (by_graph.taxonomy, by_graph.name) == (model.taxonomy, str(path))
    assert (found.probabilities is None) == (expected.probabilities is None)
    own, other = found.provenance, expected.provenance
    assert (own.weights_hash, own.preprocessing_hash, own.split_hash) == (
        other.weights_hash, other.preprocessing_hash, other.split_hash,
    )  # fmt: skip
    if expected.probabilities is not None and found.probabilities is not None:
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
        coarse = by_graph.predict_proba(few.paths, "category")
        np.testing.assert_allclose(coarse, model.predict_proba(few.paths, "category"), atol=1e-4)
        assert list(coarse.index) == [str(image) for image in few.paths]
    assert by_graph.encode([]).shape == (0, model.dim)


def test_torch_is_not_imported(pair: tuple[Encoder, Path], toy: CaseTable) -> None:
    model, path = pair
    if model.network.shape.neck != "discriminants":  # one is enough
        return
    arguments = [sys.executable, "-c", WITHOUT_TORCH, str(path), *map(str, toy.paths[:3])]
    run = subprocess.run(arguments, capture_output=True, text=True, check=True)
    heavy, vectors, probabilities, columns = json.loads(run.stdout)
    assert heavy == [] and columns == list(toy.taxonomy.names(0))
    np.testing.assert_allclose(vectors, model.encode(toy.paths[:3]), atol=1e-4)
    np.testing.assert_allclose(probabilities, model.predict_proba(toy.paths[:3], "coarse"), atol=1e-4)


def test_the_file_describes_itself(pair: tuple[Encoder, Path]) -> None:
    model, path = pair
    graph = onnx_files.load(path)
    content = json.loads({entry.key: entry.value for entry in graph.metadata_props}["hierderm"])
    pixels = model.network.backbone.preprocessing
    assert content["preprocessing"]["size"] == pixels.size and content["dim"] == model.dim
    assert content["provenance"]["model"] == "model" and str(path.parent) not in json.dumps(content)
    assert f"uint8, shape (n, 3, {pixels.size}, {pixels.size})" in content["input"]
    assert content["taxonomy"].startswith("# id: ") == (model.taxonomy is not None)
    outputs = [output.name for output in graph.graph.output]
    assert outputs == ["image_embedding", "class_probabilities"][: 2 if model.taxonomy else 1]


def test_what_a_graph_can_not_do(pair: tuple[Encoder, Path], toy: CaseTable, tmp_path: Path) -> None:
    by_graph = load(pair[1])
    for work in (lambda: by_graph.save(tmp_path / "x"), lambda: by_graph.heads(np.zeros((1, 4), np.float32))):
        with pytest.raises(ModelError, match="is a graph without weights that could change. Load the model's folder"):
            work()
    with pytest.raises(ModelError, match="can't embed text"):
        by_graph.encode_text("red")
    if by_graph.taxonomy is None:
        assert tree_of_model(str(pair[1])) is None
        with pytest.raises(ModelError, match="has no classes"):
            by_graph.predict_proba(toy.paths[0])
    else:
        assert tree_of_model(str(pair[1]), toy.taxonomy) == toy.taxonomy
        other = taxonomy_from_paths([("a", "b")], ("category", "condition"), id="t")
        with pytest.raises(CheckpointError, match="was trained on taxonomy"):
            tree_of_model(str(pair[1]), other)


def test_an_index_of_the_model_is_searched_with_its_file(pair: tuple[Encoder, Path], toy: CaseTable) -> None:
    model, path = pair
    index = CaseIndex.build(toy, model)
    hits = [CaseFinder(index, given).search(toy.paths[0]).hits for given in (model, path)]
    assert [hit.case_id for hit in hits[0]] == [hit.case_id for hit in hits[1]]


def test_files_that_are_none(pair: tuple[Encoder, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, path = pair
    with pytest.raises(OutputError, match="exists and would be overwritten"):
        model.export(path)
    assert "must end in .onnx" in fails("export", "hierderm:tiny", "-o", tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="No such file or directory"):
        load(tmp_path / "none.onnx")
    (tmp_path / "half.onnx").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="half.onnx is not a whole ONNX file"):
        load(tmp_path / "half.onnx")
    graph = onnx_files.load(path)
    [entry] = [entry for entry in graph.metadata_props if entry.key == "hierderm"]
    entry.value = entry.value.replace('"version": 1', '"version": 7')
    onnx_files.save(graph, tmp_path / "new.onnx")
    with pytest.raises(CheckpointError, match="has version 7, 1 is read. Export it again"):
        load(tmp_path / "new.onnx")
    entry.value = '{"version": 1}'
    onnx_files.save(graph, tmp_path / "damaged.onnx")
    with pytest.raises(CheckpointError, match="the metadata of .*damaged.onnx is damaged: 'provenance' is missing"):
        load(tmp_path / "damaged.onnx")
    entry.key = "another"
    onnx_files.save(graph, tmp_path / "foreign.onnx")
    with pytest.raises(CheckpointError, match="must be a file that `hierderm export` wrote"):
        load(tmp_path / "foreign.onnx")
    monkeypatch.setattr(onnx, "installed", lambda: False)
    with pytest.raises(MissingExtraError, match=r"pip install 'hierderm\[onnx\]'"):
        model.export(tmp_path / "x.onnx")


def test_a_model_in_bf16_is_refused(small_siglip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"bf16": True})
    network = Network(load_backbone(BackboneConfig(f"hf:{small_siglip}", precision="bf16")))
    save_model(network, tmp_path / "model")
    with pytest.raises(ModelError, match=r"model computes in bfloat16, which .* --backbone\.precision 32 to export"):
        load(tmp_path / "model").export(tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_graph_that_differs_is_refused(pair: tuple[Encoder, Path]) -> None:
    """The check of the export, with outputs of torch that are not those of the file."""
    model, path = pair
    outputs = onnx_export._Outputs(model.network)
    wrong = onnx.FromPixels(outputs, replace(model.network.backbone.preprocessing, mean=(0.1, 0.2, 0.9)))
    with pytest.raises(ModelError, match="the graph's outputs differ from torch's by"):
        onnx_export._difference(wrong, path, model.network.backbone.preprocessing.size)
