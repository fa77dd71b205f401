"""Images that show no skin are refused, those like the index are answered: noise, colours, pages, drawings, photographs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.unlike import KINDS, page
from hierderm import columns as c
from hierderm.data.look import N_LOOK, looks_of
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import IndexFolderError
from hierderm.evaluation.metrics.selective import AnswerRule, LevelRule
from hierderm.search.building import calibrate_on_validation, describe_index, embed_for
from hierderm.search.case_index import CaseIndex
from hierderm.search.evaluation import evaluate_index
from hierderm.search.finder import CaseFinder, SearchOptions
from tests.search.test_building import MeanColour

ANSWERS_ALL = AnswerRule(0.8, (LevelRule(0.0, (0.0, 1.0), (0.9, 0.9), 100, 100, 90),) * 2)


@pytest.fixture(scope="module")
def cases(toy: CaseTable) -> CaseTable:
    """The toy with half of its cases for validation, a quarter for the test."""
    parts = dict(zip(sorted(set(toy.case_ids)), (c.TEST, c.VALIDATION, c.VALIDATION, c.TRAIN) * 12, strict=True))
    return CaseTable(toy.frame.assign(split=[parts[case] for case in toy.case_ids]), toy.taxonomy, toy.root)


@pytest.fixture(scope="module")
def built(cases: CaseTable) -> CaseIndex:
    return CaseIndex.build(cases, MeanColour(), splits=("train", "validation"), k=5)


@pytest.fixture
def finder(built: CaseIndex) -> CaseFinder:
    """On an index that answers whatever it does not refuse."""
    assert built.calibration is not None
    return CaseFinder(replace(built, calibration=replace(built.calibration, rule=ANSWERS_ALL)), MeanColour())


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_unlike_the_index_has_no_answer(finder: CaseFinder, kind: str, tmp_path: Path) -> None:
    for seed in range(2):
        KINDS[kind](np.random.default_rng(seed)).save(tmp_path / "query.png")
        found = finder.search(tmp_path / "query.png", SearchOptions(k=3))
        read = found.answer
        assert read is not None and read.unlike and (read.level, read.node, read.confidence) == (None, "", None)
        assert read.differential == ((), ()) and read.likeness == pytest.approx(1 / 25) and len(found.hits) == 3
        assert read.reason == (
            "This image is unlike the images of the index, most of all in colours and detail: of the 24 validation cases "
            "none was as far from every other case. So there is no answer, and the nearest cases say nothing."
        )


def test_true_queries_are_refused_about_as_often_as_is_said(finder: CaseFinder, cases: CaseTable) -> None:
    """At most 5 %, of 12 test cases: more than 3 refused come with probability 0.002."""
    test = cases.part(c.TEST)
    groups = [test.select(test.case_ids == case).paths[:3] for case in sorted(set(test.case_ids))]
    answers = [finder.search(paths).answer for paths in groups]
    assert len(answers) == 12 and sum(read.unlike for read in answers if read is not None) <= 3
    for read in answers:
        assert read is not None and read.unlike == (read.level is None) and read.likeness is not None
    table = embed_for(finder.index, test, MeanColour())
    found = evaluate_index(finder.index, table)
    assert found["tree", "index_answer_refused"].value == np.mean([read.unlike for read in answers if read is not None])
    assert found["tree", "index_answer_rate"].value == 1 - found["tree", "index_answer_refused"].value


def test_one_image_among_several_is_enough(finder: CaseFinder, cases: CaseTable, tmp_path: Path) -> None:
    page(np.random.default_rng(0)).save(tmp_path / "page.png")
    path = cases.part(c.TEST).paths[0]
    both = finder.search([path, tmp_path / "page.png"]).answer
    assert both is not None and both.unlike and both.reason.startswith("These images are unlike")


def test_a_filter_does_not_change_the_test(finder: CaseFinder, cases: CaseTable, tmp_path: Path) -> None:
    page(np.random.default_rng(0)).save(tmp_path / "page.png")
    options = SearchOptions(within=[cases.taxonomy.names(0)[0]])
    unlike = finder.search(tmp_path / "page.png", options).answer
    assert unlike is not None and unlike.unlike and not unlike.given
    path = cases.part(c.TEST).paths[0]
    narrowed, free = finder.search(path, options).answer, finder.search(path).answer
    assert narrowed is not None and free is not None and narrowed.likeness == free.likeness
    assert narrowed.unlike == free.unlike and "a filter narrows this one" in narrowed.reason


def test_vectors_without_images_and_images_of_the_index(finder: CaseFinder) -> None:
    """24 validation cases are too few for two tests, so nothing is tested where the look is not known."""
    vectors, own = finder.index.vectors[:1], str(finder.index.frame[c.IMAGE_ID].iloc[0])
    bare = finder.search_vectors(vectors).answer
    assert bare is not None and bare.likeness is None and not bare.unlike
    known = finder.search_image_id(own).answer
    assert known is not None and known.likeness is not None and known.likeness > 1 / 25


def test_the_test_is_learnt_again_and_kept(built: CaseIndex, cases: CaseTable, tmp_path: Path) -> None:
    built.save(tmp_path / "index")
    with CaseIndex.updating(tmp_path / "index") as index:
        before = index.calibration
        assert before == built.calibration and before is not None and before.likeness is not None
        assert index.looks is not None and index.looks.shape == (len(index), N_LOOK)
        index.add(embed_for(index, cases.part(c.TEST), MeanColour()))
        assert index.calibration == calibrate_on_validation(index, k=5) != before
    opened = CaseIndex.open(tmp_path / "index")
    (looks,) = (tmp_path / "index").glob("looks-*.npy")
    looks.write_bytes(looks.read_bytes()[:-4])
    with pytest.raises(IndexFolderError, match=f"{looks.name} is damaged"):
        CaseIndex.open(tmp_path / "index")
    assert opened.looks is not None and opened.calibration is not None
    np.testing.assert_array_equal(opened.looks[-3:], looks_of(cases.part(c.TEST).paths)[-3:])
    frame = opened.frame
    opened.remove(sorted(set(frame.loc[frame[c.SPLIT] == c.VALIDATION, c.CASE_ID]))[:6])
    assert opened.looks is not None and len(opened.looks) == len(opened) < len(frame)
    assert describe_index(opened)[-1] == (
        "queries unlike the index are never refused: 18 validation cases are too few, for 5% of false alarms it takes 19 "
        "or more"
    )


def test_images_that_can_not_be_read_are_told(
    cases: CaseTable, built: CaseIndex, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = CaseTable(cases.frame, cases.taxonomy, tmp_path)
    vectors = MeanColour().encode(cases.paths)
    with caplog.at_level("WARNING"):
        blind = CaseIndex.build(lost, None, embeddings=vectors, splits=("train", "validation"), k=5)
    assert f"{len(blind)} of {len(blind)} images can't be read" in caplog.text
    assert blind.calibration is not None and blind.calibration.likeness is not None
    assert not blind.calibration.likeness.look and len(blind.calibration.likeness.embedding) == 24
    far = CaseFinder(blind).search_vectors(-np.asarray(blind.vectors[:1])).answer
    assert far is not None and far.unlike and "in what the model sees" in far.reason
    blind.add(EmbeddingTable(vectors[:0].astype(np.float32), cases.frame[:0], built.provenance))
    no_validation = CaseIndex.build(cases, None, embeddings=vectors, splits=("train",))
    assert no_validation.looks is None
