"""A page on the toy's index."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from hierderm.data.table import CaseTable
from hierderm.search.case_index import CaseIndex
from hierderm.search.finder import CaseFinder
from tests.postgres import Server

SECRET = "pl4nted"


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """A real server on a free port; its address."""
    running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join(timeout=30)


@pytest.fixture(scope="session")
def toy_index(toy: CaseTable, small_siglip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of training and validation images, with skin tones made up for the filters."""
    folder = tmp_path_factory.mktemp("app") / "index"
    toned = CaseTable(toy.frame.assign(fitzpatrick=[1 + k % 6 for k in range(len(toy))]), toy.taxonomy, toy.root)
    CaseIndex.build(toned, f"hf:{small_siglip}", splits=("train", "validation"), k=5).save(folder)
    return folder


@pytest.fixture(scope="session")
def finder(toy_index: Path) -> CaseFinder:
    return CaseFinder.open(toy_index)


@pytest.fixture
def writer(server: Server, finder: CaseFinder) -> str:
    address = server.new_database()
    finder.index.save(address)
    return address


@pytest.fixture
def reader(server: Server, writer: str, finder: CaseFinder) -> CaseFinder:
    """A finder as a page has it: with a role that can only read."""
    name = writer.partition("@/")[2].partition("?")[0]
    server.run(writer, f"create role page_{name} login")
    server.run(writer, f"grant usage on schema hierderm to page_{name}")
    server.run(writer, f"grant select on all tables in schema hierderm to page_{name}")
    address = server.address(name, user=f"page_{name}", password=SECRET)
    return CaseFinder.open(address, model=finder.encoder)
