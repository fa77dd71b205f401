"""An index on disk: whole or not at all, whatever happens to the writer, the reader or the disk."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hierderm.artifacts import HEADER
from hierderm.engines import KINDS, Engine
from hierderm.errors import IndexFolderError, OutputError, SearchError
from hierderm.files import file_hash
from hierderm.search.case_index import CaseIndex
from hierderm.search.persistence import writing
from tests.killing import Work, kill_at_every_change
from tests.processes import prepared
from tests.search.toy import TREE, random_table

PARTS = ("vectors", "cases", "taxonomy", "neighbours", "ids")


def ask(index: CaseIndex, k: int = 5) -> object:
    return index.search(random_table(10, seed=8).embeddings, k=k).rows.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_what_was_written(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hierderm.search.gallery as module

    monkeypatch.setattr(module, "EXACT_BELOW", 0)
    index = CaseIndex.from_embeddings(random_table(200), TREE, kind=kind, model="m", image_root="/pics")  # type: ignore[arg-type]
    index.save(tmp_path / "index")
    read = CaseIndex.open(tmp_path / "index")
    assert isinstance(read.vectors, np.memmap)
    assert (read.about, read.provenance, read.taxonomy) == (index.about, index.provenance, index.taxonomy)
    assert ask(read) == ask(index)
    with CaseIndex.updating(tmp_path / "index") as changed:
        changed.add(random_table(20, seed=3, start=900))
        changed.remove(["s0c0", "s900c1"])
    again = CaseIndex.open(tmp_path / "index")
    assert len(again) == 200 + 20 - 4
    assert ask(again) == ask(changed)
    assert ask(read) == ask(index)  # opened before the change: still whole, still the old one
    assert {path.name.split("-")[0] for path in (tmp_path / "index").glob("*-*")} <= set(PARTS)
    assert len(list((tmp_path / "index").glob("*-*"))) == 3 + 2 * (kind != "flat")  # the old files are gone


def test_an_existing_index_is_kept_unless_asked(tmp_path: Path) -> None:
    small, large = (CaseIndex.from_embeddings(random_table(n), TREE) for n in (10, 20))
    small.save(tmp_path / "i")
    with pytest.raises(OutputError, match="holds a hierderm case index folder.*--replace"):
        large.save(tmp_path / "i")
    large.save(tmp_path / "i", replace=True)
    assert len(CaseIndex.open(tmp_path / "i")) == 20


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    CaseIndex.from_embeddings(random_table(10), TREE).save(tmp_path / "i")
    before = sorted(path.name for path in (tmp_path / "i").iterdir())
    with pytest.raises(SearchError, match="not in the index"), CaseIndex.updating(tmp_path / "i") as index:
        index.add(random_table(4, start=50))
        index.remove(["nobody"])
    assert len(CaseIndex.open(tmp_path / "i")) == 10
    assert sorted(path.name for path in (tmp_path / "i").iterdir()) == before


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("fault", ["truncated", "bit", "missing"])
def test_damage_is_named(part: str, fault: str, tmp_path: Path) -> None:
    CaseIndex.from_embeddings(random_table(100), TREE, kind="hnsw").save(tmp_path / "i")
    (path,) = (tmp_path / "i").glob(f"{part}-*")
    content = bytearray(path.read_bytes())
    if fault == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif fault == "bit":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    with pytest.raises(IndexFolderError, match=f"{path.name} is {'missing' if fault == 'missing' else 'damaged'}"):
        CaseIndex.open(tmp_path / "i")


def test_foreign_folders_are_refused_by_reason(tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match="must be a hierderm case index folder, it does not exist"):
        CaseIndex.open(tmp_path / "nothing")
    with pytest.raises(IndexFolderError, match="must be a hierderm case index folder, it has no hierderm.json"):
        CaseIndex.open(tmp_path)
    header = tmp_path / HEADER
    header.write_text("{")
    with pytest.raises(IndexFolderError, match="hierderm.json is damaged"):
        CaseIndex.open(tmp_path)
    header.write_text("[]")
    with pytest.raises(IndexFolderError, match="must be the header of a folder that hierderm wrote"):
        CaseIndex.open(tmp_path)
    header.write_text(json.dumps({"format": "hierderm case index", "version": 99, "files": {}, "content": {}}))
    with pytest.raises(IndexFolderError, match="format version 99, this hierderm reads version 5"):
        CaseIndex.open(tmp_path)
    with pytest.raises(IndexFolderError, match="it does not exist"), CaseIndex.updating(tmp_path / "nothing"):
        pass
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("name", ["thesis.doc", "cases-2024.csv", "vectors-1.npy", "taxonomy-mine.csv"])
@pytest.mark.parametrize("replace", [False, True])
def test_what_is_not_of_an_index_is_refused_and_stays(name: str, replace: bool, tmp_path: Path) -> None:
    index = CaseIndex.from_embeddings(random_table(4), TREE)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("mine")
    with pytest.raises(OutputError, match=rf"files that hierderm did not write \({name}\). Choose another path"):
        index.save(tmp_path / "mine", replace=replace)
    with pytest.raises(OutputError, match="must be a folder to write, it is a file"):
        index.save(tmp_path / "mine" / name, replace=replace)
    index.save(tmp_path / "i")
    (tmp_path / "i" / name).write_text("mine")
    with pytest.raises(OutputError, match=rf"besides those of its case index \({name}\)"):
        index.save(tmp_path / "i", replace=replace)
    with CaseIndex.updating(tmp_path / "i") as changed:  # beside it, an index can still grow
        changed.add(random_table(4, start=50))
    assert (tmp_path / "mine" / name).read_text() == (tmp_path / "i" / name).read_text() == "mine"


def save_small(folder: Path) -> None:
    CaseIndex.from_embeddings(random_table(20), TREE).save(folder)


def save_large(folder: Path) -> None:
    CaseIndex.from_embeddings(random_table(40), TREE).save(folder, replace=True)


def add_four(folder: Path) -> None:
    with CaseIndex.updating(folder) as index:
        index.add(random_table(4, start=50))


@pytest.mark.together("processes")
@pytest.mark.parametrize(("act", "size"), [(save_large, 40), (add_four, 24)])
def test_whatever_the_moment_of_a_kill_the_index_is_the_old_or_the_new(act: Work, size: int, tmp_path: Path) -> None:
    paths = kill_at_every_change(tmp_path, save_small, act)
    sizes = [len(CaseIndex.open(path)) for path in paths]
    assert sizes == sorted(sizes) and sizes.count(20) > 3 and sizes.count(size) > 2
    assert {20, size} == set(sizes)
    for path in paths:
        save_large(path)
        assert len(CaseIndex.open(path)) == 40
        assert len([name for name in path.iterdir() if not name.name.startswith(".")]) == 4  # with the header
        assert len(CaseIndex.open(path)) == 40


@pytest.mark.together("processes")
def test_a_killed_build_is_named_and_can_be_done_again(tmp_path: Path) -> None:
    paths = kill_at_every_change(tmp_path, None, save_small)
    for path in paths:
        if not (path / HEADER).exists() and list(path.glob("vectors-*")):
            with pytest.raises(IndexFolderError, match="its build was killed. Build the index again"):
                CaseIndex.open(path)
            break
    else:
        raise AssertionError("no kill came between the first file and the header")
    for path in paths[:-1]:
        if not (path / HEADER).exists():
            save_small(path)
        assert len(CaseIndex.open(path)) == 20
        save_large(path)


def read_for_a_while(folder: Path, seconds: float, results: mp.Queue[object]) -> None:
    end, sizes = time.monotonic() + seconds, []
    try:
        while time.monotonic() < end:
            index = CaseIndex.open(folder)
            ask(index, k=3)
            sizes.append(len(index))
        results.put(sizes)
    except Exception as error:
        results.put(repr(error))


def add_one_by_one(folder: Path, start: int, n: int) -> None:
    for number in range(n):
        with CaseIndex.updating(folder) as index:
            index.add(random_table(2, seed=number, start=start + 2 * number))


@pytest.mark.together("processes")
def test_two_read_while_two_others_add(tmp_path: Path) -> None:
    folder, context = tmp_path / "i", prepared()
    CaseIndex.from_embeddings(random_table(50), TREE).save(folder)
    results: mp.Queue[object] = context.Queue()
    readers = [context.Process(target=read_for_a_while, args=(folder, 0.8, results)) for _ in range(2)]
    writers = [context.Process(target=add_one_by_one, args=(folder, start, 4)) for start in (1000, 2000)]
    for process in [*readers, *writers]:
        process.start()
    seen = [results.get(timeout=120) for _ in readers]
    for process in [*readers, *writers]:
        process.join(timeout=120)
        assert process.exitcode == 0
    for sizes in seen:
        assert isinstance(sizes, list), sizes
        assert sizes == sorted(sizes) and all((size - 50) % 2 == 0 for size in sizes)
    assert len(CaseIndex.open(folder)) == 50 + 2 * 2 * 4  # nothing is lost


def test_a_second_writer_waits_and_then_says_so(tmp_path: Path) -> None:
    with (
        writing(tmp_path),
        pytest.raises(IndexFolderError, match="has been written by another process for 0.1 s"),
        writing(tmp_path, timeout=0.1),
    ):
        pass


def resealed(folder: Path, part: str, change: Callable[[Path], object]) -> None:
    """Change a file of an index and make its hash anew, as one who means it."""
    header = json.loads((folder / HEADER).read_text())
    name = next(name for name in header["files"] if name.startswith(part))
    change(folder / name)
    header["files"][name] = file_hash(folder / name)
    (folder / HEADER).write_text(json.dumps(header))


def array(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda path: np.save(path, change(np.load(path)))


def rows(**columns: Any) -> Callable[[Path], None]:
    return lambda path: pd.read_parquet(path).assign(**columns).to_parquet(path)


def other_graph(path: Path) -> None:
    Engine.build("hnsw", random_table(10).embeddings[:, :4].copy()).save(path)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("vectors", array(lambda v: np.where(v == v[0, 0], np.nan, v)), "must be finite; 1 row"),
        ("vectors", array(lambda v: 2 * v), "must have unit length, row .* has 2"),
        ("vectors", array(lambda v: v[:-1]), r"must have shape \(n_images, dim\) with n_images = 40 rows"),
        ("vectors", array(lambda v: v.astype(np.float64)), "must hold float32, got float64"),
        ("cases", rows(image_id="i"), "each image_id must come once, i come"),
        ("cases", rows(case_id="a\u202eb"), r"case_id must be text that can be seen, got 'a\\u202eb'"),
        ("cases", rows(condition="warts"), r"condition\(s\) are not in the taxonomy of the index: \['warts'\]"),
        ("cases", lambda path: pd.read_parquet(path).drop(columns="case_id").to_parquet(path), "must have the columns"),
        (
            "neighbours",
            other_graph,
            r"must be a FAISS index of kind 'hnsw' over 40 vectors .* got .* of 10 of length 4",
        ),
        ("ids", array(lambda ids: ids // 2), "with an id each"),
        ("ids", array(lambda ids: ids + 10**9), "with an id each"),
        ("taxonomy", lambda path: path.write_text("no tree"), "taxonomy-"),
    ],
)
def test_what_makes_no_sense_is_refused_although_its_hash_fits(
    part: str, change: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    CaseIndex.from_embeddings(random_table(40), TREE, kind="hnsw").save(tmp_path / "i")
    resealed(tmp_path / "i", part, change)
    with pytest.raises(IndexFolderError, match=message):
        CaseIndex.open(tmp_path / "i")


def test_a_header_is_read_under_a_schema(tmp_path: Path) -> None:
    CaseIndex.from_embeddings(random_table(40), TREE).save(tmp_path / "i")
    header = json.loads((tmp_path / "i" / HEADER).read_text())
    about = header["content"]["about"]
    for change, message in (
        ({"files": {}}, r"'files' must list taxonomy-\*\.csv, it does not"),
        ({"content": {**header["content"], "dim": 9}}, r"it says \(40, 20, 9, "),
        ({"content": {**header["content"], "taxonomy_hash": "0" * 12}}, r"taxonomy are \(40, 20, 8, '"),
        ({"content": {**header["content"], "more": 1}}, "'more' is not known"),
        ({"content": {**header["content"], "about": {**about, "kind": "tree"}}}, "'about.kind' must be 'flat', 'hnsw'"),
        ({"content": {**header["content"], "about": {**about, "recall_at_10": 1.5}}}, "'about.recall_at_10' must be"),
    ):
        (tmp_path / "i" / HEADER).write_text(json.dumps({**header, **change}))
        with pytest.raises(IndexFolderError, match=message):
            CaseIndex.open(tmp_path / "i")
    level = {
        "threshold": 0.5,
        "shares": [0.1, 0.9],
        "accuracies": [0.2, 0.7],
        "n_queries": 9,
        "answered": 5,
        "right": 4,
    }
    for levels, message in (
        ([level], "a rule for each of 2 levels"),
        ([level, {**level, "shares": [0.9, 0.1]}], "with a rising curve"),
        ([level, {**level, "right": 6}], "with a rising curve"),
        ([level, {**level, "threshold": 1.5}], r"'calibration.rule.levels.1.threshold' must be less"),
        ([level, {**level, "accuracies": [0.2]}], "with a rising curve"),
    ):
        worth = {"offset": -3.0, "slope": 5.0}
        calibration = {"k": 5, "temperature": 0.1, "worth": worth, "rule": {"wanted": 0.8, "levels": levels}}
        content = {**header["content"], "calibration": calibration}
        (tmp_path / "i" / HEADER).write_text(json.dumps({**header, "content": content}))
        with pytest.raises(IndexFolderError, match=message):
            CaseIndex.open(tmp_path / "i")


def test_files_of_an_index_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        CaseIndex.from_embeddings(random_table(40), TREE, kind="hnsw").save(tmp_path / "i")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "i").glob("[!.]*")} == {0o640}


def test_ids_that_cannot_be_seen_do_not_enter() -> None:
    table = random_table(4)
    hidden = replace(table, frame=table.frame.assign(image_id=["a", "b", "c", "d\u202e"]))
    with pytest.raises(SearchError, match=r"1 id\(s\) have characters that can't be seen: 'd\\u202e'"):
        CaseIndex.from_embeddings(hidden, TREE)
