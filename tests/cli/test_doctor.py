"""doctor as it is typed, and each of its findings where something is missing or broken."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from packaging.requirements import Requirement
from typer.testing import CliRunner

from hierderm.cli import checkup
from hierderm.cli.checkup import Finding
from hierderm.cli.main import app
from tests.cli.commands import run


def given(*found: Finding) -> tuple[Callable[[], Iterator[Finding]], ...]:
    return (lambda: iter(found),)


def by_name(check: Callable[[], Iterator[Finding]]) -> dict[str, Finding]:
    return {one.name: one for one in check()}


def test_this_machine_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    content = json.loads(run("doctor", "--json"))
    assert content["works"]
    states = {one["name"]: one["state"] for one in content["findings"]}
    assert {states[name] for name in ("hierderm", "Python", "packages", "devices", "FAISS with torch")} == {"ok"}
    assert (states["hub"], states["hierderm[onnx]"], states["ONNX Runtime"]) == ("optional", "ok", "ok")
    texts = {one["name"]: one["text"] for one in content["findings"]}
    assert "threads of FAISS" in texts["FAISS with torch"] and "CPUExecutionProvider" in texts["ONNX Runtime"]
    assert "hierderm[dev]" not in texts


def test_only_what_is_broken_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    small = (Finding("a", "ok", "fine"), Finding("b", "optional", "[x]"), Finding("c", "warning", "few"))
    monkeypatch.setattr(checkup, "CHECKS", given(*small))
    assert "hierderm works here" in run("doctor") and "[x]" in run("doctor")
    monkeypatch.setattr(checkup, "CHECKS", given(*small, Finding("d", "broken", "off")))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1 and "Broken: d" in done.output
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 1 and json.loads(done.stdout)["works"] is False


def test_versions_below_the_declared_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = ["numpy>=99", "no-such-package>=1", "pandas>=1", "no-such-extra>=2; extra == 'x'"]
    monkeypatch.setattr(checkup, "requires", lambda _: declared)
    found = by_name(checkup.versions)["packages"]
    assert found.state == "broken"
    assert "numpy must be >=99, it is" in found.text and "no-such-package is not installed" in found.text
    assert "pandas" not in found.text and "no-such-extra" not in found.text and "pip install --upgrade" in found.text
    assert checkup._required("x") == [Requirement(declared[-1])]
    monkeypatch.setattr(checkup, "metadata", lambda _: {"Requires-Python": ">=99"})
    assert by_name(checkup.versions)["Python"].state == "broken"


def test_an_extra_that_is_missing_names_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "_fault", lambda one: f"{one.name} is not installed" if one.name == "peft" else "")
    found = by_name(checkup.extras)
    assert found["hierderm[lora]"] == Finding(
        "hierderm[lora]", "optional", "peft is not installed. Install it with: pip install 'hierderm[lora]'"
    )
    assert found["hierderm[app]"].state == "ok" and "fastapi" in found["hierderm[app]"].text


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with code -11 (no message)"),
        ("raise ImportError('no libgomp')", "ended with code 1 (ImportError: no libgomp)"),
        ("import time; time.sleep(9)", "no end within 0.5 s"),
    ],
)
def test_a_library_that_crashes_ends_nothing(program: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "CHILD_SECONDS", 0.5 if "sleep" in program else 60)
    assert checkup._tried(program) == ("broken", text)


def test_the_hub_is_never_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(checkup, "HUB_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        found = by_name(checkup.hub)["hub"]
        assert found.state == "optional" and "can't be reached" in found.text
    monkeypatch.setattr(checkup, "HUB_SECONDS", 2.0)
    assert "refused" in by_name(checkup.hub)["hub"].text  # its port is closed now


def test_a_hub_that_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tests.model.fake_hub import fake_hub

    with fake_hub(monkeypatch, tmp_path) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", f"{hub.endpoint}/api/models/x")  # it answers: not found
        assert by_name(checkup.hub)["hub"].state == "ok"


def test_folders_that_can_not_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "not" / "yet"))

    class Usage:
        free = 1_000_000_000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    found = by_name(checkup.folders)
    assert found["cache of the hub"].text == f"{tmp_path / 'not' / 'yet'}, 1.0 GB free"
    assert found["cache of the hub"].state == "warning" and not (tmp_path / "not").exists()

    def refuse(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    states = {name: one.state for name, one in by_name(checkup.folders).items()}
    assert states == {"temporary files": "broken", "this folder": "warning", "cache of the hub": "warning"}
    assert "can't be written (Permission denied)" in by_name(checkup.folders)["this folder"].text


def test_without_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIERDERM_BROWSER", "/nowhere/chromium")
    found = by_name(checkup.browser)["browser"]
    assert found.state == "optional" and "/nowhere/chromium" in found.text
