"""From pictures to cases and an answer, on the toy with an untrained SigLIP."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hierderm import columns as c
from hierderm.config.settings import Config
from hierderm.data.image_io import open_image
from hierderm.data.table import CaseTable
from hierderm.errors import SearchError
from hierderm.experiment.run import train
from hierderm.model.encoder import load
from hierderm.search.filters import Filter
from hierderm.search.finder import CaseFinder, Wanted, make_index, validation_scores
from hierderm.search.persistence import open_index, save_index


@pytest.fixture(scope="module")
def finder(toy: CaseTable, small_siglip: Path, tmp_path_factory: pytest.TempPathFactory) -> CaseFinder:
    model, folder = f"hf:{small_siglip}", tmp_path_factory.mktemp("finder") / "index"
    index, why_not = make_index(toy, load(model).embed(toy), model=model, splits=("train", "validation"), k=5)
    assert why_not == ""
    save_index(index, folder)
    return CaseFinder.open(folder)


def test_pictures_words_and_pictures_of_the_index(finder: CaseFinder, toy: CaseTable) -> None:
    test = toy.part(c.TEST)
    found = finder.by_pictures([open_image(path) for path in test.paths[:2]], Wanted(k=4))
    assert len(found.hits) == 4 and found.embeddings.shape == (2, 32)
    assert found.classified is None and found.answer is not None
    assert not {hit.case_id for hit in found.hits} & set(test.case_ids)
    assert all(hit.file.is_file() for hit in found.hits)
    of_index = finder.by_image(found.hits[0].image_id, Wanted(k=3))
    assert found.hits[0].case_id not in {hit.case_id for hit in of_index.hits}
    words = finder.by_text("red papule", Wanted(k=2))
    assert len(words.hits) == 2 and words.answer is None


def test_a_picture_of_the_gallery_finds_itself(finder: CaseFinder) -> None:
    hit = finder.by_image(str(finder.index.frame[c.IMAGE_ID].iloc[0]), Wanted(k=1)).hits[0]
    again = finder.by_pictures([open_image(hit.file)], Wanted(k=1)).hits[0]
    assert (again.image_id, round(again.similarity, 4)) == (hit.image_id, 1.0)


def test_files_images_and_arrays_are_the_same(finder: CaseFinder, toy: CaseTable) -> None:
    path = toy.part(c.TEST).paths[0]
    image = open_image(path)
    answers = [finder.by_pictures([picture]).hits for picture in (path, image, np.asarray(image))]
    assert answers[0] == answers[1] == answers[2]
    with pytest.raises(SearchError, match=r"uint8 of shape \(height, width, 3\), got float64 \(4, 4\)"):
        finder.by_pictures([np.zeros((4, 4))])  # type: ignore[list-item]


def test_a_filter_takes_the_confidence_away(finder: CaseFinder) -> None:
    name = finder.index.taxonomy.names(0)[0]
    image = str(finder.index.frame[c.IMAGE_ID].iloc[0])
    narrowed = finder.by_image(image, Wanted(only=Filter([name])))
    assert {hit.path[0] for hit in narrowed.hits} == {name}
    assert narrowed.answer is not None and narrowed.answer.confidence is None
    capped = finder.by_image(image, Wanted(per_condition=1))
    assert len({hit.condition for hit in capped.hits}) == len(capped.hits)
    shown = finder.by_image(image, Wanted(k=1)).answer
    assert shown == capped.answer  # the answer is read from what was calibrated, however few are shown


def test_described_as_json(finder: CaseFinder) -> None:
    found = finder.by_image(str(finder.index.frame[c.IMAGE_ID].iloc[0]), Wanted(k=2))
    content = json.loads(json.dumps(finder.describe(found, files=True)))
    assert content["levels"] == list(finder.index.taxonomy.level_names)
    assert Path(content["hits"][0]["file"]).is_file()
    for level in content["answer"]["differential"]:
        assert sum(node["share"] for node in level) == pytest.approx(1, abs=1e-3)
    public = json.dumps(finder.describe(found, files=False))
    assert str(finder.index.about.image_root) not in public and "file" not in json.loads(public)["hits"][0]


def test_validation_cases_are_queried_without_themselves(finder: CaseFinder) -> None:
    """The planted leak: with its own case in the gallery every validation picture would find itself."""
    scores = validation_scores(finder.index)
    assert len(scores) == 2 and scores[-1]["recall_at_1"] < 1
    calibration = finder.index.calibration
    assert calibration is not None
    n_validation = finder.index.frame.loc[finder.index.frame[c.SPLIT] == c.VALIDATION, c.CASE_ID].nunique()
    assert calibration.levels[0].n_queries == n_validation and calibration.k == 5


def test_a_model_in_action(toy: CaseTable, toy_config: Config, tmp_path: Path) -> None:
    train(toy_config, toy, tmp_path / "run")
    model = str(tmp_path / "run" / "model")
    embedded = load(model).embed(toy)
    index, _ = make_index(toy, embedded, model=model)
    save_index(index, tmp_path / "index")
    found = CaseFinder.open(tmp_path / "index").by_pictures([open_image(toy.paths[0])])
    assert found.classified is not None
    assert [sum(node.share for node in level) for level in found.classified] == pytest.approx([1, 1], abs=1e-4)
    # Another split: its validation cases may have been trained on, so nothing may be learnt from them.
    other = replace(toy, frame=toy.frame.assign(**{c.SPLIT: np.roll(toy.splits, 7)}))
    uncalibrated, why_not = make_index(other, embedded, model=model)
    assert uncalibrated.calibration is None and "trained on another split" in why_not


def test_without_validation_cases(toy: CaseTable, small_siglip: Path) -> None:
    model = f"hf:{small_siglip}"
    index, why_not = make_index(toy, load(model).embed(toy), model=model, splits=("train",))
    assert index.calibration is None and why_not == "there are no validation cases in the index"
    assert validation_scores(index) == []


def test_refusals(finder: CaseFinder, toy: CaseTable, tmp_path: Path) -> None:
    picture = open_image(toy.paths[0])
    with pytest.raises(SearchError, match="1 to 3 pictures, got 4"):
        finder.by_pictures([picture] * 4)
    with pytest.raises(SearchError, match="must have words"):
        finder.by_text("  ")
    with pytest.raises(SearchError, match="has no picture 'x'"):
        finder.by_image("x")
    save_index(finder.index, tmp_path / "i")
    with pytest.raises(SearchError, match="must come from the model of the index"):
        CaseFinder.open(tmp_path / "i", model="hierderm:tiny").by_pictures([picture])
    nameless = open_index(tmp_path / "i")
    nameless.about = replace(nameless.about, model="")
    save_index(nameless, tmp_path / "j")
    with pytest.raises(SearchError, match="does not say which model embeds queries"):
        CaseFinder.open(tmp_path / "j").by_pictures([picture])
