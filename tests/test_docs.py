"""Documents are true: Python blocks run, and every command they show exists with the flags they give it."""

from __future__ import annotations

import re
import shlex
import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import hierderm
from hierderm.cli.data import _loader_command
from hierderm.cli.main import app
from hierderm.config.describe import known_names
from hierderm.config.loading import build_comparison, build_config
from hierderm.config.methods import LOSS_KINDS, Gradient, Loss
from hierderm.config.settings import BackboneConfig
from hierderm.data.loaders.registry import LOADERS
from hierderm.data.table import CaseTable
from hierderm.errors import EvaluationWarning
from hierderm.evaluation.catalogue import METRICS
from hierderm.evaluation.tasks.registry import TASKS
from hierderm.model.backbone import LIBRARIES
from hierderm.shipped import shipped_experiments
from hierderm.taxonomy.file import write_taxonomy
from hierderm.training.features import FeatureStore
from hierderm.training.fit import FITS, fit
from hierderm.training.losses.registry import OUR_LOSSES

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *sorted((ROOT / "docs").rglob("*.md")),
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
        key_of = any(flag.startswith(f"{name}.") for name in settings)  # of a setting that is a table
        if re.match(r"--?[a-z]", flag) and flag not in flags | (settings if "." in flag else set()) and not key_of:
            return f"unknown flag {flag} in: {line}"
    files = [word for word in words if word.startswith("experiments/")]
    if any("CONFIG" in (parameter.metavar or "") for parameter in command.params) and re.match(r"\w+$", words[0]):
        files += [] if words[0] in shipped_experiments() else words[:1]
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
def test_toml_blocks_are_settings(path: Path) -> None:
    for block in blocks(path.read_text(), "toml"):
        content = tomllib.loads(block)
        build_comparison(content) if "models" in content else build_config(content)


@pytest.mark.parametrize(
    "path",
    [path for path in DOCUMENTS if path.name not in ("README.md", "CONTRIBUTING.md")],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_python_blocks_run(path: Path) -> None:
    with patch.dict(TASKS), patch.dict(METRICS):  # what an example registers is gone after it
        for block in blocks(path.read_text(), "python"):
            exec(compile(block, str(path), "exec"), {})


def test_what_contributing_adds_is_found(toy: CaseTable, tmp_path: Path) -> None:
    """Follow the text: after its block each new loss, metric, task, backbone, method and loader is in use."""
    registries: tuple[dict[str, Any], ...] = (OUR_LOSSES, METRICS, TASKS, LIBRARIES, FITS, LOADERS)
    with ExitStack() as stack:
        for registry in (LOSS_KINDS, *registries):
            stack.enter_context(patch.dict(registry))
        sizes = [len(registry) for registry in registries]
        found = blocks((ROOT / "CONTRIBUTING.md").read_text(), "python")
        for block in found:
            exec(compile(block, "CONTRIBUTING.md", "exec"), {})
        assert len(found) == len(registries)
        assert [len(registry) for registry in registries] == [size + 1 for size in sizes]
        colour = BackboneConfig("mean:colour")
        settings = Gradient(features="output", views=0, epochs=1, loss=Loss(classification="Margin"))
        trained = fit(settings, colour, toy, FeatureStore(tmp_path), tmp_path)
        assert np.isfinite(trained.history["classification_loss"][1:]).all()
        with pytest.warns(EvaluationWarning):  # three numbers an image are few
            evaluation = hierderm.evaluate(hierderm.load("mean:colour"), toy, toy.taxonomy, tasks=["retrieval", "hits"])
        assert {"hit_within_3", "recall_at_1"} <= set(evaluation.to_pandas()["metric"])
        fitted = FITS["mine"](None, colour, toy, FeatureStore(tmp_path), tmp_path)
        assert fitted.network.dim == 3
        shown = CliRunner().invoke(_loader_app(), ["--help"]).output
        assert "My data set." in shown and "--unreadable" in shown


def _loader_app() -> typer.Typer:
    one = typer.Typer()
    one.command()(_loader_command(LOADERS["mine"]))
    return one


def test_the_example_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a model of hierderm:tiny, made from a few random images of conditions of the shipped tree."""
    rng, rows = np.random.default_rng(0), []
    for number in range(32):
        name = f"image-{number}.jpg"
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(tmp_path / name)
        condition = ("Tinea", "Eczema", "Impetigo", "Psoriasis")[number % 4]
        split = ("train", "validation", "test", "train")[number // 4 % 4]
        rows.append((name, str(number), str(number), condition, split))
    frame = pd.DataFrame(rows, columns=["image_path", "image_id", "case_id", "condition", "split"])
    frame.to_csv(tmp_path / "cases.csv", index=False)
    (tmp_path / "photo.jpg").write_bytes((tmp_path / "image-0.jpg").read_bytes())
    monkeypatch.chdir(tmp_path)
    settings = {"data.cases": "cases.csv", "data.taxonomy": "scin", "training.method": "lda", "training.views": 0}
    config = hierderm.load_config(None, settings)
    table, _ = hierderm.prepare(config.data, config.split, Path("runs/mine"))
    run = hierderm.train(config, table, Path("runs/mine/models/hierarchical"))
    hierderm.CaseIndex.build(table, run.folder / "model").save(Path("index"))
    write_taxonomy(hierderm.load_taxonomy("scin"), Path("tree.csv"))
    [block] = blocks((ROOT / "README.md").read_text(), "python")
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["vectors"].shape == (32, names["model"].dim)
    assert names["probabilities"].shape == (1, 4)
    assert set(names["hits"]["condition"]) == {"Tinea"}
    assert ("fine", "map_at_r") in {(m.level, m.name) for m in names["result"].metrics}


def test_a_broken_example_is_found() -> None:
    assert wrong_in_command("hierderm trian x") == "no command in: hierderm trian x"
    assert "unknown flag --training.epoch" in wrong_in_command("hierderm train --training.epoch 3")
    assert wrong_in_command("hierderm compare three_wy -o x") == "no file three_wy"
    assert "unknown flag --pres" in wrong_in_command("hierderm data synthetic x --pres toy")


def test_make_targets_of_the_readme_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    wanted = {
        word
        for block in blocks((ROOT / "README.md").read_text(), "bash")
        for word in re.findall(r"^make (\w+)", block, flags=re.MULTILINE)
    }
    assert {"demo", "test"} <= wanted <= set(targets)
