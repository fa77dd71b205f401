"""Models go to a hub and come back: over HTTP, to a server of this machine that answers as the hub does."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, constants

from hierderm.artifacts import Card
from hierderm.config.settings import BackboneConfig
from hierderm.data.seen import Seen
from hierderm.data.table import CaseTable
from hierderm.errors import CheckpointError, ModelError
from hierderm.evaluation.evaluation import Evaluation, Metric
from hierderm.model.backbone import load_backbone
from hierderm.model.checkpoint import save_model
from hierderm.model.encoder import Encoder
from hierderm.model.heads import NetworkShape
from hierderm.model.hub import is_hub_name
from hierderm.model.loading import load, model_folder
from hierderm.model.network import Network
from tests.model.fake_hub import FakeHub, fake_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with fake_hub(monkeypatch, tmp_path / "cache") as started:
        yield started


@pytest.fixture
def encoder(small_siglip: Path, toy: CaseTable, tmp_path: Path) -> Encoder:
    network = Network(
        load_backbone(BackboneConfig(f"hf:{small_siglip}")), NetworkShape(classifier="cosine"), toy.taxonomy, 1
    )
    save_model(network, tmp_path / "model", split_hash="abc", card=Card("# Mine\n\nA text.\n"), seen=Seen.of(toy))
    return load(tmp_path / "model")


def evaluation(value: float = 0.5) -> Evaluation:
    metric = Metric("fine", "map_at_r", value, 0.4, 0.6, 80)
    undefined = Metric("coarse", "map_at_r", float("nan"), float("nan"), float("nan"), 0)
    return Evaluation("mine", (metric, undefined), (), 80, 40, {})


def test_there_and_back(hub: FakeHub, encoder: Encoder, toy: CaseTable, monkeypatch: pytest.MonkeyPatch) -> None:
    address = encoder.push_to_hub("me/skin", token="hf_secret")
    assert address == f"{hub.endpoint}/me/skin/commit/{hub.commit('me/skin')}"
    assert hub.private == {"me/skin": "private"} and set(hub.tokens) == {"Bearer hf_secret"}
    files = {"hierderm.json", "model.safetensors", "taxonomy.csv", "README.md"}
    assert set(hub.repositories["me/skin"]) == files
    hub.repositories["me/skin"][".gitattributes"] = b"what the hub adds itself"
    hub.repositories["me/skin"]["README.md"] += b"edited on the hub"
    again = load("me/skin")
    np.testing.assert_array_equal(again.encode(toy.paths[:2]), encoder.encode(toy.paths[:2]))
    assert (again.name, again.taxonomy) == ("me/skin", toy.taxonomy)
    assert encoder.seen is not None and again.seen is None  # fingerprints of patients' images stay here
    assert again.provenance.weights_hash == encoder.provenance.weights_hash
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load("me/skin").provenance == again.provenance  # from the cache


def test_a_newer_commit_is_taken_whole(hub: FakeHub, encoder: Encoder, small_siglip: Path) -> None:
    encoder.push_to_hub("me/skin", private=False)
    assert hub.private == {"me/skin": "public"} and load("me/skin").taxonomy is not None
    load(f"hf:{small_siglip}").push_to_hub("me/skin")
    assert hub.private == {"me/skin": "public"}
    assert load("me/skin").taxonomy is None


def test_an_older_state_by_its_revision(hub: FakeHub, encoder: Encoder, small_siglip: Path) -> None:
    first = encoder.push_to_hub("me/skin").rpartition("/")[2]
    load(f"hf:{small_siglip}").push_to_hub("me/skin")
    hub.past["me/skin", "v1.0"] = hub.past["me/skin", first]
    assert load("me/skin").taxonomy is None
    old = load("me/skin", revision="v1.0")
    assert old.provenance.weights_hash == encoder.provenance.weights_hash and old.name == "me/skin@v1.0"
    assert load(old.name).provenance == old.provenance  # so an index finds its model again
    assert load("me/skin", revision=first).taxonomy == encoder.taxonomy
    with pytest.raises(CheckpointError, match="the hub does not give or take 'me/skin@v2' .*Revision Not Found"):
        load("me/skin", revision="v2")
    for name in ("hierderm:tiny", "me/skin@v1.0", "model.onnx"):
        with pytest.raises(ModelError, match=rf"revision must be .* of a repository .*, got 'v1.0' of '{name}'"):
            load(name, revision="v1.0")
    hub.repositories["google/some"] = {"config.json": b"{}"}
    hub.past["google/some", "v1"] = {}
    with pytest.raises(ModelError, match="google/some@v1 holds no model of hierderm"):
        load("google/some", revision="v1")


@pytest.mark.usefixtures("drawn")
def test_the_card_says_what_the_hub_shows(hub: FakeHub, encoder: Encoder, toy: CaseTable) -> None:
    encoder.push_to_hub("me/skin", evaluation=evaluation(), data="My data")
    text = hub.repositories["me/skin"]["README.md"].decode()
    assert text.endswith("# Mine\n\n![Results](results.png)\n\nA text.\n")
    assert hub.repositories["me/skin"]["results.png"].startswith(b"\x89PNG")
    found: dict[str, Any] = yaml.safe_load(text.split("---")[1])
    tree = toy.taxonomy
    assert found["taxonomy"] == {"id": tree.id, "version": tree.version, "hash": tree.content_hash}
    assert (found["library_name"], found["pipeline_tag"]) == ("hierderm", "image-feature-extraction")
    [entry] = found["model-index"]
    assert entry["name"] == "skin"
    assert entry["results"] == [
        {
            "task": {"type": "image-feature-extraction"},
            "dataset": {"type": "my-data", "name": "My data", "split": "test"},
            "metrics": [
                {
                    "type": "map_at_r", "value": 0.5, "name": "fine MAP@R",
                    "args": {"level": "fine", "low": 0.4, "high": 0.6, "n": 80},
                }
            ],
        }
    ]  # fmt: skip
    before = hub.repositories["me/skin"]["results.png"]
    load("me/skin").push_to_hub("me/skin", evaluation=evaluation(0.7))  # of the same data: it takes the place
    assert hub.repositories["me/skin"]["results.png"] != before
    assert hub.repositories["me/skin"]["README.md"].count(b"results.png") == 1
    load("me/skin").push_to_hub("me/copy")
    assert hub.repositories["me/copy"]["results.png"] == hub.repositories["me/skin"]["results.png"]
    card: Any = ModelCard(hub.repositories["me/skin"]["README.md"].decode())
    assert [(one.dataset_name, one.metric_value) for one in card.data.eval_results] == [("My data", 0.7)]
    with pytest.raises(ModelError, match="name the data set that the evaluation is of"):
        encoder.push_to_hub("me/skin", evaluation=evaluation())


def test_a_repository_without_our_header_is_a_backbone(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["google/some"] = {"config.json": b"{}"}
    assert model_folder("google/some") is None
    asked: list[str] = []

    def ask(config: BackboneConfig) -> Any:
        asked.append(config.name)
        raise CheckpointError("enough")

    monkeypatch.setattr("hierderm.model.forward.load_backbone", ask)
    with pytest.raises(CheckpointError, match="enough"):
        load("google/some")
    assert asked == ["hf:google/some"]


def test_refusals(hub: FakeHub, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="the hub does not give or take 'me/none' .*Repository Not Found"):
        load("me/none")
    with pytest.raises(ModelError, match="does not give or take 'forbidden/x' .*no rights in this namespace.*HF_TOKEN"):
        encoder.push_to_hub("forbidden/x")
    hub.repositories["me/half"] = {"hierderm.json": b"{}"}
    with pytest.raises(CheckpointError, match="must be the header of a folder that hierderm wrote"):
        load("me/half")
    with pytest.raises(ModelError, match="a repository must be named 'user/name', got 'skin@v1'"):
        encoder.push_to_hub("skin@v1")
    encoder.push_to_hub("me/damaged")
    hub.repositories["me/damaged"]["model.safetensors"] = b"other"
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged: its checksum differs"):
        load("me/damaged")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="got 'me/other': there is no such folder, and the hub can't be reached"):
        load("me/other")
    with pytest.raises(ModelError, match=r"the hub can't be reached at .* \(HF_HUB_OFFLINE is set\)"):
        encoder.push_to_hub("me/other")


def test_a_hub_that_does_not_answer(hub: FakeHub, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is tried again and again: what is in the cache is taken, the rest is refused at once."""
    encoder.push_to_hub("me/skin")
    before = load("me/skin").provenance
    monkeypatch.setattr("hierderm.model.hub.SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert load("me/skin").provenance == before
        with pytest.raises(CheckpointError, match="got 'me/other@v1': there is no such folder, and the hub can't be"):
            load("me/other@v1")
        with pytest.raises(ModelError, match=r"the hub can't be reached at http://127.0.0.1:\d+ \(.*\)\. Nothing was"):
            encoder.push_to_hub("me/skin")
        assert time.monotonic() - start < 10


def test_which_names_are_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    names = ["me/skin", "me/skin-2.v1_x", "me/skin@v1.0", "me/skin@refs/pr/1"]
    others = [
        "me/skin@",
        "a@b/c",
        "me/skin@x.safetensors",
        "skin",
        "a/b/c",
        "hf:me/skin",
        "../model",
        "./model",
        "/model",
        "runs/mine",
        "x/y.npy",
        "x/y.onnx",
        "~/x",
    ]
    assert [name for name in [*names, *others] if is_hub_name(name)] == names
