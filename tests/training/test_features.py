from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hierderm import columns as c
from hierderm.config.methods import Augmentation
from hierderm.config.settings import BackboneConfig
from hierderm.data.dataset import ImageDataset, read_pixels
from hierderm.data.table import CaseTable
from hierderm.errors import CheckpointError
from hierderm.model.backbone import Backbone, load_backbone
from hierderm.model.checkpoint import save_model
from hierderm.model.features import feature_batches
from hierderm.model.loading import load
from hierderm.model.network import Network
from hierderm.training import shards
from hierderm.training.features import FeatureStore, unfinished
from hierderm.types import Vectors

AUGMENTATION = Augmentation()


@pytest.fixture
def backbone(small_siglip: Path) -> Backbone:
    return load_backbone(BackboneConfig(f"hf:{small_siglip}"), "layers")


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features")


def files(store: FeatureStore) -> list[str]:
    return sorted(path.name for path in store.folder.glob("*.npy"))


def computed(backbone: Backbone, paths: list[Path]) -> Vectors:
    return torch.cat([*feature_batches(backbone, ImageDataset(paths, backbone.preprocessing))]).numpy()


def test_views_are_made_once_and_differ(backbone: Backbone, toy: CaseTable, store: FeatureStore) -> None:
    first = store.for_training(backbone, toy, 2, AUGMENTATION)[0]
    assert len(first) == 3
    assert not np.allclose(first[0], first[1]) and not np.allclose(first[1], first[2])
    np.testing.assert_allclose(first[0], computed(backbone, toy.part(c.TRAIN).paths), atol=1e-5)
    validation = store.features(backbone, toy)[toy.splits == c.VALIDATION]
    np.testing.assert_allclose(validation, computed(backbone, toy.part(c.VALIDATION).paths), atol=1e-5)
    made = files(store)
    assert len(made) == 3
    np.testing.assert_array_equal(first, store.for_training(backbone, toy, 2, AUGMENTATION)[0])
    assert files(store) == made
    other = store.for_training(backbone, toy, 2, AUGMENTATION, seed=1)[0]
    np.testing.assert_array_equal(first[0], other[0])
    assert not np.allclose(first[1], other[1])
    darker = store.for_training(backbone, toy, 1, replace(AUGMENTATION, brightness=0.9))[0]
    assert not np.allclose(first[1], darker[1])


