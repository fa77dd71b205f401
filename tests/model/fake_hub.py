"""A hub of the calls that hierderm needs, on a port of this machine: what is committed to it can be downloaded."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants


class FakeHub(ThreadingHTTPServer):
    """`repositories`: the files of each, by path; `past`: as they were; `private`: what was asked for when each was made."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.past: dict[tuple[str, str], dict[str, bytes]] = {}  # by name, and commit or tag
        self.private: dict[str, Any] = {}
        self.tokens: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, name: str) -> str:
        return self.commit_of(self.repositories[name])

    @staticmethod
    def commit_of(files: dict[str, bytes]) -> str:
        """A commit is named by the content."""
        return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


@contextmanager
def fake_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[FakeHub]:
    """A hub that huggingface_hub talks to, with an empty cache."""
    with FakeHub() as hub:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        url = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
        Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
        yield hub
        hub.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        hub, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        hub.tokens.append(self.headers.get("Authorization", ""))
        lines = [json.loads(line) for line in body.decode().splitlines()]
        if self.path == "/api/repos/create":
            name = f"{lines[0]['organization']}/{lines[0]['name']}"
            if name.startswith("forbidden/"):
                return self._answer({"error": "no rights in this namespace"}, 403)
            hub.repositories.setdefault(name, {})
            hub.private.setdefault(name, lines[0].get("visibility"))
            return self._answer({"url": f"{hub.endpoint}/{name}"})
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", self.path)
        assert found is not None, self.path
        name, what = found.groups()
        if what == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in lines[0]["files"]
            ]
            return self._answer({"files": files})
        for line in lines[1:]:
            assert line["key"] == "file", line
            hub.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commit = hub.commit(name)
        hub.past[name, commit] = dict(hub.repositories[name])
        return self._answer({"commitUrl": f"{hub.endpoint}/{name}/commit/{commit}", "commitOid": commit})

    def do_GET(self) -> None:
        if self.path == "/":  # is it there?
            return self._answer({}, 200)
        if self.path.startswith("/api/models/"):
            return self._answer({}, 404, {"X-Error-Code": "RepoNotFound"})
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        assert found is not None, self.path
        name, revision, path = found.groups()
        if name not in self.server.repositories:
            return self._answer({}, 404, {"X-Error-Code": "RepoNotFound"})
        files = self.server.repositories[name]
        if revision not in ("main", self.server.commit(name)):
            if (name, revision) not in self.server.past:
                return self._answer({}, 404, {"X-Error-Code": "RevisionNotFound"})
            files = self.server.past[name, revision]
        headers = {"X-Repo-Commit": self.server.commit_of(files)}
        content = files.get(path)
        if content is None:
            return self._answer({}, 404, {"X-Error-Code": "EntryNotFound", **headers})
        return self._answer(content, headers={"ETag": f'"{hashlib.sha1(content).hexdigest()}"', **headers})

    do_HEAD = do_GET
