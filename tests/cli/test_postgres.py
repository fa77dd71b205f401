"""index, search and evaluate as they are typed, with an address instead of a folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pandas as pd
import pytest

from hierderm import columns as c
from hierderm.data.table import CaseTable
from hierderm.search.case_index import CaseIndex
from tests.cli.commands import fails, refusal, run
from tests.postgres import Server

SECRET = "s3cret/pass word"


def test_an_index_in_a_database_as_in_a_folder(
    server: Server,
    toy: CaseTable,
    toy_folder: Path,
    small_siglip: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    database = server.new_database()
    address = database.replace("postgres@", f"postgres:{SECRET.replace('/', '%2F').replace(' ', '%20')}@")
    folder, table, test = tmp_path / "index", tmp_path / "cases.csv", toy.part(c.TEST)
    toy.write(table)
    printed = []

    def both(*arguments: object) -> tuple[str, str]:
        shown = [run(*[place if word == "INDEX" else word for word in arguments]) for place in (folder, address)]
        printed.append(shown[1])
        return shown[0].replace(str(folder), "INDEX"), shown[1]

    build = ("index", "build", table, "--model", f"hf:{small_siglip}", "-t", toy_folder / "taxonomy.csv")
    ours, theirs = both(*build, "--splits", "train,validation", "-o", "INDEX")
    assert ours.splitlines()[1:] == theirs.splitlines()[1:] and len(ours.splitlines()) > 5
    ours, theirs = both("index", "info", "INDEX", "--json")
    assert json.loads(ours) == json.loads(theirs)
    ours, theirs = both("search", test.paths[0], "-i", "INDEX", "-k", 3, "--json", "--within", toy.taxonomy.names(0)[0])
    found, true = ([hit["image_id"] for hit in json.loads(text)[0]["hits"]] for text in (theirs, ours))
    assert found == true and len(found) == 3
    printed.append(run("search", test.paths[0], "-i", address, "--html", tmp_path / "sheet.html"))
    ours, theirs = both("evaluate", "--index", "INDEX", "--evaluation.bootstrap_rounds=10")
    assert ours.splitlines()[2:6] == theirs.splitlines()[2:6]

    assert "already" not in fails(*build, "-o", address) and "replace it (--replace)" in fails(*build, "-o", address)
    test.write(tmp_path / "new.csv")
    assert f"{len(test)} images added, now {len(toy)}" in both("index", "add", "INDEX", tmp_path / "new.csv")[1]
    shown = both("index", "verify", "INDEX")[1]
    assert (
        f"tables: {len(toy)} images, {len(set(toy.case_ids))} cases, {len(toy)} vectors" in shown
        and "can be read" in shown
    )
    case = str(test.frame[c.CASE_ID].iloc[0])
    ours, theirs = both("index", "remove", "INDEX", case, "--prove")
    assert "of 1 cases removed" in theirs and "none of their ids" in ours and "none of their ids" in theirs
    assert case not in set(CaseIndex.open(address).frame[c.CASE_ID])
    printed.append(run("index", "export", address, "-o", tmp_path / "index.parquet"))
    assert case not in set(pd.read_parquet(tmp_path / "index.parquet")[c.CASE_ID])
    printed += [fails("search", "--image-id", "nobody", "-i", address), refusal("index", "info", address + "&port=1")]
    everything = "".join(printed) + caplog.text + (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert "s3cret" not in everything and str(database.rpartition("host=")[2]) in everything


def test_a_stream_from_a_folder_of_embeddings(
    server: Server, toy: CaseTable, toy_folder: Path, small_siglip: Path, tmp_path: Path
) -> None:
    toy.write(tmp_path / "cases.csv")
    model = ("--model", f"hf:{small_siglip}", "-t", toy_folder / "taxonomy.csv")
    run("embed", tmp_path / "cases.csv", *model, "-o", tmp_path / "embeddings")
    address = server.new_database()
    stream = ("index", "load", tmp_path / "embeddings", *model)
    shown = run(*stream, "-o", address, "--image-root", toy.root, "--half", "--kind", "hnsw")
    assert (
        f"{len(toy)} images of {len(set(toy.case_ids))} cases" in shown
        and "kind hnsw: recall@10 against exact search" in shown
    )
    assert "can be read" in run("index", "verify", address)
    nothing = fails("index", "load", tmp_path / "nothing", "-o", address)
    assert nothing == f"{tmp_path / 'nothing'} must be a hierderm embeddings folder, it does not exist."
    assert "has an index. Choose another database" in fails(*stream, "-o", address)
    assert "are streamed into a database: -o postgresql://..." in fails(*stream, "-o", tmp_path / "index")
    build = ("index", "build", tmp_path / "cases.csv", *model, "-o", tmp_path / "index", "--half")
    assert "--half goes with -o postgresql://..." in fails(*build)
