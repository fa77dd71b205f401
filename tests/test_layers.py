"""Imports run one way: a file imports from a lower rung of the ladder or from its own folder."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "hierderm"
LADDER = (
    ("errors", "columns", "files", "machine", "progress"),
    ("config", "taxonomy"),
    ("taxonomy_file",),
    ("data", "embeddings"),
    ("model",),
    ("training",),
    ("embed",),
    ("encoder",),
    ("evaluate",),
    ("index",),
    ("report",),
    ("pipeline", "finder"),
    ("comparison",),
    ("bench",),
    ("app",),
    ("cli_search", "cli_bench", "cli_evaluate"),
    ("cli",),
)
RUNG = {name: number for number, names in enumerate(LADDER) for name in names}
TORCH = {
    "data/images.py", "data/sampler.py", "data/preprocessing.py", "embed.py", "encoder.py",
    *(f"{folder}/" for folder in ("model", "training")),
}  # fmt: skip
LAZY = {
    "pipeline.py",
    "comparison.py",
    "finder.py",
    "cli_search.py",
    "cli_bench.py",
    "cli_evaluate.py",
    "bench/models.py",
    "cli.py",
    "progress.py",
}  # these import heavy parts inside functions only


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
        if parts[0] == "faiss" and name != "index/engines.py":
            found.append(f"hierderm/{name} imports {module}, which only index/engines.py may")
        if parts[0] in ("torch", "torchvision", "lightning", "timm", "transformers"):
            allowed = name in TORCH or f"{own}/" in TORCH or name in LAZY
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
        assert own in RUNG or own == "__init__", f"{path} is not on the ladder"


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_run_one_way(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    if name != "__init__.py":
        assert violations(name, path.read_text()) == []


def test_the_command_line_starts_light() -> None:
    heavy = ("torch", "pandas", "numpy", "sklearn", "lightning", "pydantic", "hierderm.pipeline", "hierderm.config")
    assert not [name for name in top_level_imports((ROOT / "cli.py").read_text()) if name.startswith(heavy)]


def test_a_planted_violation_is_found() -> None:
    assert violations("taxonomy.py", "from hierderm.pipeline import compare") == [
        "hierderm/taxonomy.py imports hierderm.pipeline"
    ]
    assert violations("evaluate/retrieval.py", "import torch") != []
    assert violations("evaluate/retrieval.py", "import faiss") != []
