"""The Dockerfile: its packages are enough to serve an index, and its commands and files are there. It is not built."""

from __future__ import annotations

import http.client
import json
import re
import shlex
import socket
import subprocess
import sys
import time
import tomllib
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hierderm.data.table import CaseTable
from hierderm.search.case_index import CaseIndex

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
# Any package that is installed here and not in the image can't be imported.
ONLY = """
import importlib.abc, json, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
ABSENT = set(json.loads(sys.argv.pop(1)))
sys.meta_path.insert(0, Absent())
from hierderm.cli.main import main
main()
"""


def given(word: str) -> list[str]:
    """A list that the Dockerfile gives to ENTRYPOINT or CMD."""
    (found,) = re.findall(rf"{word} (\[.*\])$", TEXT, flags=re.MULTILINE)
    content: list[str] = json.loads(found)
    return content


def installed() -> set[str]:
    """What pip installs in the image beside hierderm, with all that it needs."""
    words = shlex.split(TEXT.replace("\\\n", " ").split("constraints.txt ", 2)[2].split("&&")[0])
    found, rest = set[str](), [Requirement(word) for word in words]
    while rest:
        one = rest.pop()
        if (name := canonicalize_name(one.name)) not in found:
            found.add(name)
            try:
                needed = map(Requirement, requires(name) or [])
            except PackageNotFoundError:
                continue  # of another system
            rest += [more for more in needed if more.marker is None or more.marker.evaluate({"extra": ""})]
    return found


def absent_modules() -> list[str]:
    there = installed() | {"hierderm"}
    return [
        module
        for module, owners in packages_distributions().items()
        if not there & {canonicalize_name(owner) for owner in owners}
    ]


@pytest.mark.together("exporter")
def test_an_index_is_served_with_the_packages_of_the_image(
    toy: CaseTable, exported_siglip: Path, tmp_path: Path
) -> None:
    CaseIndex.build(toy, str(exported_siglip / "model"), splits=("train", "validation"), k=5).save(tmp_path / "index")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    places = {
        "/index": str(tmp_path / "index"),
        "/model.onnx": str(exported_siglip / "model.onnx"),
        "0.0.0.0": "127.0.0.1",
    }
    command = [places.get(word, word) for word in given("ENTRYPOINT")[1:]]
    absent = absent_modules()
    assert {"torch", "transformers", "timm", "lightning", "torchvision"} <= set(absent)
    server = subprocess.Popen([sys.executable, "-c", ONLY, json.dumps(absent), *command, "--port", str(port)])
    try:
        for _ in range(600):
            if server.poll() is not None or _status(port, "/") == 200:
                break
            time.sleep(0.1)
        image = toy.paths[0].read_bytes()
        status, body = _search(port, image)
        assert status == 200 and len(json.loads(body)["hits"]) == 3
        assert (_status(port, "/api/map"), _status(port, "/api/info")) == (200, 200)
        alive = given(r"HEALTHCHECK .*CMD")
        done = subprocess.run([sys.executable, *[word.replace("8000", str(port)) for word in alive[1:]]])
        assert done.returncode == 0
    finally:
        server.terminate()
        server.wait(30)


def test_what_the_image_is_built_from_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    about = project["project"]
    wanted = [*wheel["packages"], *wheel["force-include"], about["readme"], *about["license-files"], "pyproject.toml"]
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    lacking = [path for path in [*wanted, "constraints.txt"] if not any(fnmatch(path, pattern) for pattern in sent)]
    assert lacking == [] and all((ROOT / path).exists() for path in wanted)
    assert re.search(r"^USER hierderm$", TEXT, flags=re.MULTILINE) and "--uid 10001 hierderm" in TEXT


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except ConnectionRefusedError:
        return 0
    finally:
        connection.close()


def _search(port: int, image: bytes) -> tuple[int, bytes]:
    start, end = b"--x\r\nContent-Disposition: form-data; ", b"\r\n--x--\r\n"
    body = start + b'name="k"\r\n\r\n3\r\n' + start + b'name="image"; filename="a.jpg"\r\n\r\n' + image + end
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/api/search", body, {"Content-Type": "multipart/form-data; boundary=x"})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found
