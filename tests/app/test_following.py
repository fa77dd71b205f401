"""The page follows the folder of its index: what is withdrawn is gone, and a running search keeps what it began with."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

import hierderm.app.following as following
import hierderm.app.routes as routes
from hierderm import columns as c
from hierderm.app.gallery_map import GalleryMap
from hierderm.app.server import create_app
from hierderm.artifacts import HEADER
from hierderm.embeddings import EmbeddingTable
from hierderm.search.case_index import CaseIndex
from hierderm.search.finder import CaseFinder

PATIENCE = 10.0  # seconds; a quiet machine takes less than one


def quick_map(index: CaseIndex) -> GalleryMap:
    rows = np.arange(len(index))
    return GalleryMap(index.gallery, rows, np.zeros((len(rows), 2)), np.asarray(index.vectors))


@pytest.fixture
def folder(toy_index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_index, tmp_path / "index"))


@pytest.fixture
def client(folder: Path, finder: CaseFinder, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(following, "make_map", quick_map)
    with TestClient(create_app(CaseFinder.open(folder, model=finder.encoder))) as opened:
        yield opened


def soon(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE
    while not (held := holds()) and time.monotonic() < until:
        time.sleep(0.02)
    return held


def images(client: TestClient) -> int:
    return int(client.get("/api/info").json()["images"])


def ask(client: TestClient, image_id: str, **fields: Any) -> Any:
    return client.post("/api/search", data={"image_id": image_id, **fields}, files={"none": (None, "")})


def test_a_withdrawn_case_is_gone_from_everything(client: TestClient, folder: Path) -> None:
    frame = CaseIndex.open(folder).frame
    case_id, image_id, other = str(frame[c.CASE_ID].iloc[0]), str(frame[c.IMAGE_ID].iloc[0]), frame.iloc[-1][c.IMAGE_ID]
    first = client.get("/api/info").headers["index-generation"]
    shown = client.get("/api/image", params={"image_id": image_id})
    assert shown.status_code == 200 and shown.headers["cache-control"] == "no-store"  # no copy outlives the case
    assert case_id in {hit["case_id"] for hit in ask(client, other, k=100).json()["hits"]}
    with CaseIndex.updating(folder) as index:
        index.remove([case_id])
    assert soon(lambda: images(client) == len(index))
    for answer in (
        client.get("/api/image", params={"image_id": image_id}),
        client.get("/api/case", params={"image_id": image_id}),
        ask(client, image_id),
    ):
        assert answer.status_code == 422 and f"has no image '{image_id}'" in answer.json()["error"]
    assert case_id not in {hit["case_id"] for hit in ask(client, other, k=100).json()["hits"]}
    assert image_id not in client.get("/api/map").json()["images"]
    info = client.get("/api/info")
    assert info.headers["index-generation"] == info.json()["generation"] != first


def test_added_and_replaced(client: TestClient, folder: Path, finder: CaseFinder) -> None:
    before = images(client)
    with CaseIndex.updating(folder) as index:
        row = index.frame.iloc[[0]].assign(image_id="new", case_id="new")
        index.add(EmbeddingTable(np.asarray(index.vectors[:1]), row, index.provenance))
    assert soon(lambda: images(client) == before + 1)
    assert client.get("/api/case", params={"image_id": "new"}).json()["case_id"] == "new"
    finder.index.save(folder, replace=True)
    assert soon(lambda: images(client) == before)
    assert client.get("/api/case", params={"image_id": "new"}).status_code == 422


def test_the_model_is_loaded_once_while_the_index_keeps_it(folder: Path, small_siglip: Path) -> None:
    opened = CaseFinder.open(folder)
    assert opened.reopened().encoder is not opened.encoder  # none was loaded yet
    assert opened.reopened().encoder is opened.encoder


def test_a_damaged_generation_keeps_the_old(client: TestClient, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = images(client)
    whole = (folder / HEADER).read_text(encoding="utf-8")
    (folder / HEADER).write_text("{}", encoding="utf-8")
    assert soon(lambda: "can't be opened, so the page keeps the index it had" in caplog.text)
    assert images(client) == before
    (folder / HEADER).write_text(whole, encoding="utf-8")
    with CaseIndex.updating(folder) as index:  # a later one that is whole is taken
        index.remove([str(index.frame[c.CASE_ID].iloc[0])])
    assert soon(lambda: images(client) == len(index))


def test_a_deleted_index_is_not_served(client: TestClient, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    aside = folder.rename(folder.with_name("aside"))
    assert soon(lambda: client.get("/api/info").status_code == 503)
    refused = client.get("/api/info")
    assert "the index has been deleted on the server" in refused.json()["error"] and refused.headers["retry-after"]
    assert ask(client, "x").status_code == 503
    assert client.get("/api/image", params={"image_id": "x"}).status_code == 503
    assert client.get("/api/map").status_code == 503
    assert f"{folder} has no index any more" in caplog.text
    aside.rename(folder)
    assert soon(lambda: client.get("/api/info").status_code == 200)


def test_a_running_search_keeps_its_generation(
    client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    frame, begun, go_on, find = CaseIndex.open(folder).frame, Event(), Event(), routes.find
    case_id, other = str(frame[c.CASE_ID].iloc[0]), str(frame[c.IMAGE_ID].iloc[-1])

    def slow(*arguments: Any) -> Any:
        begun.set()
        assert go_on.wait(PATIENCE)
        return find(*arguments)

    monkeypatch.setattr(routes, "find", slow)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, client, other, k=100)
        assert begun.wait(PATIENCE)
        with CaseIndex.updating(folder) as index:
            index.remove([case_id])
        assert soon(lambda: images(client) == len(index))
        go_on.set()
        assert case_id in {hit["case_id"] for hit in asked.result().json()["hits"]}
    assert case_id not in {hit["case_id"] for hit in ask(client, other, k=100).json()["hits"]}


def test_another_model_that_is_missing_is_not_taken(
    client: TestClient, folder: Path, caplog: pytest.LogCaptureFixture, finder: CaseFinder
) -> None:
    """The page was told which model to use; an index of another one does not fit it."""
    caplog.set_level(logging.ERROR)
    provenance = replace(finder.index.provenance, weights_hash="0" * 12)
    index = finder.index
    other = replace(index, provenance=provenance)
    other.save(folder, replace=True)
    assert soon(lambda: "must come from the model of the index" in caplog.text)
    assert client.get("/api/info").status_code == 200
