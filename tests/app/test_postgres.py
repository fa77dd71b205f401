"""The page on an index in PostgreSQL, with the rights of a reader."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from hierderm import columns as c
from hierderm.app.server import create_app
from hierderm.data.table import CaseTable
from hierderm.search.case_index import CaseIndex
from hierderm.search.finder import CaseFinder
from tests.app.conftest import SECRET
from tests.app.test_following import ask, images, soon
from tests.postgres import Server


@pytest.fixture
def client(reader: CaseFinder) -> Iterator[TestClient]:
    with TestClient(create_app(reader)) as opened:
        yield opened


def test_the_page_follows_the_database(
    client: TestClient,
    writer: str,
    server: Server,
    toy: CaseTable,
    finder: CaseFinder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    first, frame = client.get("/api/info"), CaseIndex.open(writer).frame
    with TestClient(create_app(finder)) as plain:
        same = plain.get("/api/info").json()
    assert {**first.json(), "generation": ""} == {**same, "generation": ""}
    assert first.headers["index-generation"] == first.json()["generation"]
    case_id, image_id, other = (
        str(frame[name].iloc[row]) for name, row in (("case_id", 0), ("image_id", 0), ("image_id", -1))
    )
    with toy.part(c.TEST).paths[0].open("rb") as image:
        found = client.post("/api/search", data={"k": "4"}, files={"image": image}).json()
    assert len(found["hits"]) == 4 and found["missing"] == 0 and found["answer"]["reason"]
    assert client.get("/api/image", params={"image_id": image_id}).headers["content-type"] == "image/jpeg"
    assert client.get("/api/case", params={"image_id": image_id}).json()["case_id"] == case_id
    assert image_id in client.get("/api/map").json()["images"]

    with CaseIndex.updating(writer) as index:
        index.remove([case_id])
    assert ask(client, image_id).status_code == 422  # at once
    assert soon(lambda: client.get("/api/map").status_code == 200)  # until then its rows are not there any more
    assert image_id not in client.get("/api/map").json()["images"]
    assert images(client) == len(index) and case_id not in {
        h["case_id"] for h in ask(client, other, k=100).json()["hits"]
    }
    assert client.get("/api/info").headers["index-generation"] != first.headers["index-generation"]

    server.stop()
    try:
        refused = ask(client, other)
        assert refused.status_code == 503 and refused.headers["retry-after"]
        assert refused.json() == {"error": "the database of the index does not answer. Try again in a few seconds."}
        assert soon(lambda: "so the page keeps the index it had" in caplog.text)
    finally:
        server.start()
    assert soon(lambda: ask(client, other).status_code == 200)
    assert caplog.text.count("so the page keeps the index it had") <= 2  # the connection is lost, and none is made
    assert SECRET not in caplog.text + str(refused.headers) + client.get("/api/info").text
