"""A table that is embedded in shards is that of one process, and the join says what is wrong with any shard."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hierderm.artifacts import read_header
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import EmbeddingError
from hierderm.training import features
from tests.cli.commands import fails, run


@pytest.fixture(scope="module")
def source(toy_folder: Path, small_siglip: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """A command up to its output: 20 images, of which one can't be read and one has an unknown condition."""
    place = tmp_path_factory.mktemp("table")
    frame = pd.read_csv(toy_folder / "cases.csv", dtype=str, keep_default_na=False).head(20)
    frame["image_path"] = [str((toy_folder / name).resolve()) for name in frame["image_path"]]
    frame["fitzpatrick"] = ["2"] * 4 + [""] * 16  # a column that is empty in the last shards
    (place / "damaged.png").write_bytes(b"no image")
    frame.loc[3, "image_path"], frame.loc[12, "condition"] = str(place / "damaged.png"), "Unheard of"
    frame.to_csv(place / "cases.csv", index=False)
    choices = ["--unreadable", "exclude", "--unknown", "exclude"]
    return ["embed", place / "cases.csv", "-m", f"hf:{small_siglip}", "-t", toy_folder / "taxonomy.csv", *choices]


@pytest.fixture(scope="module")
def whole(source: list[object], tmp_path_factory: pytest.TempPathFactory) -> EmbeddingTable:
    out = tmp_path_factory.mktemp("whole") / "e"
    run(*source, "-o", out)
    return EmbeddingTable.load(out)


