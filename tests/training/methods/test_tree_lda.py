from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hierderm import columns as c
from hierderm.config.loading import with_overrides
from hierderm.config.methods import TreeLda
from hierderm.config.settings import Config
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable
from hierderm.evaluation.validation import validation_scores
from hierderm.experiment.run import train
from hierderm.training.features import FeatureStore
from hierderm.training.methods.tree_lda import SCALES, Images, best_scale, every_setting, shuffled
from hierderm.training.tree_analysis import TreeAnalysis

Score = Callable[[np.ndarray, CaseTable], float]
ONE = TreeLda(shrinkages=(0.1,), decays=(1.0,), strengths=(2.0,), probability_shares=(0.2,), folds=0)

SETTING = {"shrinkage": 0.1, "decay": 1.0, "strength": 2.0, "probability_share": 0.2, "probability_temperature": 2.0}


def images_of(toy: CaseTable, split: str) -> Images:
    table = toy.select(np.flatnonzero(np.arange(len(toy)) % 3 == ("train", "validation").index(split)))
    centres = np.random.default_rng(0).normal(size=(toy.taxonomy.size(-1), 12))
    return Images(centres[table.fine] + np.random.default_rng(1).normal(size=(len(table), 12)), table)


@pytest.fixture
def scored_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Score], None]:
    """Puts a score of one's own in place of the validation score."""

    def put(score: Score) -> None:
        monkeypatch.setattr(
            "hierderm.training.methods.tree_lda.validation_scores",
            lambda embeddings, table: {"mean_retrieval": score(embeddings, table)},
        )

    return put


def test_every_setting_is_judged_by_what_it_has_not_seen(toy: CaseTable, scored_by: Callable[[Score], None]) -> None:
    settings = TreeLda(shrinkages=(0.1, 0.5), decays=(1.0,), strengths=(2.0,), probability_shares=(0.0, 0.2), folds=4)
    train, validation = images_of(toy, "train"), images_of(toy, "validation")
    asked: list[tuple[str, ...]] = []

    def score(embeddings: np.ndarray, table: CaseTable) -> float:
        assert len(embeddings) == len(table)
        asked.append(tuple(table.frame["image_id"]))
        return float(len(asked))

    scored_by(score)
    whole = TreeAnalysis(train.features, train.table.fine, toy.taxonomy)
    tried = list(every_setting(settings, whole, train, validation))
    found = [(row["shrinkage"], row["probability_share"]) for row, _ in tried]
    assert found == [(0.1, 0.0), (0.1, 0.2), (0.5, 0.0), (0.5, 0.2)]
    first = asked[:5]  # of a setting: validation, then the four parts
    assert asked == first * 4
    assert first[0] == tuple(validation.table.frame["image_id"])
    assert sorted(itertools.chain(*first[1:])) == sorted(train.table.frame["image_id"])
    case_of = dict(zip(train.table.frame["image_id"], train.table.case_ids, strict=True))
    cases = [{case_of[image] for image in part} for part in first[1:]]
    assert sum(map(len, cases)) == len(set.union(*cases))  # no case in two parts
    row, discriminants = tried[0]
    assert row["mean_retrieval"] == 1
    assert row["held_out"] == pytest.approx(np.average(range(1, 6), weights=[*map(len, first)]))
    expected = whole.fit(shrinkage=0.1, decay=1.0, strength=2.0)
    np.testing.assert_array_equal(discriminants.embed(train.features), expected.embed(train.features))


def test_a_part_is_embedded_by_the_analysis_of_the_others(toy: CaseTable, scored_by: Callable[[Score], None]) -> None:
    train, validation = images_of(toy, "train"), images_of(toy, "validation")
    whole = TreeAnalysis(train.features, train.table.fine, toy.taxonomy)
    embedded: list[tuple[np.ndarray, CaseTable]] = []

    def score(embeddings: np.ndarray, table: CaseTable) -> float:
        embedded.append((embeddings, table))
        return 0.0

    scored_by(score)
    list(every_setting(replace(ONE, folds=3), whole, train, validation))
    for embeddings, table in embedded[1:]:
        left_out = np.isin(train.table.frame["image_id"], table.frame["image_id"])
        others = whole.leaving_out(left_out).fit(**SETTING)
        np.testing.assert_allclose(embeddings, others.embed(train.features[left_out]))


def test_without_folds_validation_alone_chooses(toy: CaseTable, scored_by: Callable[[Score], None]) -> None:
    train, validation = images_of(toy, "train"), images_of(toy, "validation")
    whole = TreeAnalysis(train.features, train.table.fine, toy.taxonomy)
    scored_by(lambda embeddings, table: float(len(table)))
    ((row, _),) = every_setting(ONE, whole, train, validation)
    assert row["held_out"] == row["mean_retrieval"] == len(validation.table)


