"""The documentation site: its notebooks run, its reference is complete, and nothing is loaded from elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

import hierderm
from docs.hooks import ROOT, as_markdown, executed, loaded_from_elsewhere

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path) -> None:
    text, images = as_markdown(executed(nbformat.read(path, as_version=4)), path.stem)
    assert len(images) >= 2 and all(image.startswith(b"\x89PNG") for image in images.values())
    assert all(f"({name})" in text for name in images)
    assert "Warning" not in text and "Traceback" not in text


def test_a_broken_cell_fails() -> None:
    broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        executed(broken)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


def test_every_public_name_is_in_the_reference() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    assert set(hierderm.__all__) - set(re.findall(r"^::: hierderm\.(\w+)$", pages, re.M)) == {"__version__"}


def test_what_a_page_loads_from_elsewhere_is_found() -> None:
    page = """
    <link rel="stylesheet" href="https://fonts.example/a.css"><link rel="canonical" href="https://here.example">
    <link rel="stylesheet" href="../a.css"><script src="//cdn.example/a.js"></script><a href="https://b.example">b</a>
    <img src="a.png"><div style="background: url('http://c.example/c.png')"></div>
    <style>@import "https://d.example/d.css"; a { background: url(e.png) }</style>
    """
    hosts = [re.sub(r"^(https?:)?//([a-z.]+)/.*", r"\2", address) for address in loaded_from_elsewhere(page)]
    assert hosts == ["fonts.example", "cdn.example", "c.example", "d.example"]
