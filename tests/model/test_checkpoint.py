from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hierderm.artifacts import HEADER, Card
from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.errors import CheckpointError, OutputError
from hierderm.files import file_hash
from hierderm.model.backbone import load_backbone
from hierderm.model.checkpoint import load_model, save_model, tree_of_folder
from hierderm.model.heads import NetworkShape
from hierderm.model.network import Network


@pytest.fixture
def saved(small_siglip: Path, toy: CaseTable, tmp_path: Path) -> Path:
    backbone = load_backbone(BackboneConfig(f"hf:{small_siglip}"))
    save_model(
        Network(backbone, NetworkShape("residual", projection_dim=8, classifier="cosine"), toy.taxonomy, 1),
        tmp_path / "m",
        split_hash="abc",
    )
    return tmp_path / "m"


def test_a_saved_model_gives_the_same_outputs(saved: Path, toy: CaseTable) -> None:
    first, second = load_model(saved).network, load_model(saved).network
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for one, other in zip(first(images), second(images), strict=True):
            torch.testing.assert_close(one, other)
    assert not list(saved.glob("*.ckpt")) and not list(saved.glob("*.pt"))


def test_another_taxonomy_is_refused(saved: Path, toy: CaseTable) -> None:
    other = toy.taxonomy.keep(toy.taxonomy.names()[:5])
    with pytest.raises(CheckpointError, match=r"was trained on taxonomy synthetic .* but the data have synthetic"):
        tree_of_folder(saved, other)
    assert tree_of_folder(saved, toy.taxonomy) == toy.taxonomy


def test_changed_preprocessing_is_refused(saved: Path) -> None:
    header = json.loads((saved / HEADER).read_text())
    header["content"]["preprocessing"]["mean"] = [0.1, 0.1, 0.1]
    (saved / HEADER).write_text(json.dumps(header))
    with pytest.raises(CheckpointError, match="the preprocessing was changed after the model was saved"):
        load_model(saved)


def test_damage_is_named(saved: Path) -> None:
    tree = (saved / "taxonomy.csv").read_text()
    (saved / "taxonomy.csv").write_text(tree.replace("type 1", "type one"))
    with pytest.raises(CheckpointError, match=r"taxonomy\.csv was changed"):
        tree_of_folder(saved)
    with pytest.raises(CheckpointError, match=r"taxonomy\.csv is damaged: its checksum differs"):
        load_model(saved)
    (saved / "taxonomy.csv").write_text(tree)
    (saved / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_model(saved)
    (saved / HEADER).write_text("{")
    with pytest.raises(CheckpointError, match=r"hierderm\.json is damaged"):
        load_model(saved)
    (saved / HEADER).write_text('{"format": "hierderm model", "version": 99, "files": {}, "content": {}}')
    with pytest.raises(CheckpointError, match="has format version 99"):
        load_model(saved)
    with pytest.raises(CheckpointError, match=r"must be a hierderm model folder, it has no hierderm\.json"):
        load_model(saved.parent)


def test_what_makes_no_sense_is_refused_although_its_hash_fits(saved: Path) -> None:
    header = json.loads((saved / HEADER).read_text())

    def write(files: dict[str, str], **content: object) -> None:
        (saved / HEADER).write_text(
            json.dumps({**header, "files": {**header["files"], **files}, "content": {**header["content"], **content}})
        )

    weights = load_file(saved / "model.safetensors")
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name].view(-1)[0] = torch.nan
    save_file(weights, saved / "model.safetensors")
    write({"model.safetensors": file_hash(saved / "model.safetensors")})
    with pytest.raises(CheckpointError, match=r"must hold finite weights, these are not: "):
        load_model(saved)
    write({}, classified_level=True, split_hash=3)
    with pytest.raises(
        CheckpointError, match=r"json is damaged: 'classified_level' must be .*True; 'split_hash' must be"
    ):
        tree_of_folder(saved)
    (saved / HEADER).write_text(json.dumps({**header, "files": {}}))
    with pytest.raises(CheckpointError, match=r"json is damaged: 'files' has no hash of taxonomy\.csv"):
        load_model(saved)


def test_a_model_is_kept_unless_asked_and_its_card_may_be_edited(saved: Path, toy: CaseTable) -> None:
    network = load_model(saved).network
    with pytest.raises(OutputError, match="holds a hierderm model folder"):
        save_model(network, saved)
    save_model(network, saved, card=Card("# Card"), replace=True)
    assert (saved / "README.md").read_text() == "# Card"
    (saved / "README.md").write_text("# Edited")
    load_model(saved)
    assert {path.stat().st_mode & 0o777 for path in saved.iterdir()} == {(saved / HEADER).stat().st_mode & 0o777}
