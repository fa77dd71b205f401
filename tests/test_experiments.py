"""Every file of experiments/ is read and checked; the backbones of the hub load up to the download."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import answers, classifiers, recipe, scarce
from hierderm.config.loading import load_comparison, load_config, model_config
from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable, Provenance, unit_length
from hierderm.errors import CheckpointError
from hierderm.model.backbone import load_backbone

FILES = sorted((Path(__file__).parents[1] / "experiments").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_experiment_is_whole(path: Path) -> None:
    head = path.read_text().split("\n\n")[0]
    assert "question" in head and re.search(r"Command: hierderm (compare|train) \w+ ", head)
    if path.stem == "two_head":
        assert load_config(path.stem) == load_config(path)
        return
    comparison = load_comparison(path.stem)
    names = {entry.name for entry in comparison.models}
    wanted = {"vanilla", "flat-fine", "flat-coarse", "hierarchical"}
    assert wanted <= names
    for entry in comparison.models:
        model_config(comparison, entry)
    assert comparison.focus in names


def test_siglip_loads_up_to_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    called: list[object] = []
    create = timm.create_model

    def no_download(model: str, *, pretrained: bool, **options: Any) -> object:
        called.append((model, pretrained))
        if pretrained:
            raise OSError("no internet")
        return create(model, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", no_download)
    with pytest.raises(CheckpointError, match="no internet.*Without internet give local weights"):
        load_backbone(BackboneConfig.parse("timm:vit_base_patch16_siglip_224"))
    assert called == [("vit_base_patch16_siglip_224", True)]


def test_siglip2_loads_up_to_the_download() -> None:
    with pytest.raises(CheckpointError, match="siglip2-base-patch16-224: could not be loaded .* give local weights"):
        load_backbone(BackboneConfig.parse("hf:google/siglip2-base-patch16-224"))


def test_scarce_conditions(toy: CaseTable) -> None:
    learnt, asked, gallery = scarce.reduced(2, 2)(toy, 1)
    rare, test = toy.fine % 2 == 1, toy.splits == "test"
    train = learnt.part("train")
    assert train.frame.loc[train.fine % 2 == 1, "condition"].value_counts().max() == 2
    assert not (learnt.part("validation").fine % 2 == 1).any()
    assert (learnt.splits == toy.splits)[~rare].all()  # the others keep what they have
    assert (asked == (rare & test)).all() and (gallery == test).all()
    unseen = scarce.reduced(0, 2)(toy, 1)[0].part("train")
    assert set(unseen.fine) == set(toy.part("train").fine[toy.part("train").fine % 2 == 0])
    half, asked, gallery = scarce.other_tree(toy, 0)
    assert set(half.part("train").labels(0)) == {0, 2} and (asked == gallery).all()
    assert set(toy.labels(0)[gallery]) == {0, 2}


def test_wrong_labels(toy: CaseTable) -> None:
    wrong, test = scarce.noisy(0.5)(toy, 0)[0], toy.splits == "test"
    changed = wrong.fine != toy.fine
    assert not changed[test].any() and 0.3 < changed[~test].mean() < 0.7
    assert (scarce.noisy(0.0)(toy, 0)[0].fine == toy.fine).all()


def test_a_recipe_is_chosen_on_validation() -> None:
    metrics = [f"{level}_{metric}" for level in ("coarse", "fine") for metric in recipe.METRICS]
    values = {("a", 0): (0.3, 1.0), ("a", 1): (0.1, 2.0), ("a.x", 0): (0.2, 3.0), ("a.x", 1): (0.4, 5.0)}
    rows = [
        {"model": model, "fold": fold, "validation": validation, "seconds": 7.0, **dict.fromkeys(metrics, test)}
        for (model, fold), (validation, test) in values.items()
    ]
    rows.append({**rows[0], "model": "a.half"})  # one fold only: it can't be compared
    cells = " | ".join(["3.000"] * 6)  # of a in fold 0, of a.x in fold 1
    assert recipe.table_of(pd.DataFrame(rows))[-1] == f"| **a**, chosen of 2 | 2 | 0.350 | {cells} | 7 |"


def test_a_recipe_mixes_no_ensembles_and_names_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    single = tmp_path / "single.json"
    single.write_text('[{"model": "vanilla", "fold": "fold-0", "seeds": 1}]')
    given = [str(Path(recipe.__file__).with_suffix(".toml")), str(tmp_path), "--out"]
    for arguments, said in (
        (
            [*given, str(single), "--seeds", "3"],
            "single.json must hold models of --seeds 3, it has {1}: choose another",
        ),
        ([*given, str(tmp_path / "new"), "--only", "vanilla", "variant"], "none is called ['variant']"),
    ):
        with pytest.raises(SystemExit):
            recipe.main(arguments)
        assert said in capsys.readouterr().err


def test_the_six_metrics(toy: CaseTable) -> None:
    embeddings = unit_length(np.random.default_rng(0).normal(size=(len(toy), 8)).astype(np.float32))
    found = recipe.six(embeddings, toy)
    table = EmbeddingTable(embeddings, toy.frame, Provenance())
    assert found["fine_recall_at_1"] == pytest.approx(nearest_is_right(table))
    assert found["coarse_recall_at_1"] > found["fine_recall_at_1"] and set(found) > {"coarse_ami", "fine_map_at_r"}


def nearest_is_right(table: EmbeddingTable) -> float:
    """Fine recall@1 in plain steps: of images that have another case of their condition."""
    similarity = table.embeddings @ table.embeddings.T
    cases, names = table.frame["case_id"].to_numpy(), table.frame["condition"].to_numpy()
    right = []
    for row in range(len(table)):
        others = cases != cases[row]
        if (names[others] == names[row]).any():
            right.append(names[others][similarity[row, others].argmax()] == names[row])
    return float(np.mean(right))


def test_what_answers_are_read_from(toy: CaseTable) -> None:
    """Embeddings and probabilities that know the condition answer every test case rightly."""
    known = np.eye(toy.taxonomy.size(-1), dtype=np.float32)[toy.fine]
    embedded = EmbeddingTable(known, toy.frame, Provenance(), 0.9 * known + 0.1 / known.shape[1])
    by_name, fine = answers.scores_of(embedded, toy.taxonomy)
    assert set(by_name) == {"votes", "votes by their worth", "class probabilities"}
    for scored in by_name.values():
        assert answers.areas(scored[1], fine[1], toy.taxonomy) == [0, 0]
        validation, test = [*answers.counts(scored, fine, toy.taxonomy, 0.5)][1::2][:2]
        assert (validation, test) == (1, 1)


def test_classifiers_by_hand(toy: CaseTable) -> None:
    """Two classifiers that are each sure of one half of the images are right together."""
    few, n = toy.select(np.arange(len(toy)) < 4), toy.taxonomy.size(-1)
    sure, unsure = 0.99 * np.eye(n)[few.fine] + 0.01 / n, np.full((4, n), 1 / n)
    halves = [np.where(np.arange(4)[:, None] < 2, *pair) for pair in ((sure, unsure), (unsure, sure))]
    found = classifiers.product(*halves)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert classifiers.scores(found, few)[:4] == [1, 1, 1, 1]
    wrong = np.eye(n)[(few.fine + n - 1) % n]
    heights = few.taxonomy.lca_height[few.fine, (few.fine + n - 1) % n]
    *right, severity, height, likelihood = classifiers.scores(wrong, few)
    assert right[1] == right[3] == 0 and severity == height == pytest.approx(heights.mean())
    assert likelihood == pytest.approx(np.log(classifiers.LEAST))
