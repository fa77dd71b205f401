from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, SiglipModel

from hierderm.config.settings import BackboneConfig, Config, ModelConfig
from hierderm.data.image_io import open_picture
from hierderm.data.table import CaseTable
from hierderm.errors import CheckpointError, SearchError
from hierderm.experiment.run import embed_run, train_run
from hierderm.model.backbone import load_backbone, load_vanilla, weights_hash
from hierderm.model.checkpoint import save_model
from hierderm.model.embed import embed_vanilla
from hierderm.model.encoder import load_encoder
from hierderm.model.network import Network


def test_a_picture_gives_what_its_table_gives(toy: CaseTable, small_siglip: Path) -> None:
    encoder = load_encoder(f"hf:{small_siglip}")
    few = toy.select(np.arange(3))
    embedded = embed_vanilla(load_vanilla(f"hf:{small_siglip}"), few)
    encoded = encoder.pictures([open_picture(path) for path in few.paths])
    np.testing.assert_allclose(encoded.embeddings, embedded.embeddings, atol=1e-5)
    assert encoded.probabilities is None and encoder.taxonomy is None
    for field in ("weights_hash", "preprocessing_hash"):
        assert getattr(encoder.provenance, field) == getattr(embedded.provenance, field) != ""


def test_a_trained_model(toy: CaseTable, toy_config: Config, tmp_path: Path) -> None:
    run = train_run(toy_config, toy, tmp_path)
    few = toy.select(np.arange(3))
    embedded = embed_run(run, few, name="x")
    encoder = load_encoder(str(tmp_path / "model"))
    encoded = encoder.pictures([open_picture(path) for path in few.paths])
    np.testing.assert_allclose(encoded.embeddings, embedded.embeddings, atol=1e-5)
    assert encoded.probabilities is not None and embedded.probabilities is not None
    np.testing.assert_allclose(encoded.probabilities, embedded.probabilities, atol=1e-5)
    assert encoder.provenance.weights_hash == embedded.provenance.weights_hash
    assert encoder.taxonomy == toy.taxonomy
    assert encoder.words(["red papule"]).shape == (1, 32)  # its neck started as the identity


def test_a_linear_neck_leaves_the_space_of_words(toy: CaseTable, small_siglip: Path, tmp_path: Path) -> None:
    backbone = load_vanilla(f"hf:{small_siglip}")
    save_model(Network(backbone, ModelConfig(neck="linear", embedding_dim=32), toy.taxonomy, 1), tmp_path / "model")
    with pytest.raises(
        SearchError, match="can't embed text: that takes a SigLIP of transformers.*model.neck 'identity' or 'residual'"
    ):
        load_encoder(str(tmp_path / "model")).words(["red papule"])


def test_text_lies_where_transformers_puts_it(small_siglip: Path) -> None:
    model, tokenizer = SiglipModel.from_pretrained(small_siglip).eval(), AutoTokenizer.from_pretrained(small_siglip)
    tokens = tokenizer(["red papule", "papule"], padding="max_length", max_length=16, return_tensors="pt")
    picture = Image.new("RGB", (40, 40), (200, 90, 80))
    encoder = load_encoder(f"hf:{small_siglip}")
    with torch.inference_mode():
        pixels = encoder.model.preprocessing(picture)[None]  # type: ignore[operator]
        outputs = model(pixel_values=pixels, input_ids=tokens["input_ids"])
    np.testing.assert_allclose(encoder.words(["red papule", "papule"]), outputs.text_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(encoder.pictures([picture]).embeddings, outputs.image_embeds.numpy(), atol=1e-5)


def test_backbones_without_text(tmp_path: Path, small_siglip: Path) -> None:
    import shutil

    folder = tmp_path / "gone"
    shutil.copytree(small_siglip, folder)
    encoder = load_encoder(f"hf:{folder}")
    shutil.rmtree(folder)  # and none where the folder has gone since
    assert encoder.text is None
    bare = tmp_path / "bare"
    shutil.copytree(small_siglip, bare)
    for path in bare.glob("tokenizer*"):
        path.unlink()
    assert load_encoder(f"hf:{bare}").text is None


def test_weights_have_a_name_of_their_own(small_siglip: Path) -> None:
    config = BackboneConfig(f"hf:{small_siglip}")
    one, same = load_backbone(config), load_backbone(config)
    assert weights_hash(one) == weights_hash(same)
    with torch.no_grad():
        next(same.parameters()).view(-1)[0] += 1e-3
    assert weights_hash(one) != weights_hash(same)


def test_unknown_models() -> None:
    with pytest.raises(CheckpointError, match="nowhere/model must be a hierderm model folder, it does not exist"):
        load_encoder("nowhere/model")
    with pytest.raises(CheckpointError, match="a backbone must be"):
        load_encoder("clip:vit")