def test_divisions_of_a_table_share_their_views(
    backbone: Backbone, toy: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each adds the images that others have not trained on; the augmentation does not depend on who asks first."""
    other, asked = replace(toy, frame=toy.frame.replace({"split": {"train": "test", "test": "train"}})), []

    def counted(backbone: Backbone, images: ImageDataset, rows: list[int], epochs: tuple[int, ...]) -> Any:
        asked.append(len(rows))
        return feature_batches(backbone, images, rows, epochs)

    monkeypatch.setattr("hierderm.training.features.feature_batches", counted)
    shared, alone = FeatureStore(tmp_path / "shared"), FeatureStore(tmp_path / "alone")
    for division in (toy, other, toy):
        shared.for_training(backbone, division, 1, AUGMENTATION)
    assert sorted(asked) == sorted([len(toy), len(toy.part(c.TRAIN)), len(other.part(c.TRAIN))])
    expected = alone.for_training(backbone, other, 1, AUGMENTATION)[0][1]
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(shared.for_training(backbone, other, 1, AUGMENTATION)[0][1], expected, atol=1e-5)


def test_files_are_read_once_for_all_views_that_lack_them(
    backbone: Backbone, toy: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def counted(path: Path) -> Any:
        read.append(path)
        return read_pixels(path)

    monkeypatch.setattr("hierderm.data.dataset.read_pixels", counted)
    train, few = toy.part(c.TRAIN).paths, FeatureStore(tmp_path / "few")
    whole, _ = FeatureStore(tmp_path / "whole").for_training(backbone, toy, 3, AUGMENTATION)
    assert sorted(read) == sorted([*toy.paths, *train])
    few.for_training(backbone, toy, 1, AUGMENTATION)
    read.clear()
    found, _ = few.for_training(backbone, toy, 3, AUGMENTATION)
    assert sorted(read) == sorted(train)
    np.testing.assert_allclose(found, whole, atol=1e-5)


def test_views_that_were_stopped_apart_are_joined(
    backbone: Backbone, toy: CaseTable, store: FeatureStore, tmp_path: Path
) -> None:
    """After a kill between two files each may lack rows that the other has."""
    expected, _ = FeatureStore(tmp_path / "whole").for_training(backbone, toy, 2, AUGMENTATION)
    store.for_training(backbone, toy, 2, AUGMENTATION)
    lost = np.flatnonzero(toy.splits == c.TRAIN)[:5]
    for number, path in enumerate(sorted(store.folder.glob("*.npy"))):
        vectors = np.load(path)
        vectors[lost[number : number + 2]] = np.nan
        np.save(path, vectors)
    np.testing.assert_allclose(store.for_training(backbone, toy, 2, AUGMENTATION)[0], expected, atol=1e-5)


def test_the_output_is_taken_from_cached_layers(
    backbone: Backbone, small_siglip: Path, toy: CaseTable, store: FeatureStore
) -> None:
    plain = load_backbone(BackboneConfig(f"hf:{small_siglip}"))
    alone = FeatureStore(store.folder.with_name("alone"))
    layers = store.features(backbone, toy)
    output = store.features(plain, toy)
    assert output.shape == (len(toy), plain.dim) and len(files(store)) == 1
    np.testing.assert_array_equal(output, layers[:, : plain.dim])
    np.testing.assert_allclose(output, alone.features(plain, toy), atol=1e-5)
    whole = store.for_training(backbone, toy, 1, AUGMENTATION)[0][1]
    np.testing.assert_array_equal(store.for_training(plain, toy, 1, AUGMENTATION)[0][1], whole[:, : plain.dim])
    assert len(files(store)) == 2


def test_an_image_that_was_replaced_is_embedded_again(
    backbone: Backbone, toy: CaseTable, toy_folder: Path, tmp_path: Path, store: FeatureStore
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(toy_folder, mine)
    table = replace(toy, root=mine)
    first = store.features(backbone, table)
    shutil.copyfile(table.paths[1], table.paths[0])
    second = store.features(backbone, table)
    np.testing.assert_array_equal(second[0], second[1])
    np.testing.assert_array_equal(second[1:], first[1:])
    assert not np.allclose(second[0], first[0])
    os.utime(table.paths[0], (1, 1))  # the content counts, not the time
    np.testing.assert_array_equal(store.features(backbone, table), second)
    assert len(files(store)) == 2


def test_other_weights_have_other_features(small_siglip: Path, toy: CaseTable, store: FeatureStore) -> None:
    random = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        random.append(store.features(load_backbone(BackboneConfig(f"hf:{small_siglip}", "random")), toy))
    assert not np.allclose(random[0], random[1]) and len(files(store)) == 2


def test_a_stopped_command_goes_on_from_its_store(
    small_siglip: Path,
    toy: CaseTable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A damaged image stops it after the others before it; what else lies in the folder stays."""
    monkeypatch.setattr(shards, "SHARD_ROWS", 8)
    caplog.set_level(logging.INFO, "hierderm")
    encoder, place = load(f"hf:{small_siglip}"), tmp_path / "embeddings"

    def stopped(backbone: Backbone, images: ImageDataset, rows: list[int], epochs: tuple[int, ...]) -> Any:
        for number, batch in enumerate(feature_batches(backbone, images, rows, epochs, batch_size=8)):
            if number == 2:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), unfinished(place) as store:
        patch.setattr("hierderm.training.features.feature_batches", stopped)
        store.embed(encoder, toy)
    (store.folder / "mine.txt").write_text("mine")
    with unfinished(place) as again:
        found = again.embed(encoder, toy)
    assert f"{len(toy) - 16} of {len(toy)} images are left of a run that was stopped" in caplog.text
    np.testing.assert_allclose(found.embeddings, encoder.embed(toy).embeddings, atol=1e-6)
    assert [path.name for path in store.folder.iterdir()] == ["mine.txt"]
    with unfinished(tmp_path / "other") as store:
        store.embed(encoder, toy)
    assert not store.folder.exists()


def test_another_tree_is_refused_before_anything_is_read(small_siglip: Path, toy: CaseTable, tmp_path: Path) -> None:
    save_model(Network(load_backbone(BackboneConfig(f"hf:{small_siglip}")), taxonomy=toy.taxonomy), tmp_path / "model")
    other = replace(toy.with_taxonomy(toy.taxonomy.keep(toy.taxonomy.names()[:5])), root=tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="was trained on taxonomy"):
        FeatureStore(tmp_path / "store").embed(load(tmp_path / "model"), other)
