"""The Encoder compared with the same steps done by hand: preprocessing, backbone, heads, unit length."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize
from transformers import AutoTokenizer, SiglipModel

from hierderm import columns as c
from hierderm.artifacts import Card, read_header
from hierderm.config.settings import BackboneConfig
from hierderm.data.dataset import ImageDataset
from hierderm.data.image_io import ImageError, open_image
from hierderm.data.table import CaseTable
from hierderm.embeddings import Provenance, unit_length
from hierderm.errors import CheckpointError, EmbeddingError, ModelError, OutputError, TaxonomyError
from hierderm.evaluation.compression import principal_axes
from hierderm.model.backbone import load_backbone
from hierderm.model.checkpoint import save_model
from hierderm.model.encoder import Encoder
from hierderm.model.features import feature_batches
from hierderm.model.heads import NetworkShape
from hierderm.model.loading import load
from hierderm.model.network import Network
from hierderm.model.weights import weights_hash


def network(
    siglip: Path, toy: CaseTable, level: int = 1, neck: Any = "residual", classifier: Any = "cosine"
) -> Network:
    torch.manual_seed(0)
    backbone = load_backbone(BackboneConfig(f"hf:{siglip}"))
    made = Network(backbone, NetworkShape(neck, embedding_dim=24, classifier=classifier), toy.taxonomy, level)
    for parameter in made.neck.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


@pytest.fixture
def model(small_siglip: Path, toy: CaseTable, tmp_path: Path) -> Path:
    """The folder of a model that classifies conditions."""
    save_model(network(small_siglip, toy), tmp_path / "model", split_hash="abc", card=Card("# A model\n", b"png"))
    return tmp_path / "model"


@pytest.fixture
def encoder(model: Path) -> Encoder:
    return load(model)


# --- vectors -----------------------------------------------------------------------------------------------------


def test_a_backbone_by_hand(toy: CaseTable, small_siglip: Path) -> None:
    backbone = load_backbone(BackboneConfig(f"hf:{small_siglip}")).eval()
    with torch.inference_mode():
        pixels = torch.stack([backbone.preprocessing(open_image(path)) for path in toy.paths[:5]])
        expected = normalize(backbone(pixels), dim=1).numpy()
    encoder = load(f"hf:{small_siglip}")
    found = encoder.encode(toy.paths[:5], batch_size=2)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32 and (encoder.dim, encoder.taxonomy) == (32, None)
    assert encoder.provenance.weights_hash == weights_hash(backbone)
    assert encoder.provenance.preprocessing_hash == backbone.preprocessing.hash


def test_a_trained_model_by_hand(toy: CaseTable, small_siglip: Path, model: Path) -> None:
    by_hand = network(small_siglip, toy)
    with torch.inference_mode():
        pixels = torch.stack([by_hand.backbone.preprocessing(open_image(path)) for path in toy.paths[:5]])
        outputs = by_hand(pixels)
        expected = by_hand.probabilities(outputs.logits, 1)
    encoder = load(model)
    encoded = encoder.encode_all(toy.paths[:5], batch_size=2)
    np.testing.assert_allclose(encoded.embeddings, outputs.embedding.numpy(), atol=1e-5)
    assert encoded.probabilities is not None and encoder.taxonomy == toy.taxonomy
    np.testing.assert_allclose(encoded.probabilities, expected.numpy(), atol=1e-5)
    weights, preprocessing = read_header(model, "model").files["model.safetensors"], by_hand.backbone.preprocessing.hash
    assert encoder.provenance == Provenance(str(model), weights, preprocessing, toy.taxonomy.content_hash, "abc")


def test_every_kind_of_image(toy: CaseTable, encoder: Encoder) -> None:
    paths = toy.paths[:3]
    images = [open_image(path) for path in paths]
    arrays = [np.asarray(image) for image in images]
    expected = encoder.encode(paths)
    the_same: list[Any] = [
        [str(path) for path in paths],
        np.array([str(path) for path in paths]),
        images,
        arrays,
        np.stack(arrays),
        [paths[0], images[1], arrays[2]],
        (image for image in images),
        iter([str(paths[0]), arrays[1], images[2]]),
    ]
    for same in the_same:
        np.testing.assert_allclose(encoder.encode(same), expected, atol=1e-6)
    for one in (paths[0], str(paths[0]), images[0], arrays[0]):
        np.testing.assert_allclose(encoder.encode(one), expected[:1], atol=1e-6)
    grey = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)
    np.testing.assert_array_equal(encoder.encode(grey), encoder.encode(np.dstack([grey] * 3)))
    assert encoder.encode([]).shape == encoder.encode(iter([])).shape == (0, encoder.dim)


def test_a_pil_image_is_turned_as_its_file_is(encoder: Encoder, tmp_path: Path) -> None:
    pixels = np.zeros((20, 40, 3), dtype=np.uint8)
    pixels[:, :20] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    vectors = encoder.encode(tmp_path / "turned.png")
    np.testing.assert_array_equal(encoder.encode(Image.open(tmp_path / "turned.png")), vectors)
    assert np.abs(encoder.encode(pixels) - vectors).max() > 1e-4


def test_one_pil_image_may_occur_many_times(encoder: Encoder, toy: CaseTable) -> None:
    image = Image.open(toy.paths[0])  # not decoded yet: decoding is not safe for threads
    found = encoder.encode([image] * 20, batch_size=20)
    np.testing.assert_allclose(found, encoder.encode([toy.paths[0]] * 20), atol=1e-6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((8, 8, 3)),
            r"must be uint8 or uint16, of shape .*, got float64 \(8, 8, 3\)\. Scale colours to 0 to 255",
        ),
        (np.zeros((8, 8, 5), np.uint8), r"got uint8 \(8, 8, 5\)\. Scale colours to 0 to 255, channels last"),
        ([np.zeros((3, 8, 8), np.uint8)], r"got uint8 \(3, 8, 8\)\. .*channels last"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"got uint8 \(3, 8, 8\)"),
        (np.zeros((0, 8, 3), np.uint8), r"at least one pixel, got an array of shape \(0, 8, 3\)"),
        (7, "images must be paths, PIL images or arrays, one or several, got int"),
        ([None], "an image must be a path, a PIL image or an array, got NoneType"),
        (torch.zeros(2, 3, 8, 8), "an image must be a path, a PIL image or an array, got Tensor"),
        ("no/such.jpg", r"no/such\.jpg: the file does not exist"),
    ],
)
def test_what_is_no_image(encoder: Encoder, images: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        encoder.encode(images)


def test_an_iterator_is_read_two_batches_ahead(encoder: Encoder, toy: CaseTable) -> None:
    taken: list[Path] = []
    seen: list[int] = []
    hook = encoder.network.backbone.register_forward_pre_hook(lambda *_: seen.append(len(taken)))

    def endless() -> Iterator[Path]:
        for path in toy.paths[:7]:
            taken.append(path)
            yield path

    assert len(encoder.encode(endless(), batch_size=2)) == 7
    assert len(seen) == 4 and seen[0] <= 2 * 2 + 1
    hook.remove()
    with pytest.raises(ModelError, match="batch_size must be 1 or more, got 0"):
        encoder.encode(toy.paths[:2], batch_size=0)


def test_progress_is_shown_where_it_is_asked_for(
    encoder: Encoder, toy: CaseTable, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder.encode(toy.paths[:2])
    encoder.encode(toy.paths[:2], progress=False)
    assert capsys.readouterr().err == ""
    encoder.predict_proba(toy.paths[:2], progress=True)
    assert "Encoding" in (shown := capsys.readouterr().err) and "/2" in shown


# --- probabilities -----------------------------------------------------------------------------------------------


def test_probabilities_of_both_levels(encoder: Encoder, toy: CaseTable) -> None:
    fine, coarse = encoder.predict_proba(toy.paths[:4]), encoder.predict_proba(toy.paths[:4], level="coarse")
    assert list(fine.columns) == list(toy.taxonomy.names()) and list(coarse.columns) == list(toy.taxonomy.names(0))
    assert list(fine.index) == list(coarse.index) == [str(path) for path in toy.paths[:4]]
    np.testing.assert_allclose(fine.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(coarse, toy.taxonomy.sum_up(fine.to_numpy(dtype=np.float64), 0), atol=1e-5)
    np.testing.assert_allclose(encoder.predict_proba(toy.paths[:4], "category"), coarse)
    mixed = encoder.predict_proba([toy.paths[0], open_image(toy.paths[1])])
    assert list(mixed.index) == [0, 1]
    np.testing.assert_allclose(mixed, fine[:2], atol=1e-6)
    assert encoder.predict_proba([]).shape == (0, 9)
    assert encoder.predict_proba(open_image(toy.paths[0])).shape == (1, 9)


def test_probabilities_that_a_model_does_not_have(encoder: Encoder, toy: CaseTable, small_siglip: Path) -> None:
    with pytest.raises(ModelError, match="hierderm:tiny has no classes. Train a model with a classifier"):
        load("hierderm:tiny").predict_proba(toy.paths[0])
    no_classifier = Encoder(network(small_siglip, toy, classifier="none"), encoder.provenance)
    with pytest.raises(ModelError, match="has no classes"):
        no_classifier.predict_proba(toy.paths[0])
    flat = Encoder(network(small_siglip, toy, level=0), encoder.provenance)
    assert flat.predict_proba(toy.paths[:2], level="coarse").shape == (2, 3)
    assert flat.encode_all(toy.paths[:2]).probabilities is None
    with pytest.raises(ModelError, match=r"has probabilities of the level\(s\) 'category', got 'fine', which is finer"):
        flat.predict_proba(toy.paths[0])
    with pytest.raises(TaxonomyError, match="has the levels coarse, fine, category, condition, got 'species'"):
        encoder.predict_proba(toy.paths[0], level="species")


# --- tables ------------------------------------------------------------------------------------------------------


def test_a_table(encoder: Encoder, toy: CaseTable) -> None:
    few = toy.select(np.arange(5))
    table = encoder.embed(few, batch_size=2)
    one_pass = encoder.encode_all(few.paths)
    np.testing.assert_allclose(table.embeddings, one_pass.embeddings, atol=1e-5)
    assert table.probabilities is not None and one_pass.probabilities is not None
    np.testing.assert_allclose(table.probabilities, one_pass.probabilities, atol=1e-5)
    assert list(table.frame[c.IMAGE_ID]) == list(few.frame[c.IMAGE_ID]) and table.provenance == encoder.provenance


def test_cached_features_need_no_image(encoder: Encoder, toy: CaseTable, tmp_path: Path) -> None:
    few = toy.select(np.arange(5))
    backbone = encoder.network.backbone
    features = torch.cat([*feature_batches(backbone, ImageDataset(few.paths, backbone.preprocessing))]).numpy()
    moved = replace(few, root=tmp_path / "nowhere")
    np.testing.assert_allclose(
        encoder.embed(moved, features=features).embeddings, encoder.embed(few).embeddings, atol=1e-5
    )
    np.testing.assert_allclose(encoder.heads(features).embeddings, encoder.embed(few).embeddings, atol=1e-5)
    with pytest.raises(ImageError, match="the file does not exist"):
        encoder.embed(moved)
    with pytest.raises(ModelError, match=r"features must have shape \(n_images, 32\), .* got \(5, 31\)"):
        encoder.embed(few, features=features[:, :31])


def test_a_backbone_takes_a_table_of_any_tree_and_a_model_its_own(
    encoder: Encoder, toy: CaseTable, small_siglip: Path
) -> None:
    other = toy.with_taxonomy(toy.taxonomy.keep(toy.taxonomy.names()[:5]))
    embedded = load(f"hf:{small_siglip}").embed(other)
    assert embedded.provenance.taxonomy_hash == other.taxonomy.content_hash and embedded.probabilities is None
    with pytest.raises(CheckpointError, match=r"was trained on taxonomy synthetic .* but the data have synthetic"):
        encoder.embed(other)


# --- loading and saving ------------------------------------------------------------------------------------------


def test_saving_and_loading(encoder: Encoder, toy: CaseTable, tmp_path: Path) -> None:
    encoder.save(tmp_path / "copy")
    again = load(str(tmp_path / "copy"))
    np.testing.assert_array_equal(again.encode(toy.paths[:3]), encoder.encode(toy.paths[:3]))
    assert replace(again.provenance, model="") == replace(encoder.provenance, model="")
    assert (tmp_path / "copy" / "README.md").read_text() == "# A model\n"
    assert (tmp_path / "copy" / "results.png").read_bytes() == b"png"
    with pytest.raises(OutputError, match="copy"):
        encoder.save(tmp_path / "copy")
    encoder.save(str(tmp_path / "copy"), replace=True)


def test_a_backbone_is_saved_as_a_model(small_siglip: Path, toy: CaseTable, tmp_path: Path) -> None:
    encoder = load(f"hf:{small_siglip}")
    encoder.save(tmp_path / "plain")
    again = load(tmp_path / "plain")
    np.testing.assert_array_equal(again.encode(toy.paths[:3]), encoder.encode(toy.paths[:3]))
    assert again.taxonomy is None and again.text_tower is not None


def test_a_run_folder_holds_its_model(model: Path, toy: CaseTable) -> None:
    assert load(model.parent).provenance == load(model).provenance


def test_random_weights_are_the_same_each_time(toy: CaseTable) -> None:
    before = torch.get_rng_state()
    one, two = (load("hierderm:tiny@random").encode(toy.paths[:2]) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - load("hierderm:tiny").encode(toy.paths[:2])).max() > 1e-3


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        (
            lambda _: load("nowhere/model"),
            CheckpointError,
            "got 'nowhere/model': there is no such folder, and the hub can't be",
        ),
        (lambda _: load("clip:vit"), CheckpointError, "a backbone must be 'hierderm:tiny', .*, got 'clip:vit'"),
        (
            lambda model: load(f"{model}@random"),
            CheckpointError,
            "a model must be a model folder, a backbone .*, got '.*@random', which is none",
        ),
        (
            lambda model: load(model, device="tpu9"),
            ModelError,
            "device must be 'auto' or one that torch has, got 'tpu9'",
        ),
    ],
)
def test_refusals(model: Path, what: Callable[[Path], Encoder], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        what(model)


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"must be a hierderm model folder, it has no hierderm\.json"):
        load(tmp_path)


def test_a_truncated_model(encoder: Encoder, toy: CaseTable, tmp_path: Path) -> None:
    full = encoder.encode(toy.paths)
    axes = principal_axes(full, 8)
    small = encoder.truncated(full, 8)
    small.save(tmp_path / "small")
    again = load(tmp_path / "small")
    for model in (small, again):
        assert model.dim == 8
        np.testing.assert_allclose(model.encode(toy.paths), unit_length(full @ axes), atol=1e-5)
        np.testing.assert_allclose(model.predict_proba(toy.paths[:3]), encoder.predict_proba(toy.paths[:3]), atol=1e-6)
        assert model.text_tower is None
    assert encoder.dim == 32 and small.provenance.weights_hash != encoder.provenance.weights_hash
    with pytest.raises(ModelError, match="the model is truncated already"):
        again.truncated(full, 4)
    with pytest.raises(EmbeddingError, match=r"embeddings must have shape \(n_images, 32\), got \(104, 8\)"):
        encoder.truncated(full[:, :8], 4)


# --- text --------------------------------------------------------------------------------------------------------


def test_text_lies_where_transformers_puts_it(small_siglip: Path) -> None:
    siglip, tokenizer = SiglipModel.from_pretrained(small_siglip).eval(), AutoTokenizer.from_pretrained(small_siglip)
    tokens = tokenizer(["red papule", "papule"], padding="max_length", max_length=16, return_tensors="pt")
    image = Image.new("RGB", (40, 40), (200, 90, 80))
    encoder = load(f"hf:{small_siglip}")
    with torch.inference_mode():
        pixels = encoder.network.backbone.preprocessing(image)[None]
        outputs = siglip(pixel_values=pixels, input_ids=tokens["input_ids"])
    found = encoder.encode_text(["red papule", "papule"])
    np.testing.assert_allclose(found, outputs.text_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(encoder.encode(image), outputs.image_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_text("red papule"), found[:1], atol=1e-6)
    assert encoder.encode_text([]).shape == (0, 32)


@pytest.mark.parametrize(("neck", "has_text"), [("identity", True), ("residual", True), ("linear", False)])
def test_text_needs_the_space_of_the_backbone(
    toy: CaseTable, small_siglip: Path, encoder: Encoder, neck: str, has_text: bool
) -> None:
    trained = Encoder(network(small_siglip, toy, neck=neck), encoder.provenance)
    if has_text:
        assert trained.encode_text("red papule").shape == (1, 32)
    else:
        with pytest.raises(ModelError, match="can't embed text: that takes a SigLIP .*'identity' or 'residual'"):
            trained.encode_text("red papule")
    layers = Network(load_backbone(BackboneConfig(f"hf:{small_siglip}"), "layers"))
    assert Encoder(layers, encoder.provenance).text_tower is None


def test_backbones_without_text(tmp_path: Path, small_siglip: Path) -> None:
    folder = tmp_path / "gone"
    shutil.copytree(small_siglip, folder)
    encoder = load(f"hf:{folder}")
    shutil.rmtree(folder)  # and none where the folder has gone since
    assert encoder.text_tower is None
    bare = tmp_path / "bare"
    shutil.copytree(small_siglip, bare)
    for path in bare.glob("tokenizer*"):
        path.unlink()
    assert load(f"hf:{bare}").text_tower is None
