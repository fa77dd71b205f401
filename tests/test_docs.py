"""Documents are true: Python blocks run, and every command they show exists with the flags they give it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import typer

from hierderm.cli.main import app
from hierderm.config.describe import known_names
from hierderm.config.loading import build_comparison, build_config
from hierderm.evaluation.catalogue import METRICS
from hierderm.evaluation.tasks.registry import TASKS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "README.md",
    ROOT / "experiments" / "README.md",
    ROOT / "CONTRIBUTING.md",
]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def wrong_in_command(line: str) -> str:
    """What is wrong with a `hierderm ...` line, or ''."""
    words = shlex.split(line, comments=True)[1:]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            return f"no command in: {line}"
        command = command.commands[words.pop(0)]
    flags = {flag for parameter in command.params for flag in parameter.opts}
    settings = {f"--{name}" for name in known_names()}
    for word in words:
        flag = word.partition("=")[0]
        if re.match(r"--?[a-z]", flag) and flag not in flags | (settings if "." in flag else set()):
            return f"unknown flag {flag} in: {line}"
    files = [word for word in words if word.startswith("experiments/")]
    return "".join(f"no file {file}" for file in files if not (ROOT / file).is_file())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_exist(path: Path) -> None:
    lines = [line.strip() for block in blocks(path.read_text(), "bash") for line in block.splitlines()]
    assert [wrong for line in lines if line.startswith("hierderm ") if (wrong := wrong_in_command(line))] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", path.read_text()) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_python_and_toml_blocks_work(path: Path) -> None:
    import tomllib

    with patch.dict(TASKS), patch.dict(METRICS):  # what an example registers is gone after it
        for block in blocks(path.read_text(), "python"):
            exec(compile(block, str(path), "exec"), {})
    for block in blocks(path.read_text(), "toml"):
        content = tomllib.loads(block)
        build_comparison(content) if "models" in content else build_config(content)


def test_a_broken_example_is_found() -> None:
    assert wrong_in_command("hierderm trian x") == "no command in: hierderm trian x"
    assert "unknown flag --training.epoch" in wrong_in_command("hierderm train --training.epoch 3")
    assert "unknown flag --pres" in wrong_in_command("hierderm data synthetic x --pres toy")


def test_make_targets_of_the_readme_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    wanted = {
        word
        for block in blocks((ROOT / "README.md").read_text(), "bash")
        for word in re.findall(r"^make (\w+)", block, flags=re.MULTILINE)
    }
    assert {"demo", "test"} <= wanted <= set(targets)
