"""Who may ask: nobody without the token where one is set, and no page of another site."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from hierderm.app.guard import HEADERS
from hierderm.app.server import create_app
from hierderm.cli.main import app
from hierderm.errors import ConfigError
from hierderm.search.finder import CaseFinder

TOKEN = "kHb0-2c9s_lnQ4xTz"


@pytest.fixture(scope="module")
def client(finder: CaseFinder) -> TestClient:
    return TestClient(create_app(finder))  # without its lifespan: no map is drawn


@pytest.fixture(scope="module")
def closed(finder: CaseFinder) -> TestClient:
    return TestClient(create_app(finder, token=TOKEN))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 422),  # a program: the form is wrong, the sender is not
        ({"sec-fetch-site": "same-origin", "origin": "https://cases.example"}, 422),  # behind a proxy
        ({"sec-fetch-site": "none"}, 422),
        ({"origin": "http://testserver"}, 422),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),  # another port or subdomain
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://testserver:8001"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_posts_of_other_sites_are_refused(client: TestClient, headers: dict[str, str], status: int) -> None:
    answer = client.post("/api/search", files={"none": (None, "")}, headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"].endswith("it comes from a page of another site.")


def test_every_answer_has_the_security_headers(client: TestClient, closed: TestClient) -> None:
    for answer in (client.get("/"), client.get("/api/info"), client.get("/nowhere"), closed.get("/")):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize("path", ["/", "/static/page.js", "/api/info", "/openapi.json", "/nowhere"])
def test_nothing_is_shown_without_the_token(closed: TestClient, path: str) -> None:
    refused = closed.get(path)
    assert refused.status_code == 401 and "this server asks for a token" in refused.json()["error"]
    assert refused.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    "sent",
    [
        "Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, f"Digest {TOKEN}", "Basic !!", "Basic",
        "Basic " + base64.b64encode(TOKEN.encode()).decode(), "Bearer",
    ],
)  # fmt: skip
def test_a_wrong_token_is_refused(closed: TestClient, sent: str) -> None:
    assert closed.get("/api/info", headers={"authorization": sent}).status_code == 401


def test_the_token_opens(closed: TestClient) -> None:
    assert closed.get("/api/info", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert closed.get("/api/info", auth=("anybody", TOKEN)).status_code == 200  # as a browser sends it


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[TestClient]]:
    """The applications that `hierderm serve` would have run."""
    import uvicorn

    apps: list[TestClient] = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **_: apps.append(TestClient(app, base_url="http://127.0.0.1")))
    yield apps


def test_where_the_token_comes_from(
    served: list[TestClient], toy_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    done = CliRunner().invoke(app, ["serve", str(toy_index), "--token-file", str(tmp_path / "token")])
    assert done.exit_code == 0 and "Clients must send the token" in done.stderr
    monkeypatch.setenv("HIERDERM_TOKEN", TOKEN)
    assert CliRunner().invoke(app, ["serve", str(toy_index)]).exit_code == 0
    for client in served:
        assert client.get("/api/info").status_code == 401
        assert client.get("/api/info", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert len(served) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"short", "at least 16 ASCII characters and no spaces, got 5 characters"),
        (b"", "got 0 characters"),
        (b"sixteen letters and more", "no spaces"),
        (b"\xff" * 20, "token: it is not a text file.)"),
        (None, "token: No such file or directory. Check the path.)"),
    ],
)
def test_tokens_that_are_none(
    served: list[TestClient], toy_index: Path, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    done = CliRunner().invoke(app, ["serve", str(toy_index), "--token-file", str(tmp_path / "token")])
    assert isinstance(done.exception, ConfigError) and not served
    assert reason in str(done.exception)


def test_an_empty_variable_is_no_token(
    served: list[TestClient], toy_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was meant as one: serving to everybody instead would be the wrong guess."""
    monkeypatch.setenv("HIERDERM_TOKEN", "")
    done = CliRunner().invoke(app, ["serve", str(toy_index)])
    assert isinstance(done.exception, ConfigError) and "got 0 characters" in str(done.exception) and not served
