from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from hierderm import columns as c
from hierderm.data.checks import check_cases
from hierderm.data.seen import Seen, external
from hierderm.data.table import CaseTable
from hierderm.errors import CaseTableError, CheckpointError


@pytest.fixture(scope="module")
def seen(toy: CaseTable) -> Seen:
    return Seen.of(toy)


def foreign(toy: CaseTable, folder: Path) -> CaseTable:
    """Four test cases with ids of their own: the last is a turned copy of a training image."""
    test = toy.part(c.TEST)
    frame = test.frame.groupby(c.CASE_ID).head(1)[:4].reset_index(drop=True)
    frame[c.IMAGE_PATH] = [str(test.root / path) for path in frame[c.IMAGE_PATH]]
    with Image.open(toy.part(c.TRAIN).paths[5]) as image:
        image.transpose(Image.Transpose.ROTATE_90).resize((64, 64)).save(folder / "turned.png")
    frame.loc[3, c.IMAGE_PATH] = str(folder / "turned.png")
    for name in (c.IMAGE_ID, c.CASE_ID):
        frame[name] = "foreign-" + frame[name]
    return check_cases(frame.drop(columns=[c.SPLIT, c.IMAGE_HASH]), toy.taxonomy, folder)


def test_what_was_seen_survives_saving_without_ids_or_images(toy: CaseTable, seen: Seen, tmp_path: Path) -> None:
    seen.save(tmp_path / "seen.safetensors")
    again = Seen.load(tmp_path / "seen.safetensors")
    assert again.cases.tolist() == seen.cases.tolist() and again.files.tolist() == seen.files.tolist()
    np.testing.assert_array_equal(again.images.shapes, seen.images.shapes)
    np.testing.assert_array_equal(again.images.details, seen.images.details)
    assert len(again.images) == (toy.splits != c.TEST).sum()
    content = (tmp_path / "seen.safetensors").read_bytes()
    assert not any(case.encode() in content for case in toy.case_ids)
    assert len(content) < 500 * len(again.images) + 1000


def test_planted_training_images_are_refused_or_left_out(toy: CaseTable, seen: Seen, tmp_path: Path) -> None:
    table = foreign(toy, tmp_path)
    turned = table.frame[c.IMAGE_ID][3]
    with pytest.raises(
        CaseTableError, match=f"has seen; 1 of 4 images:\n  image '{turned}': it is the same photograph as"
    ):
        external(table, seen, "model", "error")
    kept = external(table, seen, "model", "exclude")
    assert kept.frame[c.IMAGE_ID].tolist() == table.frame[c.IMAGE_ID].tolist()[:3]
    assert [fault.where for fault in kept.excluded] == [f"image '{turned}'"]
    assert external(kept, seen, "model", "error").frame.equals(kept.frame)


def test_training_files_and_cases_are_known(toy: CaseTable, seen: Seen) -> None:
    train, test = toy.part(c.TRAIN), toy.part(c.TEST)
    renamed = train.frame[:1].assign(**{c.CASE_ID: "x", c.IMAGE_ID: "x"})
    both = replace(toy, frame=pd.concat([test.frame, renamed], ignore_index=True))
    assert seen.found_in(both) == {len(test): "its file is a training image"}
    same_case = test.frame.assign(**{c.CASE_ID: [*test.case_ids[:-1], train.case_ids[0]]})
    found = seen.found_in(replace(toy, frame=same_case))
    assert found == {len(test) - 1: f"case_id '{train.case_ids[0]}' is that of a training case"}
    with pytest.raises(CaseTableError, match="no case is left: model has seen something of each"):
        external(train, seen, "model", "exclude")
    with pytest.raises(CheckpointError, match="tiny does not record what it was trained on"):
        external(test, None, "tiny", "error")


def test_damage_is_named(seen: Seen, tmp_path: Path) -> None:
    path = tmp_path / "seen.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is damaged"):
        Seen.load(path)
    seen.save(path)
    whole = load_file(path)
    for broken in (
        {name: array for name, array in whole.items() if name != "files"},
        {**whole, "files": whole["files"][:-1]},
        {**whole, "shapes": np.full_like(whole["shapes"], np.nan)},
        {**whole, "details": whole["details"].astype(np.int64)},
    ):
        save_file(broken, path)
        with pytest.raises(CheckpointError, match="must hold what the model has seen"):
            Seen.load(path)
