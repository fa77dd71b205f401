"""From a table to an index, by a named model, by any object with `encode`, and by embeddings that are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierderm import columns as c
from hierderm.data.image_io import open_image
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import SearchError
from hierderm.search.building import calibrate_on_validation, describe_index, embed_for, validation_means
from hierderm.search.case_index import CaseIndex
from hierderm.search.finder import CaseFinder
from hierderm.search.memory import MemoryGallery
from tests.search.toy import TREE, random_table


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


def split_index(n_validation: int = 60, kind: str = "flat") -> CaseIndex:
    """400 images of 200 cases, some of them of validation, calibrated on these."""
    table = random_table(400)
    cases = list(dict.fromkeys(table.frame[c.CASE_ID]))
    validation = table.frame[c.CASE_ID].isin(cases[:n_validation])
    frame = table.frame.assign(split=np.where(validation, c.VALIDATION, c.TRAIN))
    index = CaseIndex.from_embeddings(replace(table, frame=frame), TREE, kind=kind)  # type: ignore[arg-type]
    index.calibration = calibrate_on_validation(index, accuracy=0.65, k=5)
    return index


def validation_cases(index: CaseIndex) -> list[str]:
    return sorted(set(index.frame.loc[index.frame[c.SPLIT] == c.VALIDATION, c.CASE_ID]))


def test_what_was_learnt_from_removed_cases_goes_with_them() -> None:
    index = split_index()
    assert index.calibration is not None and index.calibration.rule.levels[-1].n_queries == 60
    index.remove(validation_cases(index)[:20])
    again = index.calibration
    assert again == calibrate_on_validation(index, accuracy=0.65, k=5)
    assert again is not None and again.rule.levels[-1].n_queries == 40 and again.rule.wanted == 0.65
    training = sorted(set(index.frame[c.CASE_ID]) - set(validation_cases(index)))
    index.remove(training[20:])  # the validation cases stay, what they find does not
    assert index.calibration == calibrate_on_validation(index, accuracy=0.65, k=5) != again
    index.remove(validation_cases(index))
    assert index.calibration is None
    assert describe_index(index)[-1] == (
        "answers are not calibrated: the validation cases that it was calibrated on were removed"
    )
    index.add(random_table(20, seed=5, start=900))
    assert index.calibration is None


def test_a_query_that_can_find_nothing_is_neither_right_nor_wrong() -> None:
    """A single case is left: votes for none would name the first condition of the tree, which is its own."""
    index = split_index()
    first = [
        case
        for case in validation_cases(index)
        if "F0" in set(index.frame.loc[index.frame[c.CASE_ID] == case, c.CONDITION])
    ]
    index.remove([case for case in set(index.frame[c.CASE_ID]) if case != first[0]])
    assert index.n_cases == 1 and validation_cases(index) == first[:1]
    assert index.calibration is None and calibrate_on_validation(index) is None and validation_means(index) == []
    assert describe_index(index)[-1] == "answers are not calibrated: it had a single case, which finds no other"


@settings(max_examples=15)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2**31)), min_size=1, max_size=4))
def test_whatever_changes_the_calibration_is_that_of_what_is_there(changes: list[tuple[bool, int]]) -> None:
    index = split_index(8)
    for number, (grows, seed) in enumerate(changes):
        rng = np.random.default_rng(seed)
        if grows or index.n_cases < 3:  # of two, none can be drawn that leaves two
            index.add(random_table(20, seed=seed, start=1000 * (number + 1)))
        elif len(cases := sorted(set(index.frame[c.CASE_ID]))) > 2:  # two stay, to find each other
            index.remove(list(rng.choice(cases, rng.integers(1, len(cases) - 1), replace=False)))
        assert index.calibration == calibrate_on_validation(index, accuracy=0.65, k=5)
        assert (index.calibration is None) == (not validation_cases(index)) == bool(index.about.not_calibrated)
        assert len(describe_index(index)) >= 5


def test_growth_calibrates_again_and_another_tables_validation_cases_do_not_count() -> None:
    index = split_index()
    before = index.calibration
    new = random_table(200, seed=5, start=900)
    index.add(replace(new, frame=new.frame.assign(split=c.VALIDATION)))
    assert index.calibration == calibrate_on_validation(index, accuracy=0.65, k=5) != before
    assert len(validation_cases(index)) == 60


def test_the_recall_of_an_engine_is_measured_again() -> None:
    index = split_index(kind="ivf")
    index.add(random_table(400, seed=5, start=900))
    assert index.about.recall_at_10 == index.measure_recall() >= 0.95
    gallery = index.gallery
    assert isinstance(gallery, MemoryGallery) and gallery.engine is not None
    assert index.about.effort == gallery.engine.effort


def test_ids_to_remove_may_be_numbers() -> None:
    table = random_table(40)
    frame = table.frame.assign(case_id=[str(-number) for number in np.arange(40) // 2])
    index = CaseIndex.from_embeddings(replace(table, frame=frame), TREE)
    index.remove([-3, 0])  # type: ignore[list-item]
    assert len(index) == 36 and not {"-3", "0"} & set(index.frame[c.CASE_ID])


def test_too_few_validation_cases_are_named() -> None:
    index = split_index(9)
    assert (
        "never answered: 9 validation cases are too few, for an accuracy of 65% it takes 10 or more"
        in (describe_index(index)[-2])
    )


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


def test_an_index_of_one_category_has_no_accuracy_there() -> None:
    table = random_table(400)
    rows = table.frame["condition"].isin(["F0", "F1", "F2"]).to_numpy()
    frame = table.frame.assign(split=np.where(np.arange(400) % 8 < 4, c.VALIDATION, c.TRAIN))
    index = CaseIndex.from_embeddings(replace(table, frame=frame).select(rows), TREE)
    index.calibration = calibrate_on_validation(index)
    assert "category: all cases are of 'C0', so nothing can be wrong there" in describe_index(index)
    assert not any(line.startswith("category: recall") for line in describe_index(index))
    found = CaseFinder(index).search_vectors(index.vectors[:1]).answer
    assert found is not None and found.given == (0,) and "No other category than 'C0' could come." in found.reason
