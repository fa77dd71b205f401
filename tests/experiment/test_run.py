"""A run's folder: its data, what training writes to it, and reading it back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hierderm.artifacts import HEADER
from hierderm.config.loading import with_overrides
from hierderm.config.settings import Config, DataConfig, SplitConfig
from hierderm.data.table import CaseTable
from hierderm.errors import CaseTableError, CheckpointError, ConfigError, EmbeddingError, ModelError, OutputError
from hierderm.evaluation.evaluation import evaluate
from hierderm.experiment.cases import load_cases
from hierderm.experiment.run import Run, differences, prepare, train
from hierderm.files import is_temporary, locked
from hierderm.model.loading import load
from hierderm.training.features import FeatureStore
from tests.data.loaders.miniatures import write_isic

QUICK = {"training.method": "tree_lda", "training.views": 1, "training.folds": 0}


# --- data ---


def test_published_data_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    isic, run = tmp_path / "isic", tmp_path / "run"
    n_images = write_isic(isic)
    data = DataConfig(cases=f"isic:{isic}")
    table, report = prepare(data, SplitConfig(), run)
    assert len(table) == n_images and report is not None
    assert table.taxonomy.names(0) == ("Benign", "Malignant")  # of the loader's tree, what occurs
    assert [str(fault) for fault in table.excluded] == ["ISIC_9999999: left out: image(s) without a diagnosis"]
    assert "left out: 1 image(s) without a diagnosis: ISIC_9999999" in caplog.text
    assert prepare(data, SplitConfig(), run)[0].frame.equals(table.frame)
    metadata = isic / "metadata.csv"
    metadata.write_text(metadata.read_text(encoding="utf-8").replace("IL_0000001", "IL_0000002"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"on other data or another split: inputs\..*metadata\.csv was"):
        prepare(data, SplitConfig(), run)
    with pytest.raises(ConfigError, match=r"'isik:x' is no table; LOADER:FOLDER needs a loader of .* Closest: 'isic'"):
        prepare(DataConfig(cases="isik:x"), SplitConfig(), tmp_path / "other")


def test_choices_that_leave_rows_out_are_listed(toy_config: Config, tmp_path: Path) -> None:
    config = with_overrides(toy_config, {"data.min_images": 8})
    table, report = prepare(config.data, config.split, tmp_path)
    assert report is not None
    assert min(table.image_counts().values()) >= 8
    listed = json.loads((tmp_path / "excluded.json").read_text())
    assert len(listed) == len(load_cases(toy_config.data, tmp_path)) - len(table) > 0
    none_left = with_overrides(toy_config, {"data.min_images": 999})
    with pytest.raises(ConfigError, match="no condition is left .* the largest has"):
        prepare(none_left.data, none_left.split, tmp_path / "x")


def test_edited_input_and_foreign_files_are_noticed(toy_config: Config, toy_folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(toy_folder, mine)
    config = with_overrides(toy_config, {"data.cases": str(mine / "cases.csv")})
    prepare(config.data, config.split, tmp_path / "run")
    with (mine / "cases.csv").open() as handle:
        lines = handle.readlines()
    (mine / "cases.csv").write_text("".join(lines[:-1]))
    with pytest.raises(ConfigError, match="holds results on other data"):
        prepare(config.data, config.split, tmp_path / "run")
    with pytest.raises(OutputError, match="mine must be a hierderm run folder, it is a synthetic data folder"):
        prepare(config.data, config.split, mine)
    (mine / HEADER).unlink()
    with pytest.raises(OutputError, match=r"mine holds files that hierderm did not write \(cases\.csv"):
        prepare(config.data, config.split, mine)


def test_data_that_are_not_named(toy_config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown built-in data 'synthetic:dem'. Closest: 'demo'"):
        load_cases(DataConfig(cases="synthetic:dem"), tmp_path)
    with pytest.raises(ConfigError, match=r"data\.taxonomy must name a taxonomy"):
        load_cases(DataConfig(cases=toy_config.data.cases), tmp_path)


def test_a_split_of_the_table_is_kept(toy_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table, _ = prepare(toy_config.data, toy_config.split, tmp_path / "one")
    files = {f"data.{name}": str(tmp_path / "one" / f"{name}.csv") for name in ("cases", "taxonomy")}
    own = with_overrides(toy_config, {**files, "split.seed": 5})
    again, report = prepare(own.data, own.split, tmp_path / "two")
    assert report is None
    assert again.split_hash == table.split_hash
    unread = "split.test_fraction, split.validation_fraction, split.seed"
    assert f"So {unread} is not read: set split.reuse = false to divide anew." in caplog.messages


# --- the run ---


def test_what_a_run_folder_holds(toy_config: Config, toy: CaseTable, tmp_path: Path) -> None:
    """A table that lies elsewhere is written to the run, so its folder says all there is to know."""
    config = with_overrides(toy_config, QUICK)
    run = train(config, toy, tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir() if not is_temporary(path.name)}
    assert names == {
        "cases.csv", "config.toml", "environment.json", "excluded.json", "features", "finished.json",
        "hierderm.json", "history.csv", "model", "run.json", "taxonomy.csv",
    }  # fmt: skip
    opened = Run.open(tmp_path / "run")
    assert (opened.config, opened.chosen, opened.seconds) == (config, run.chosen, run.seconds)
    pd.testing.assert_frame_equal(opened.history, run.history)
    assert opened.taxonomy == toy.taxonomy and opened.table.split_hash == toy.split_hash
    assert [path.resolve() for path in opened.table.paths] == [path.resolve() for path in toy.paths]
    embedded = opened.embeddings()
    assert list(embedded.frame["image_id"]) == list(toy.frame["image_id"])
    assert embedded.provenance.model == "toy" and embedded.provenance.split_hash == toy.split_hash
    np.testing.assert_array_equal(Run.open(tmp_path / "run").embeddings().embeddings, embedded.embeddings)


def test_a_run_is_what_its_settings_are_but_for_name_and_evaluation(
    toy_config: Config, toy: CaseTable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = with_overrides(toy_config, QUICK)
    train(config, toy, tmp_path)
    caplog.set_level("INFO")
    train(with_overrides(config, {"name": "other", "evaluation.bootstrap_rounds": 3}), toy, tmp_path)
    assert "other: already trained." in caplog.messages
    train(with_overrides(config, {"backbone.engine": "torch"}), toy, tmp_path)
    assert caplog.messages[-1] == "toy: already trained."
    with pytest.raises(CheckpointError, match=r"holds another run: backbone\.precision was 32, now bf16\. "):
        train(with_overrides(config, {"backbone.precision": "bf16"}), toy, tmp_path)
    with pytest.raises(CheckpointError, match=r"holds another run: training\.strengths was \[.*\], now \[1\.0\]\. "):
        train(with_overrides(config, {"training.strengths": [1.0]}), toy, tmp_path)
    with pytest.raises(
        CheckpointError, match=r"training\.method was tree_lda, now gradient; .*training.epochs was not"
    ):
        train(toy_config, toy, tmp_path)
    with pytest.raises(CheckpointError, match=r"another run: table_hash was \w{12}, now \w{12}; taxonomy_hash was "):
        train(config, toy.with_taxonomy(toy.taxonomy.keep(toy.taxonomy.names()[:5])), tmp_path)


def test_two_do_not_train_in_one_folder(toy_config: Config, toy: CaseTable, tmp_path: Path) -> None:
    config = with_overrides(toy_config, QUICK)
    busy = r"run is being trained by another process\. Wait until it has ended, or choose another --out\."
    with locked(tmp_path / "run" / "training"), pytest.raises(CheckpointError, match=busy):
        train(config, toy, tmp_path / "run")
    train(config, toy, tmp_path / "run")
    with locked(tmp_path / "run" / "training"):
        train(config, toy, tmp_path / "run")  # finished: nothing is written


def test_an_unfinished_folder_is_no_run(toy_config: Config, toy: CaseTable, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="must be the folder of a finished run, it has no finished.json"):
        Run.open(tmp_path)
    train(with_overrides(toy_config, QUICK), toy, tmp_path)
    (tmp_path / "cases.csv").write_text((tmp_path / "cases.csv").read_text().replace(",train", ",test"))
    with pytest.raises(
        CheckpointError, match=r"cases.csv was changed: its rows, labels, splits or image files are not"
    ):
        _ = Run.open(tmp_path).table


def test_planted_changes_of_labels_and_images_are_noticed(toy_config: Config, toy_folder: Path, tmp_path: Path) -> None:
    mine, folder = tmp_path / "mine", tmp_path / "run"
    shutil.copytree(toy_folder, mine)
    config = with_overrides(toy_config, {**QUICK, "data.cases": str(mine / "cases.csv")})
    table = prepare(config.data, config.split, folder)[0]
    embedded = train(config, table, folder).embeddings()
    text = (folder / "cases.csv").read_text()

    def refused(match: str, error: type[Exception] = CheckpointError) -> None:
        with pytest.raises(error, match=match):
            _ = Run.open(folder).table
        with pytest.raises(error, match=match):
            prepare(config.data, config.split, folder)

    name, other = table.frame["condition"].unique()[:2]
    (folder / "cases.csv").write_text(text.replace(f",{name},", f",{other},", 1))
    refused("cases.csv was changed: its rows, labels")
    (folder / "cases.csv").write_text(text)
    image, content = table.paths[0], table.paths[0].read_bytes()
    with Image.open(image) as original:
        original.transpose(Image.Transpose.ROTATE_90).save(image)
    refused(f"image '{table.frame['image_id'][0]}' was replaced since the table was made", CaseTableError)
    pd.read_csv(folder / "cases.csv", dtype=str).drop(columns="image_hash").to_csv(folder / "cases.csv", index=False)
    refused("cases.csv was changed")
    image.write_bytes(content)  # the images are those of the run again, the column of hashes is not needed
    np.testing.assert_array_equal(Run.open(folder).embeddings().embeddings, embedded.embeddings)


def test_kept_embeddings_of_other_images_are_made_again(toy_config: Config, toy: CaseTable, tmp_path: Path) -> None:
    run = train(with_overrides(toy_config, QUICK), toy, tmp_path)
    embedded = run.embeddings()
    moved = replace(embedded, embeddings=np.ascontiguousarray(embedded.embeddings[::-1]))
    moved.save(tmp_path / "embeddings", replace=True, key={"table": "that of other images"})
    np.testing.assert_array_equal(run.embeddings().embeddings, embedded.embeddings)


def test_runs_share_a_store_of_features(toy_config: Config, toy: CaseTable, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "features")
    for name, method in (("a", "tree_lda"), ("b", "lda"), ("c", "vanilla")):
        settings = {"training.method": method} if method == "vanilla" else {**QUICK, "training.method": method}
        if method == "lda":
            settings.pop("training.folds")
        train(with_overrides(toy_config, settings), toy, tmp_path / name, store).embeddings(store)
    assert len(list(store.folder.glob("*.npy"))) == 2  # all images, and the view of training
    assert not any((tmp_path / name / "features").exists() for name in "abc")


@pytest.mark.filterwarnings("ignore::hierderm.errors.EvaluationWarning")
def test_a_model_of_mirror_images_keeps_them(toy_config: Config, toy: CaseTable, tmp_path: Path) -> None:
    run = train(with_overrides(toy_config, QUICK), toy, tmp_path / "plain")
    mirrored = train(with_overrides(run.config, {"backbone.mirrors": True}), toy, tmp_path / "mirrored")
    with Image.open(toy.paths[0]) as image:
        turned = [image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
        one, other = load(mirrored.folder / "model").encode(turned)
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert np.abs(np.subtract(*run.encoder.encode(turned))).max() > 1e-3
    assert mirrored.encoder.provenance.weights_hash != run.encoder.provenance.weights_hash


@pytest.mark.filterwarnings("ignore::hierderm.errors.EvaluationWarning")
def test_a_model_of_views_keeps_them_and_learns_from_single_images(
    toy_config: Config, toy: CaseTable, tmp_path: Path
) -> None:
    store = FeatureStore(tmp_path / "features")
    run = train(with_overrides(toy_config, QUICK), toy, tmp_path / "plain", store)
    viewed = train(with_overrides(run.config, {"backbone.views": 2}), toy, tmp_path / "viewed", store)
    assert len(list(store.folder.glob("*.npy"))) == 3  # images with and without views, and the one view of training
    model = load(viewed.folder / "model")
    np.testing.assert_allclose(
        model.encode(toy.paths[:2]), viewed.embeddings(store).embeddings[:2], atol=1e-5
    )  # of files, and of cached features
    assert model.provenance.preprocessing_hash != run.encoder.provenance.preprocessing_hash
    with pytest.raises(ModelError, match=r"changed copies of an image, .*--backbone\.views 0 to export"):
        model.export(tmp_path / "model.onnx")


@pytest.mark.filterwarnings("ignore:.*have images of one node")  # few images
@pytest.mark.filterwarnings("ignore:.* have a twin")  # two epochs from random weights: some vectors are alike
def test_a_model_of_another_split_is_refused(toy_config: Config, tmp_path: Path) -> None:
    config = with_overrides(toy_config, QUICK)
    table, _ = prepare(config.data, config.split, tmp_path / "one")
    embeddings = train(config, table, tmp_path / "one").embeddings()
    other = with_overrides(config, {"split.seed": 7})
    moved, _ = prepare(other.data, other.split, tmp_path / "two")
    with pytest.raises(EmbeddingError, match="the model was trained on split .* test cases may be among"):
        evaluate(embeddings, moved, moved.taxonomy, config=other.evaluation)
    evaluation = evaluate(embeddings, table, table.taxonomy, config=config.evaluation)
    assert evaluation.n_images == (table.splits == "test").sum()
    vanilla = with_overrides(config, {"training.method": "vanilla"})
    learnt_nothing = train(vanilla, table, tmp_path / "vanilla").embeddings()
    assert evaluate(learnt_nothing, moved, moved.taxonomy, config=other.evaluation).n_images > 0


NESTED = st.recursive(st.integers(0, 2), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3))


@given(st.dictionaries(st.sampled_from("abc"), NESTED), st.sampled_from("abcd"))
def test_differences_name_exactly_what_differs(before: dict[str, Any], key: str) -> None:
    now = {**json.loads(json.dumps(before)), key: 7}
    assert differences(before, {**before}) == []
    assert differences(before, now) == [f"{key} was {before.get(key, 'not set')}, now 7"]
    assert differences({"training": before}, {"training": now}) == [f"training.{t}" for t in differences(before, now)]
