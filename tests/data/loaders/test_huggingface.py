from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from hierderm import columns as c
from hierderm.artifacts import claim_folder
from hierderm.data.loaders.huggingface import read_huggingface
from hierderm.errors import CaseTableError, MissingExtraError, OutputError
from tests.data.loaders import miniatures as mini


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def saved(folder: Path, splits: dict[str, list[dict[str, Any]]], **features: Any) -> Path:
    made = datasets.Features({"image": datasets.Image(), **features})
    columns = {split: {name: [row[name] for row in rows] for name in made} for split, rows in splits.items()}
    parts = {split: datasets.Dataset.from_dict(cells, made) for split, cells in columns.items()}
    datasets.DatasetDict(parts).save_to_disk(folder)
    return folder


def test_a_saved_data_set(tmp_path: Path) -> None:
    mini.write_huggingface(tmp_path / "saved")
    images = tmp_path / "images"
    found = read_huggingface(str(tmp_path / "saved"), taxonomy="scin", write_images=images)
    table = found.checked()
    assert table.frame[c.CONDITION].tolist()[:3] == ["Eczema", "Impetigo", "Tinea"]
    assert table.frame[c.CASE_ID].tolist()[:3] == ["0", "1", "2"] and c.SPLIT not in table.frame
    assert table.frame[c.IMAGE_ID].tolist()[:2] == ["train-0", "train-1"]
    assert found.left_out == {"column(s) with several values in a cell": ["boxes"]}
    assert table.paths[4].read_bytes() == (tmp_path / "pictures" / "4.png").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in images.iterdir()}
    claim_folder(tmp_path / "run", "run")
    with pytest.raises(OutputError, match="run must be a hierderm images folder, it is a run folder"):
        read_huggingface(str(tmp_path / "saved"), taxonomy="scin", write_images=tmp_path / "run")
    read_huggingface(str(tmp_path / "saved"), taxonomy="scin", write_images=images)
    assert {path: path.stat().st_mtime_ns for path in images.iterdir()} == times


def test_splits_labels_and_images_that_occur_twice(tmp_path: Path) -> None:
    label = datasets.ClassLabel(names=["Eczema", "Impetigo"])
    rows = [{"image": {"bytes": png(colour), "path": None}, "dx": number, "sex": None} for number, colour in ((0, "red"), (1, "blue"), (0, "green"), (1, "black"))]  # fmt: skip
    train = [*rows[:2], rows[0]]
    place = saved(
        tmp_path / "d", {"train": train, "val": rows[2:3], "test": rows[3:]}, dx=label, sex=datasets.Value("string")
    )
    found = read_huggingface(str(place), taxonomy="scin", write_images=tmp_path / "images")
    frame = found.checked().frame
    assert frame[c.SPLIT].tolist() == ["train", "train", "train", "validation", "test"]
    assert frame[c.CASE_ID].tolist() == ["train-0", "train-1", "train-2", "val-0", "test-0"] and found.counts == {
        "images_that_are_a_case_each": 5
    }
    assert frame[c.IMAGE_PATH].nunique() == 4 and frame["sex"].tolist() == [""] * 5
    named = read_huggingface(
        str(place), taxonomy="scin", write_images=tmp_path / "images", column=["condition=dx", "case_id=dx"]
    )
    assert named.frame[c.CASE_ID].tolist() == ["Eczema", "Impetigo", "Eczema", "Eczema", "Impetigo"]


def test_a_folder_that_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    mini.write_folder(tmp_path / "all")
    for place in (tmp_path / "all").glob("*/*"):
        place.rename(tmp_path / "all" / place.name)
    for empty in ("Eczemas", "Infections"):
        (tmp_path / "all" / empty).rmdir()
    table = read_huggingface(str(tmp_path / "all"), taxonomy="scin", write_images=tmp_path / "images").checked()
    assert table.image_counts() == dict.fromkeys(("Eczema", "Impetigo", "Tinea"), mini.N_CASES)
    assert table.paths[0].is_relative_to(tmp_path / "all")  # files stay where they are


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"taxonomy": "scin", "write_images": tmp_path / "images"}
    row = {
        "image": {"bytes": png("red"), "path": None},
        "other": {"bytes": png("red"), "path": None},
        "label": "Eczema",
    }
    two = saved(tmp_path / "two", {"train": [row]}, other=datasets.Image(), label=datasets.Value("string"))
    with pytest.raises(CaseTableError, match=r"one named by --image; it has \['image', 'other'\]"):
        read_huggingface(str(two), **options)
    assert len(read_huggingface(str(two), image="other", **options).checked()) == 1
    with pytest.raises(CaseTableError, match=r"one named by --image; it has"):
        read_huggingface(str(two), image="no", **options)
    none = saved(
        tmp_path / "none", {"train": [{**row, "image": None}]}, label=datasets.Value("string"), other=datasets.Image()
    )
    with pytest.raises(CaseTableError, match=r"split train, row 0 must have an image, it has none"):
        read_huggingface(str(none), image="image", **options)
    with pytest.raises(CaseTableError, match="must have a row an image, it has none"):
        read_huggingface(str(saved(tmp_path / "empty", {})), **options)
    no_rows = saved(tmp_path / "no-rows", {"train": []}, label=datasets.Value("string"))
    with pytest.raises(CaseTableError, match="is no data set that `datasets` reads: list index out of range"):
        read_huggingface(str(no_rows), **options)
    with pytest.raises(CaseTableError, match="is no data set that `datasets` reads"):
        read_huggingface(str(tmp_path / "nowhere"), **options)
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hierderm\[datasets\]'"):
        read_huggingface(str(two), **options)
