"""Files about the project: citation, commits, release. Each says what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from hierderm import __version__

ROOT = Path(__file__).parents[1]
# Of the schema of Citation File Format 1.2.0.
CFF_REQUIRED = {"authors", "cff-version", "message", "title"}
CFF_KNOWN = CFF_REQUIRED | {
    "abstract", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license", "license-url",
    "preferred-citation", "references", "repository", "repository-artifact", "repository-code", "type", "url", "version",
}  # fmt: skip


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_is_one_of_this_version() -> None:
    found = read("CITATION.cff")
    assert set(found) >= CFF_REQUIRED and set(found) <= CFF_KNOWN
    assert (found["cff-version"], found["type"], found["license"]) == ("1.2.0", "software", "Apache-2.0")
    assert found["version"] == __version__  # a text, or the schema would refuse it
    assert all(set(author) == {"name"} for author in found["authors"]) and found["authors"]
    assert all(isinstance(word, str) for word in found["keywords"])
    assert len(found["keywords"]) == len(set(found["keywords"])) and all(
        map(found.get, ("title", "message", "abstract"))
    )


def test_commits_are_checked_by_the_programs_of_the_environment() -> None:
    command = [sys.executable, "-m", "pre_commit", "validate-config", str(ROOT / ".pre-commit-config.yaml")]
    assert subprocess.run(command, capture_output=True, text=True).stderr == ""
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local" and {hook["language"] for hook in repository["hooks"]} == {"system"}
    entries = {hook["entry"].removeprefix(".venv/bin/").split(" --")[0] for hook in repository["hooks"]}
    lint = (ROOT / "Makefile").read_text().partition("lint: ")[2].partition("\n\n")[0]
    wanted = re.findall(r"\$\(BIN\)/(ruff \w+|mypy)", lint)
    assert entries == set(wanted)


def test_a_release_tests_builds_and_publishes_without_a_secret() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    found = yaml.safe_load(text)
    build, publish = found["jobs"]["build"], found["jobs"]["publish"]
    steps = [step["run"].strip() for step in build["steps"] if "run" in step]
    assert steps[0] == "make test" and ".venv/bin/python -m build" in steps
    assert found["permissions"] == {} and publish["permissions"] == {"id-token": "write"}
    assert publish["needs"] == "build" and "secrets." not in text
    assert publish["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@")
