"""A model of each method can be embedded, indexed, served and benchmarked: all are model folders alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

import hierderm
from hierderm import columns as c
from hierderm.app.server import create_app
from hierderm.cli.main import app
from hierderm.config.methods import METHODS
from hierderm.config.settings import Config
from hierderm.data.table import CaseTable

QUICK = {"linear_probe": {"views": 0}, "lda": {"views": 0}, "tree_lda": {"views": 0, "folds": 0}}


@pytest.mark.parametrize("method", METHODS)
def test_a_model_of_each_method_goes_all_the_way(
    method: str, toy_config: Config, toy: CaseTable, tmp_path: Path
) -> None:
    training = toy_config.training if method == "gradient" else METHODS[method](**QUICK.get(method, {}))
    config = replace(toy_config, training=training)
    table, _ = hierderm.prepare(config.data, config.split, tmp_path / "run")
    hierderm.train(config, table, tmp_path / "run")
    model, cases = tmp_path / "run" / "model", str(tmp_path / "run" / "cases.csv")
    tree = ["--taxonomy", str(tmp_path / "run" / "taxonomy.csv")]

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    run("embed", cases, "--model", str(model), *tree, "-o", str(tmp_path / "embeddings"))
    embedded = hierderm.EmbeddingTable.load(tmp_path / "embeddings")
    images = table.part(c.TEST).paths
    encoder = hierderm.load(model)
    np.testing.assert_allclose(encoder.encode(images), embedded.embeddings[table.splits == c.TEST], atol=1e-5)
    assert (embedded.probabilities is None) == (method == "vanilla")
    if method != "vanilla":
        assert encoder.predict_proba(images[0], level="coarse").shape == (1, table.taxonomy.size(0))
    run(
        "index", "build", cases, "--model", str(model), *tree, "--splits", "train,validation", "-o", str(tmp_path / "i")
    )
    with TestClient(create_app(hierderm.CaseFinder.open(tmp_path / "i"))) as page:
        answer = page.post("/api/search", files=[("image", ("a.jpg", images[0].read_bytes()))])
    assert answer.status_code == 200 and len(answer.json()["hits"]) == 10
    assert (answer.json()["classifier"] is None) == (method == "vanilla")
    run("bench", "run", "-m", f"mine={model}", "--data.cases", cases, "--data.taxonomy", tree[1], "--suite", "quick",
        "--evaluation.bootstrap_rounds", "10", "--evaluation.groups", "false", "-o", str(tmp_path / "bench"))  # fmt: skip
    assert "mine" in run("bench", "table", str(tmp_path / "bench"), "--format", "markdown")