def test_the_scale_follows_how_well_labels_are_known() -> None:
    """Logits twice as far apart need half the scale, and labels that contradict them a small one."""
    fine = np.arange(90) % 9
    logits = 4.0 * np.eye(9)[fine] + np.random.default_rng(0).normal(size=(90, 9))
    assert best_scale(2 * logits, fine) < best_scale(logits, fine)
    assert best_scale(logits, np.roll(fine, 1)) == SCALES[0]


@pytest.mark.parametrize("temperature", [0.02, 1.0, 50.0])
def test_the_scale_makes_up_for_any_temperature(temperature: float) -> None:
    """So the probabilities that are reported do not depend on that of the node probabilities in the embedding."""
    fine = np.arange(90) % 9
    logits = 2.0 * np.eye(9)[fine] + np.random.default_rng(0).normal(size=(90, 9))
    step = SCALES[1] / SCALES[0]
    found = best_scale(logits / temperature, fine) / temperature
    assert best_scale(logits, fine) / step < found < best_scale(logits, fine) * step


def trained(config: Config, table: CaseTable, folder: Path, **settings: object) -> EmbeddingTable:
    named = {f"training.{name}": value for name, value in settings.items()}
    own = with_overrides(config, {"training.method": "tree_lda", "training.views": 0, **named})
    return train(own, table, folder).embeddings()


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_network_embeds_as_the_analysis(toy_config: Config, toy: CaseTable, tmp_path: Path, shuffle: bool) -> None:
    values = {"shrinkages": [0.3], "decays": [0.5], "strengths": [2.0], "probability_shares": [0.3]}
    embedded = trained(toy_config, toy, tmp_path, features="output", shuffle=shuffle, **values)
    (path,) = (tmp_path / "features").glob("*.npy")
    features, in_training = np.load(path), toy.splits == c.TRAIN
    tree = shuffled(toy.taxonomy, 0) if shuffle else toy.taxonomy
    weights = {"coarse": 0.7, "fine": 0.3}
    analysis = TreeAnalysis(features[in_training], toy.fine[in_training], tree, probability_levels=weights)
    found = analysis.fit(shrinkage=0.3, decay=0.5, strength=2.0, probability_share=0.3, probability_temperature=2.0)
    np.testing.assert_allclose(embedded.embeddings, found.embed(features), atol=1e-5)
    assert embedded.probabilities is not None
    assert (embedded.probabilities.argmax(axis=1) == found.logits(features).argmax(axis=1)).mean() > 0.99


def test_history_and_card(toy_config: Config, toy: CaseTable, tmp_path: Path) -> None:
    config = with_overrides(toy_config, {"training.method": "tree_lda", "training.views": 2})
    run = train(config, toy, tmp_path, FeatureStore(tmp_path / "shared"))
    assert len(run.history) == 2 * 3 * 1 * 2 * 6  # of features, shrinkage, decay, strength and share
    assert run.history["held_out"].iloc[run.chosen] == run.history["held_out"].max()
    probabilities = run.embeddings(FeatureStore(tmp_path / "shared")).probabilities
    assert probabilities is not None
    right = (probabilities.argmax(axis=1) == toy.fine)[toy.splits == c.TRAIN].mean()
    assert right > 0.2  # of nine conditions: an untrained backbone, but images it has learnt from
    card = (tmp_path / "model" / "README.md").read_text()
    assert "discriminants of the tree and node probabilities, in closed form" in card
    assert "with 2 augmented views of each training image" in card
    assert (
        "| chosen | features " in card
        and ", shrinkage " in card
        and "and, in turn, 5 parts of the training cases" in card
    )
    assert not (tmp_path / "features").exists()


def test_the_shuffled_tree_is_a_control(toy_config: Config, toy: CaseTable, tmp_path: Path) -> None:
    """It changes what depends on the tree and nothing else: the flat analysis uses no tree and stays as it is."""
    assert shuffled(toy.taxonomy, 0).names() == toy.taxonomy.names()
    assert shuffled(toy.taxonomy, 0).names(0) == toy.taxonomy.names(0)

    def embedded(decay: float, shuffle: bool) -> EmbeddingTable:
        values = {"strengths": [0.0], "shrinkages": [0.0], "decays": [decay], "shuffle": shuffle}
        return trained(toy_config, toy, tmp_path / f"{decay}-{shuffle}", **values)

    flat, flat_shuffled = embedded(1.0, False), embedded(1.0, True)
    assert flat.probabilities is not None and flat_shuffled.probabilities is not None
    np.testing.assert_allclose(flat_shuffled.probabilities, flat.probabilities, atol=1e-4)
    in_training = toy.splits == c.TRAIN
    with_tree, with_control = (
        validation_scores(embedded(0.0, shuffle).embeddings[in_training], toy.part(c.TRAIN))["coarse_map_at_r"]
        for shuffle in (False, True)
    )
    assert with_tree > with_control