@pytest.fixture(scope="module")
def sharded(source: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The place of shards of 7, 7 and 6 rows."""
    out = tmp_path_factory.mktemp("sharded") / "e"
    for number in (3, 1, 2):
        assert f"e.{number}-of-3: 6 embeddings of length 32" in run(*source, "-o", out, "--shard", f"{number}/3")
    return out


@pytest.fixture
def out(sharded: Path, tmp_path: Path) -> Path:
    for folder in sharded.parent.glob("e.*-of-3"):
        shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path / "e"


def require_same(found: EmbeddingTable, expected: EmbeddingTable) -> None:
    pd.testing.assert_frame_equal(found.frame, expected.frame)
    assert found.provenance == expected.provenance
    np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=1e-6)


def test_the_joined_table_is_that_of_one_process(
    source: list[object], whole: EmbeddingTable, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(whole) == 18
    assert f"{out}: 18 embeddings of length 32" in run(*source, "-o", out, "--join")
    require_same(EmbeddingTable.load(out), whole)
    assert "e.2-of-3: 6 embeddings, embedded before" in run(*source, "-o", out, "--shard", "2/3")


def test_a_shard_that_was_stopped_goes_on(
    source: list[object], whole: EmbeddingTable, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(out.with_name("e.2-of-3"))
    computed, counts = features._computed, list[int]()

    def stopped(found: Any, view: Any, rows: list[int]) -> Iterator[Any]:
        counts.append(len(rows))
        for row in rows[: 4 if len(counts) == 1 else None]:
            yield from computed(found, view, [row])
        if len(counts) == 1:
            raise InterruptedError

    monkeypatch.setattr(features, "_computed", stopped)
    with pytest.raises(InterruptedError):
        run(*source, "-o", out, "--shard", "2/3")
    message = fails(*source, "-o", out, "--join")
    assert "shard(s) 2/3 are missing: give the same command with --shard 2/3 in place of --join" in message
    run(*source, "-o", out, "--shard", "2/3")
    assert counts == [6, 2]  # 7 rows, of which one is left out
    run(*source, "-o", out, "--join")
    require_same(EmbeddingTable.load(out), whole)
    assert not [path.name for path in out.parent.iterdir() if path.name.endswith(".features")]


def test_all_that_is_wrong_is_said_at_once(source: list[object], out: Path) -> None:
    shutil.rmtree(out.with_name("e.1-of-3"))
    damaged = out.with_name("e.2-of-3") / "embeddings.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    part = EmbeddingTable.load(out.with_name("e.3-of-3"))
    key = read_header(out.with_name("e.3-of-3"), "embeddings").content["key"]
    part.select(np.arange(6) > 0).save(out.with_name("e.3-of-3"), replace=True, key={**key, "table": "0" * 12})
    message = fails(*source, "-o", out, "--join")
    for what in (
        r"e can't be joined:\n  shard\(s\) 1/3 are missing",
        "\n  shard 2/3 is damaged: .*embeddings.npy is damaged: its checksum differs",
        "\n  shard 3/3: its table is '000000000000', not '[0-9a-f]{12}'. Embed it again, with --replace.",
        "\n  shard 3/3 must be of 6 rows of the table, it is of 5.",
    ):
        assert re.search(what, message), message
    assert not out.exists()


def test_a_shard_of_another_model_or_of_other_rows(source: list[object], out: Path, sharded: Path) -> None:
    folder = out.with_name("e.2-of-3")
    part, header = EmbeddingTable.load(folder), read_header(folder, "embeddings")
    key = header.content["key"]
    other = EmbeddingTable(part.embeddings, part.frame, part.provenance.__class__(model="x", weights_hash="f" * 12))
    other.save(folder, replace=True, key=key)
    with pytest.raises(EmbeddingError, match="shard 2/3: its weights_hash is 'ffffffffffff', not '[0-9a-f]{12}'"):
        raise EmbeddingError(fails(*source, "-o", out, "--join"))
    first = EmbeddingTable.load(out.with_name("e.1-of-3"))
    first.save(folder, replace=True, key=key)
    assert "images are not there once, in the table's order: " in fails(*source, "-o", out, "--join")
    strange = part.frame.assign(image_id=[f"strange-{number}" for number in range(len(part))])
    EmbeddingTable(part.embeddings, strange, part.provenance).save(folder, replace=True, key=key)
    assert "6 image(s) are not in the table: strange-0, " in fails(*source, "-o", out, "--join")


def test_a_file_in_two_splits_of_two_shards(source: list[object], out: Path) -> None:
    """Which no shard can see by itself."""
    parts = {number: EmbeddingTable.load(out.with_name(f"e.{number}-of-3")) for number in (1, 2, 3)}
    for number, part in parts.items():
        key = read_header(out.with_name(f"e.{number}-of-3"), "embeddings").content["key"]
        frame = part.frame.assign(split="test" if number == 3 else "train")
        if number == 3:
            frame.loc[5, "image_hash"] = parts[1].frame["image_hash"][0]
        replace(part, frame=frame).save(out.with_name(f"e.{number}-of-3"), replace=True, key=key)
    first, last = parts[1].frame["image_id"][0], parts[3].frame["image_id"][5]
    expected = (
        f"row of {last}: image '{last}' (test) has the file of image '{first}' (train, row {first}); a photograph"
    )
    assert expected in fails(*source, "-o", out, "--join")


def test_shards_of_two_numbers_and_none(source: list[object], out: Path, tmp_path: Path) -> None:
    shutil.copytree(out.with_name("e.1-of-3"), out.with_name("e.1-of-4"))
    message = fails(*source, "-o", out, "--join")
    assert "must have shards of one number beside it, there are shards of 3, 4: delete those of the other" in message
    assert "beside it, there are none." in fails(*source, "-o", tmp_path / "other", "--join")


def test_what_does_not_go_together(source: list[object], tmp_path: Path) -> None:
    assert "give one of them" in fails(*source, "-o", tmp_path / "e", "--join", "--shard", "1/2")
    assert "leaves out whole cases" in fails(*source, "-o", tmp_path / "e", "--shard", "1/2", "--external", "exclude")
    assert "got 20 rows and 21 shards" in fails(*source, "-o", tmp_path / "e", "--shard", "1/21")


def test_the_number_of_a_process(
    source: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("RANK", "9"), ("WORLD_SIZE", "10")):
        monkeypatch.setenv(name, value)
    assert "e.10-of-10: 2 embeddings" in run(*source, "-o", tmp_path / "e", "--shard", "auto")
