"""The documentation site: its notebooks run, its reference is complete, and nothing is loaded from elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot as plt

import hierderm

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHOWN = {"own_photographs": {"hits": 5, "retrieval": 3}, "any_embeddings": {"gaps": 1, "differences": 6}}


def code_cells(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.together("long")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell, warnings being errors; in this process, which has torch already. `make docs` runs them in a kernel."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, source in enumerate(code_cells(path)):
        exec(compile(source.replace("%matplotlib inline", ""), f"{path.name}, cell {number}", "exec"), names)
    plt.close("all")
    for name, least in SHOWN[path.stem].items():
        assert len(names[name]) >= least


def test_a_notebook_becomes_a_page_with_its_outputs_and_a_broken_cell_is_an_error() -> None:
    import nbformat  # these take a second, which only the tests of the site shall wait for
    from nbclient.exceptions import CellExecutionError

    from docs.hooks import as_markdown, executed

    shown = "from matplotlib import pyplot as plt\n%matplotlib inline\nprint('said')\nplt.plot([0, 1]);"
    cells = [nbformat.v4.new_code_cell(source) for source in (shown, "1 / 0")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        executed(notebook)
    text, images = as_markdown(notebook, "mine")  # as far as it came
    assert "    said\n" in text and "(mine/mine_0_1.png)" in text
    assert images["mine/mine_0_1.png"].startswith(b"\x89PNG")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


def test_every_public_name_is_in_the_reference() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    assert set(hierderm.__all__) - set(re.findall(r"^::: hierderm\.(\w+)$", pages, re.M)) == {"__version__"}


def test_what_a_page_loads_from_elsewhere_is_found() -> None:
    from docs.hooks import loaded_from_elsewhere

    page = """
    <link rel="stylesheet" href="https://fonts.example/a.css"><link rel="canonical" href="https://here.example">
    <link rel="stylesheet" href="../a.css"><script src="//cdn.example/a.js"></script><a href="https://b.example">b</a>
    <img src="a.png"><div style="background: url('http://c.example/c.png')"></div>
    <style>@import "https://d.example/d.css"; a { background: url(e.png) }</style>
    """
    hosts = [re.sub(r"^(https?:)?//([a-z.]+)/.*", r"\2", address) for address in loaded_from_elsewhere(page)]
    assert hosts == ["fonts.example", "cdn.example", "c.example", "d.example"]
