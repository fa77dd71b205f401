"""An index on disk: whole or not at all, whatever happens to the writer, the reader or the disk."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hierderm.errors import IndexFolderError, SearchError
from hierderm.search.case_index import CaseIndex
from hierderm.search.engines import KINDS
from hierderm.search.storage import writing
from tests.search.toy import TREE, random_table


def ask(index: CaseIndex, k: int = 5) -> object:
    return index.search(random_table(10, seed=8).embeddings, k=k).rows.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_what_was_written(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hierderm.search.case_index as module

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
    generations = {path.name.split("-")[1].split(".")[0] for path in (tmp_path / "index").glob("*-*")}
    assert generations == {"2"}


def test_an_existing_index_is_kept_unless_asked(tmp_path: Path) -> None:
    small, large = (CaseIndex.from_embeddings(random_table(n), TREE) for n in (10, 20))
    small.save(tmp_path / "i")
    with pytest.raises(IndexFolderError, match="holds an index already.*--replace"):
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


@pytest.mark.parametrize("name", ["vectors-1.npy", "cases-1.parquet", "taxonomy-1.csv", "neighbours-1.faiss"])
@pytest.mark.parametrize("fault", ["truncated", "bit", "missing"])
def test_damage_is_named(name: str, fault: str, tmp_path: Path) -> None:
    CaseIndex.from_embeddings(random_table(100), TREE, kind="hnsw").save(tmp_path / "i")
    path = tmp_path / "i" / name
    content = bytearray(path.read_bytes())
    if fault == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif fault == "bit":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    with pytest.raises(IndexFolderError, match=f"{name} is {'missing' if fault == 'missing' else 'damaged'}"):
        CaseIndex.open(tmp_path / "i")


def test_foreign_folders_are_refused_by_reason(tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match="must be the folder of a case index, it has no index.json"):
        CaseIndex.open(tmp_path / "nothing")
    header = tmp_path / "index.json"
    header.write_text("{")
    with pytest.raises(IndexFolderError, match="index.json is damaged"):
        CaseIndex.open(tmp_path)
    header.write_text("[]")
    with pytest.raises(IndexFolderError, match="is not the header of a hierderm index"):
        CaseIndex.open(tmp_path)
    header.write_text(json.dumps({"format": "hierderm case index", "version": 99}))
    with pytest.raises(IndexFolderError, match="format version 99, this hierderm reads 1"):
        CaseIndex.open(tmp_path)
    header.unlink()
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(IndexFolderError, match=r"holds other files \(thesis.doc\)"):
        CaseIndex.from_embeddings(random_table(4), TREE).save(tmp_path)
    with pytest.raises(IndexFolderError, match="must be a folder for the index, it is a file"):
        CaseIndex.from_embeddings(random_table(4), TREE).save(tmp_path / "thesis.doc")
    with pytest.raises(IndexFolderError, match="has no index.json"), CaseIndex.updating(tmp_path / "nothing"):
        pass
    assert not (tmp_path / "nothing").exists()


BUILDER = """
import sys, time
from pathlib import Path
import hierderm.search.storage as storage
from hierderm.search.case_index import CaseIndex
from tests.search.toy import TREE, random_table
folder, what = Path(sys.argv[1]), sys.argv[2]
def stuck(path):  # all files are there, the header is not
    print("written", flush=True)
    time.sleep(60)
storage.file_hash = stuck
if what == "build":
    CaseIndex.from_embeddings(random_table(20), TREE).save(folder)
else:
    with CaseIndex.updating(folder) as index:
        index.add(random_table(4, start=50))
"""


def kill_while_writing(folder: Path, what: str) -> None:
    if what == "add":  # opening needs real hashes; only the commit must get stuck
        script = BUILDER.replace("storage.file_hash = stuck", "").replace(
            "        index.add(random_table(4, start=50))",
            "        index.add(random_table(4, start=50))\n        storage.file_hash = stuck",
        )
    else:
        script = BUILDER
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), what], stdout=subprocess.PIPE, cwd=root, env=environment
    )
    assert process.stdout is not None and process.stdout.readline() == b"written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_killed_build_is_named_and_can_be_done_again(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    kill_while_writing(folder, "build")
    assert (folder / "vectors-1.npy").is_file()
    with pytest.raises(IndexFolderError, match="its build was killed. Build the index again"):
        CaseIndex.open(folder)
    CaseIndex.from_embeddings(random_table(20), TREE).save(folder)
    assert len(CaseIndex.open(folder)) == 20


def test_a_killed_add_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    CaseIndex.from_embeddings(random_table(20), TREE).save(folder)
    kill_while_writing(folder, "add")
    assert (folder / "vectors-2.npy").is_file()
    assert len(CaseIndex.open(folder)) == 20
    with CaseIndex.updating(folder) as index:
        index.add(random_table(4, start=50))
    assert len(CaseIndex.open(folder)) == 24
    assert not (folder / "vectors-1.npy").exists()


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


def test_two_read_while_two_others_add(tmp_path: Path) -> None:
    folder, context = tmp_path / "i", mp.get_context("spawn")
    CaseIndex.from_embeddings(random_table(50), TREE).save(folder)
    results: mp.Queue[object] = context.Queue()
    readers = [context.Process(target=read_for_a_while, args=(folder, 4.0, results)) for _ in range(2)]
    writers = [context.Process(target=add_one_by_one, args=(folder, start, 8)) for start in (1000, 2000)]
    for process in [*readers, *writers]:
        process.start()
    seen = [results.get(timeout=120) for _ in readers]
    for process in [*readers, *writers]:
        process.join(timeout=120)
        assert process.exitcode == 0
    for sizes in seen:
        assert isinstance(sizes, list), sizes
        assert sizes == sorted(sizes) and all((size - 50) % 2 == 0 for size in sizes)
    assert len(CaseIndex.open(folder)) == 50 + 2 * 2 * 8  # nothing is lost


def test_a_second_writer_waits_and_then_says_so(tmp_path: Path) -> None:
    with (
        writing(tmp_path),
        pytest.raises(IndexFolderError, match="has been written by another process for 0.1 s"),
        writing(tmp_path, timeout=0.1),
    ):
        pass
