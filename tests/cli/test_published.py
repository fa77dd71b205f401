"""From each published format to a report and an index: two commands, and nothing between them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from hierderm.data.loaders.registry import LOADERS
from tests.cli.commands import run
from tests.data.loaders.miniatures import WRITERS

COMPARISON = """
[backbone]
name = "hf:{backbone}"
[training]
views = 0
features = "output"
[split]
test_fraction = 0.25
validation_fraction = 0.25
[evaluation]
tasks = ["retrieval"]
bootstrap_rounds = 0
groups = false
[[models]]
name = "tree"
method = "tree_lda"
[models.set]
"training.shrinkages" = [0.1, 0.4]
"training.folds" = 0
"""
OPTIONS = {"huggingface": ["--data.taxonomy", "scin"]}


def test_every_loader_has_a_miniature() -> None:
    assert set(WRITERS) == set(LOADERS)


@pytest.mark.filterwarnings("ignore::hierderm.errors.EvaluationWarning")
@pytest.mark.parametrize("name", WRITERS)
def test_two_commands(name: str, small_siglip: Path, tmp_path: Path) -> None:
    published, out, index = tmp_path / "published", tmp_path / "out", tmp_path / "index"
    n_images = WRITERS[name](published)
    (tmp_path / "compare.toml").write_text(COMPARISON.format(backbone=small_siglip), encoding="utf-8")
    cases = f"{name}:{published}"
    run("compare", tmp_path / "compare.toml", "--data.cases", cases, *OPTIONS.get(name, ()), "-o", out)
    run("index", "build", out / "cases.csv", "--model", out / "models" / "tree" / "model", "-o", index)

    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert (out / "report.html").is_file() and [model["model"] for model in report["models"]] == ["tree"]
    about = json.loads(run("index", "info", index, "--json"))
    table = pd.read_csv(out / "cases.csv", dtype=str, keep_default_na=False)
    assert about["images"] == len(table) == n_images
    assert set(table["split"]) == {"train", "validation", "test"}
    assert (table.groupby("case_id")["split"].nunique() == 1).all()


@pytest.mark.filterwarnings("ignore::hierderm.errors.EvaluationWarning")
def test_the_commands_for_scin(small_siglip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of docs/training.md to the letter, but for the size of the backbone and the models of the comparison."""
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    found = re.search(r"^## SCIN.*?^```bash\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    n_images = WRITERS["scin"](Path("dataset"))
    models = COMPARISON.format(backbone="given-by-the-command").replace('"tree"', '"hierarchical"')
    Path("experiments").mkdir()
    Path("experiments/three_way.toml").write_text(models, encoding="utf-8")
    lines = found[1].replace("timm:vit_base_patch16_siglip_224", f"hf:{small_siglip}").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    names = [command[1] for command in commands if command[0] == "hierderm"]
    assert names == ["data", "compare", "index", "serve"]
    for command in commands:
        if command[0] == "hierderm" and command[1] != "serve":
            run(*command[1:])
    assert "hierarchical" in Path("runs/scin/report.html").read_text(encoding="utf-8")
    assert len(pd.read_csv("scin.csv")) == n_images
