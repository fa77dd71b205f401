"""From images to cases and an answer, on the toy with an untrained SigLIP."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hierderm import columns as c
from hierderm.config.settings import Config
from hierderm.data.image_io import open_image
from hierderm.data.table import CaseTable
from hierderm.errors import SearchError
from hierderm.experiment.run import train
from hierderm.search.case_index import CaseIndex
from hierderm.search.finder import CaseFinder, SearchOptions
from hierderm.search.memory import MemoryGallery
from tests.search.test_building import MeanColour


@pytest.fixture(scope="module")
def finder(toy: CaseTable, small_siglip: Path, tmp_path_factory: pytest.TempPathFactory) -> CaseFinder:
    folder = tmp_path_factory.mktemp("finder") / "index"
    CaseIndex.build(toy, f"hf:{small_siglip}", splits=("train", "validation"), k=5).save(folder)
    return CaseFinder.open(folder)


def test_images_text_and_images_of_the_index(finder: CaseFinder, toy: CaseTable) -> None:
    test = toy.part(c.TEST)
    found = finder.search([open_image(path) for path in test.paths[:2]], SearchOptions(k=4))
    assert len(found.hits) == 4 and found.vectors.shape == (2, 32)
    assert found.classified is None and found.answer is not None
    assert not {hit.case_id for hit in found.hits} & set(test.case_ids)
    assert all(hit.image_path.is_file() for hit in found.hits)
    by_id = finder.search_image_id(found.hits[0].image_id, SearchOptions(k=3))
    assert found.hits[0].case_id not in {hit.case_id for hit in by_id.hits}
    by_text = finder.search_text("red papule", SearchOptions(k=2))
    assert len(by_text.hits) == 2 and by_text.answer is None


def test_an_image_of_the_gallery_finds_itself(finder: CaseFinder) -> None:
    hit = finder.search_image_id(str(finder.index.frame[c.IMAGE_ID].iloc[0]), SearchOptions(k=1)).hits[0]
    again = finder.search([open_image(hit.image_path)], SearchOptions(k=1)).hits[0]
    assert (again.image_id, round(again.similarity, 4)) == (hit.image_id, 1.0)


def test_files_images_and_arrays_are_the_same(finder: CaseFinder, toy: CaseTable) -> None:
    path = toy.part(c.TEST).paths[0]
    image = open_image(path)
    given = (path, str(path), image, np.asarray(image))
    answers = [finder.search([image]).hits for image in given] + [finder.search(image).hits for image in given]
    assert all(answer == answers[0] for answer in answers)


def test_a_filter_takes_the_confidence_away(finder: CaseFinder) -> None:
    name = finder.index.taxonomy.names(0)[0]
    image = str(finder.index.frame[c.IMAGE_ID].iloc[0])
    narrowed = finder.search_image_id(image, SearchOptions(within=[name]))
    assert {hit.path[0] for hit in narrowed.hits} == {name}
    assert narrowed.answer is not None and narrowed.answer.confidence is None
    assert narrowed.answer.given == (0,)  # all votes are of the category, for nothing else was searched
    assert narrowed.answer.reason.endswith(f" No other category than '{name}' could come.")
    few = finder.search_image_id(image, SearchOptions(within=[name], per_condition=1, k=5))
    assert few.answer == finder.search_image_id(image, SearchOptions(within=[name], k=5)).answer
    capped = finder.search_image_id(image, SearchOptions(per_condition=1))
    assert len({hit.condition for hit in capped.hits}) == len(capped.hits)
    shown = finder.search_image_id(image, SearchOptions(k=1)).answer
    assert shown == capped.answer  # the answer is read from what was calibrated, however few are shown


def test_a_case_that_the_model_has_learnt_from_has_no_confidence(finder: CaseFinder) -> None:
    frame, index = finder.index.frame, finder.index
    train, validation = (str(frame.loc[frame[c.SPLIT] == s, c.IMAGE_ID].iloc[0]) for s in (c.TRAIN, c.VALIDATION))
    assert not index.about.trained
    own = replace(index, about=replace(index.about, trained=True))
    for image, learnt in ((train, True), (validation, False)):
        found, before = CaseFinder(own).search_image_id(image).answer, finder.search_image_id(image).answer
        assert found is not None and ("the model has learnt from this case" in found.reason) == learnt
        assert learnt or found == before


def test_what_a_similarity_is_worth(finder: CaseFinder) -> None:
    """Against all pairs of images of different cases; 5,000 of them are drawn."""
    gallery = finder.index.gallery
    assert isinstance(gallery, MemoryGallery)
    cosine = gallery.vectors @ gallery.vectors.T
    pairs = cosine[gallery.cases[:, None] != gallery.cases]
    for similarity in np.quantile(pairs, [0.1, 0.5, 0.9]):
        assert gallery.closer_than(similarity) == pytest.approx((pairs < similarity).mean(), abs=0.03)
    assert (gallery.closer_than(-1.1), gallery.closer_than(1.1)) == (0, 1)
    rows = finder.index.frame[c.CASE_ID] == finder.index.frame[c.CASE_ID].iloc[0]
    alone = MemoryGallery(gallery.vectors[rows], gallery.frame[rows], gallery.taxonomy)
    assert np.isnan(alone.closer_than(0.5))
    hits = finder.search_image_id(str(gallery.frame[c.IMAGE_ID].iloc[0])).to_dict(paths=False)["hits"]
    shares = [hit["closer_than"] for hit in hits]
    assert shares == sorted(shares, reverse=True) and 0 < shares[-1] <= 1
    assert finder.search_text("red papule").to_dict(paths=False)["hits"][0]["closer_than"] is None


def test_cells_come_as_they_are(finder: CaseFinder) -> None:
    index = finder.index
    sources = [str(2**61 + row) for row in range(len(index))]
    frame = index.frame.assign(source=sources, fitzpatrick=pd.array([1] + [pd.NA] * (len(index) - 1), dtype="Int64"))
    texts = CaseFinder(CaseIndex(MemoryGallery(index.vectors, frame, index.taxonomy), index.provenance, index.about))
    for row in (0, 5):
        found = texts.search_vectors(index.vectors[[row]], SearchOptions(k=1, where={"source": [sources[row]]}))
        (hit,) = found.to_dict(paths=False)["hits"]
        assert hit["image_id"] == frame[c.IMAGE_ID][row] and hit["source"] == sources[row]
        assert hit["fitzpatrick"] == ("1" if row == 0 else "")


def test_as_plain_json(finder: CaseFinder) -> None:
    found = finder.search_image_id(str(finder.index.frame[c.IMAGE_ID].iloc[0]), SearchOptions(k=2))
    content = json.loads(json.dumps(found.to_dict(paths=True)))
    assert content["levels"] == list(finder.index.taxonomy.level_names)
    assert Path(content["hits"][0]["image_path"]).is_file()
    assert finder.index.calibration is not None
    worth = finder.index.calibration.shares(found.found).sum()
    for level in content["answer"]["differential"]:
        assert sum(node["share"] for node in level) == pytest.approx(worth, abs=1e-3)
    public = json.dumps(found.to_dict(paths=False))
    assert str(finder.index.about.image_root) not in public
    assert "image_path" not in json.loads(public)["hits"][0]


def test_a_model_in_action(toy: CaseTable, toy_config: Config, tmp_path: Path) -> None:
    train(toy_config, toy, tmp_path / "run")
    CaseIndex.build(toy, tmp_path / "run" / "model").save(tmp_path / "index")
    found = CaseFinder.open(tmp_path / "index").search([open_image(toy.paths[0])])
    assert found.classified is not None
    assert [sum(node.share for node in level) for level in found.classified] == pytest.approx([1, 1], abs=1e-4)
    # Another split: its validation cases may have been trained on, so nothing may be learnt from them.
    other = replace(toy, frame=toy.frame.assign(**{c.SPLIT: np.roll(toy.splits, 7)}))
    uncalibrated = CaseIndex.build(other, tmp_path / "run" / "model")
    assert uncalibrated.calibration is None and "trained on another split" in uncalibrated.about.not_calibrated


def test_a_model_of_ones_own(toy: CaseTable) -> None:
    finder = CaseFinder(CaseIndex.build(toy, MeanColour()), MeanColour())
    found = finder.search([toy.paths[3]], SearchOptions(k=1))
    assert found.hits[0].image_id == toy.frame[c.IMAGE_ID][3] and found.classified is None and not finder.takes_text
    with pytest.raises(SearchError, match="has no encode_text, so it can't be searched by words"):
        finder.search_text("red")


def test_refusals(finder: CaseFinder, toy: CaseTable, tmp_path: Path) -> None:
    image = open_image(toy.paths[0])
    with pytest.raises(SearchError, match="1 to 3 images, got 4"):
        finder.search([image] * 4)
    with pytest.raises(SearchError, match="must have words"):
        finder.search_text("  ")
    with pytest.raises(SearchError, match="has no image 'x'"):
        finder.search_image_id("x")
    with pytest.raises(SearchError, match="must come from the model of the index"):
        CaseFinder(finder.index, model="hierderm:tiny").search([image])
    finder.index.save(tmp_path / "i")
    nameless = CaseIndex.open(tmp_path / "i")
    nameless.about = replace(nameless.about, model="")
    with pytest.raises(SearchError, match="does not record which model embeds queries"):
        CaseFinder(nameless).search([image])
