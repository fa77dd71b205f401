"""From a table to an index, by a named model, by any object with `encode`, and by embeddings that are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hierderm import columns as c
from hierderm.data.image_io import open_image
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import SearchError
from hierderm.search.building import describe_index, embed_for, validation_means
from hierderm.search.case_index import CaseIndex


class MeanColour:
    """A model of one line: any object with `encode` is one."""

    def encode(self, images: Sequence[Path]) -> np.ndarray:
        return np.stack([np.asarray(open_image(path), dtype=float).mean(axis=(0, 1)) + 1 for path in images])


@pytest.fixture(scope="module")
def index(toy: CaseTable, small_siglip: Path) -> CaseIndex:
    return CaseIndex.build(toy, f"hf:{small_siglip}", splits=("train", "validation"), k=5)


def test_any_object_with_encode_is_a_model(toy: CaseTable) -> None:
    index = CaseIndex.build(toy, MeanColour(), splits=("train", "validation"))
    assert index.vectors.shape == ((toy.splits != c.TEST).sum(), 3) and index.about.model == ""
    assert index.calibration is not None
    test = toy.part(c.TEST)
    new = embed_for(index, test, MeanColour())
    index.add(new)
    assert index.search(new.embeddings, k=1).to_pandas()["similarity"].min() == pytest.approx(1, abs=1e-6)
    with pytest.raises(SearchError, match="name a model that embeds the images"):
        embed_for(index, test)


def test_known_embeddings(toy: CaseTable, small_siglip: Path, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(toy), 4))
    np.save(tmp_path / "x.npy", vectors)
    by_file, by_array = (CaseIndex.build(toy, None, embeddings=given) for given in (tmp_path / "x.npy", vectors))
    np.testing.assert_array_equal(by_file.vectors, by_array.vectors)
    assert by_file.about.model == ""
    with pytest.raises(SearchError, match="must come from the model of the index .*its weights is unknown"):
        CaseIndex.build(toy, f"hf:{small_siglip}", embeddings=vectors)
    shuffled = EmbeddingTable(by_file.vectors, toy.frame.iloc[::-1])
    with pytest.raises(SearchError, match="must be those of the table's images, in its order"):
        CaseIndex.build(toy, None, embeddings=shuffled)
    with pytest.raises(SearchError, match="give their embeddings"):
        CaseIndex.build(toy, None)
    with pytest.raises(SearchError, match=r"splits must be of \['train', 'validation', 'test'\], got \['tset'\]"):
        CaseIndex.build(toy, None, embeddings=vectors, splits=["tset"])


def test_added_images_are_named_as_the_index_names_them(index: CaseIndex, toy: CaseTable, tmp_path: Path) -> None:
    test = toy.part(c.TEST)
    elsewhere = replace(
        test, root=tmp_path, frame=test.frame.assign(image_path=[str(path) for path in test.paths], split="validation")
    )
    new = embed_for(index, elsewhere)
    assert list(new.frame[c.IMAGE_PATH]) == list(test.frame[c.IMAGE_PATH])  # below the root of the index
    assert set(new.frame[c.SPLIT]) == {""}  # the index was calibrated on its own validation cases


def test_validation_cases_are_queried_without_themselves(index: CaseIndex) -> None:
    """The planted leak: with its own case in the gallery every validation image would find itself."""
    means = validation_means(index)
    assert len(means) == 2 and means[-1]["recall_at_1"] < 1
    calibration = index.calibration
    assert calibration is not None
    n_validation = index.frame.loc[index.frame[c.SPLIT] == c.VALIDATION, c.CASE_ID].nunique()
    assert calibration.rule.levels[0].n_queries == n_validation and calibration.k == 5


def test_without_validation_cases(toy: CaseTable, small_siglip: Path) -> None:
    index = CaseIndex.build(toy, f"hf:{small_siglip}", splits=("train",))
    assert index.calibration is None and validation_means(index) == []
    assert describe_index(index)[-1] == "answers are not calibrated: there are no validation cases in the index"
