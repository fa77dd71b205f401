"""Imports run one way: a file imports from a lower rung of the ladder or from its own folder."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "hierderm"
LADDER = (
    ("errors", "types", "columns", "progress", "threads", "notebook"),
    ("files", "delimited", "shipped"),
    ("json_files", "parquet"),
    ("artifacts",),
    ("config", "taxonomy", "engines"),
    ("embeddings",),
    ("data",),
    ("evaluation",),
    ("plots",),
    ("model",),
    ("training",),
    ("search",),
    ("mteb",),
    ("report",),
    ("experiment",),
    ("app",),
    ("cli",),
)
RUNG = {name: number for number, names in enumerate(LADDER) for name in names}
TORCH = {"data/changes.py", "data/dataset.py", "data/sampler.py", "data/preprocessing.py", "model/", "training/"}
LAZY = {"experiment/", "search/finder.py", "cli/"}  # these import heavy parts inside functions only


def sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def imported(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


def violations(name: str, text: str) -> list[str]:
    """What a file imports against the ladder; `name` is its path below hierderm."""
    own = name.removesuffix(".py").split("/")[0]
    found = []
    for module in imported(ast.parse(text)):
        parts = module.split(".")
        if parts[0] == "hierderm" and len(parts) > 1 and parts[1] != own and RUNG[parts[1]] >= RUNG[own]:
            found.append(f"hierderm/{name} imports {module}")
        if parts[0] == "faiss" and name != "engines.py":
            found.append(f"hierderm/{name} imports {module}, which only engines.py may")
        if parts[0] in ("psycopg", "pgvector") and not name.startswith("search/postgres/"):
            found.append(f"hierderm/{name} imports {module}, which only search/postgres/ may")
        if parts[0] in ("torch", "torchvision", "lightning", "timm", "transformers"):
            allowed = any(place in TORCH | LAZY for place in (name, f"{own}/"))
            if not allowed:
                found.append(f"hierderm/{name} imports {module}, which only {sorted(TORCH)} may")
    return found


def top_level_imports(text: str) -> list[str]:
    return [
        name
        for node in ast.parse(text).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in imported(node)
    ]


def test_every_file_has_a_rung() -> None:
    for path in sources():
        own = path.relative_to(ROOT).as_posix().removesuffix(".py").split("/")[0]
        assert own in RUNG or own in ("__init__", "__main__"), f"{path} is not on the ladder"


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_run_one_way(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    if name not in ("__init__.py", "__main__.py"):
        assert violations(name, path.read_text()) == []


def test_the_command_line_starts_light() -> None:
    heavy = (
        "torch",
        "pandas",
        "numpy",
        "sklearn",
        "lightning",
        "pydantic",
        "hierderm.experiment.run",
        "hierderm.config",
    )
    assert not [name for name in top_level_imports((ROOT / "cli" / "main.py").read_text()) if name.startswith(heavy)]


def test_a_planted_violation_is_found() -> None:
    assert violations("taxonomy/tree.py", "from hierderm.experiment.compare import compare") == [
        "hierderm/taxonomy/tree.py imports hierderm.experiment.compare"
    ]
    assert violations("evaluation/metrics/retrieval.py", "import torch") != []
    assert violations("evaluation/metrics/retrieval.py", "import faiss") != []
    assert violations("search/places.py", "from psycopg.sql import SQL") != []


def unnamed_encodings(text: str) -> list[int]:
    """Lines that open a text file without naming its encoding: it would be the machine's."""
    lines = []
    for node in ast.walk(ast.parse(text)):
        name = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
        if not isinstance(node, ast.Call) or name not in ("read_text", "write_text", "open"):
            continue
        mode = next((str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant)), "")
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        binary = name == "open" and ("b" in mode or owner[:1].isupper() or owner in ("cls", "os"))  # Run.open
        if not binary and "encoding" not in {keyword.arg for keyword in node.keywords}:
            lines.append(node.lineno)
    return lines


def test_text_files_have_a_named_encoding() -> None:
    """Ruff's PLW1514 sees a call on a literal Path(...) alone."""
    assert unnamed_encodings('path.read_text(); path.open(); path.open("w")\npath.open("rb"); Run.open(x)') == [1, 1, 1]
    places = [path for name in ("hierderm", "benchmarks", "experiments") for path in (ROOT.parent / name).rglob("*.py")]
    found = {path.name: lines for path in places if (lines := unnamed_encodings(path.read_text(encoding="utf-8")))}
    assert found == {}


def test_files_and_functions_stay_small() -> None:
    """A file is read in one sitting (400 lines) and a function fits a screen (60)."""
    large = []
    for path in sources():
        text = path.read_text()
        large += [path.name] if len(text.splitlines()) > 400 else []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 60:
                large.append(f"{path.name}: {node.name}")
    assert large == []
