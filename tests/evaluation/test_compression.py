from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hierderm.embeddings import EmbeddingTable, unit_length
from hierderm.errors import EmbeddingError
from hierderm.evaluation.compression import compression_losses, from_int8, principal_axes, to_int8, truncated
from hierderm.taxonomy.file import write_taxonomy
from hierderm.taxonomy.tree import taxonomy_from_paths
from tests.cli.commands import fails, run

TREE = taxonomy_from_paths([(f"C{k // 2}", f"F{k}") for k in range(4)], ("category", "condition"), id="t")


def table(n_cases: int = 60) -> EmbeddingTable:
    """Conditions differ in the first two of eight dimensions, strongly; the others are weak noise."""
    rng = np.random.default_rng(0)
    fine = np.arange(n_cases) % 4
    angles = fine * np.pi / 2 + rng.normal(0, 0.2, n_cases)
    vectors = np.column_stack([np.cos(angles), np.sin(angles), rng.normal(0, 0.05, (n_cases, 6))])
    turned = vectors @ np.linalg.qr(rng.normal(size=(8, 8)))[0]
    frame = pd.DataFrame(
        {
            "image_path": [f"{k}.png" for k in range(n_cases)],
            "image_id": [f"i{k}" for k in range(n_cases)],
            "case_id": [f"c{k}" for k in range(n_cases)],
            "condition": [f"F{k}" for k in fine],
            "split": np.where(np.arange(n_cases) < n_cases // 3, "train", "test"),
        }
    )
    return EmbeddingTable(unit_length(turned), frame)


def test_axes_keep_scalar_products() -> None:
    """The squared error of all scalar products is the sum of the squares of what is left out (Eckart and Young)."""
    vectors = table().embeddings
    for dim in (1, 2, 8):
        axes = principal_axes(vectors, dim)
        np.testing.assert_allclose(axes.T @ axes, np.eye(dim), atol=1e-5)
        error = ((vectors @ vectors.T - (vectors @ axes) @ (vectors @ axes).T) ** 2).sum()
        left_out = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)[dim:] ** 4
        assert error == pytest.approx(left_out.sum(), abs=1e-4)
    for dim in (0, 9):
        with pytest.raises(EmbeddingError, match=f"dim must be from 1 to 8, the length of the embeddings, got {dim}"):
            principal_axes(vectors, dim)
    assert np.abs(truncated(vectors, principal_axes(vectors, 8)) @ np.ones(8)).max() <= np.sqrt(8) + 1e-6


def test_eight_bits() -> None:
    codes = to_int8(np.array([[0.6, -0.8], [0.0, 0.01], [0, 0]], dtype=np.float32))
    assert codes.dtype == np.int8 and codes.tolist() == [[95, -127], [0, 127], [0, 0]]  # 0.6 / 0.8 * 127 = 95.25
    vectors = table().embeddings
    np.testing.assert_allclose(from_int8(to_int8(vectors)), vectors, atol=0.5 / 127)


def test_the_loss_is_measured() -> None:
    found = compression_losses(table(), TREE, dims=(1, 2, 8, 64))
    assert found[["dim", "type", "bytes"]].to_numpy().tolist() == [
        [8, "float32", 32], [8, "int8", 8], [2, "float32", 8], [1, "float32", 4], [2, "int8", 2], [1, "int8", 1],
    ]  # fmt: skip
    by: dict[tuple[int, str], Any] = {(row["dim"], row["type"]): row for row in found.to_dict("records")}
    assert np.isnan(by[8, "float32"]["fine recall_at_1 loss"])
    for variant in ((2, "float32"), (8, "int8"), (2, "int8")):
        assert abs(by[variant]["fine map_at_r loss"]) < 0.05
    full, worst = by[8, "float32"], by[1, "float32"]
    assert worst["fine map_at_r loss"] > 0.2 and worst["fine map_at_r low"] > 0
    assert worst["fine map_at_r loss"] == pytest.approx(full["fine map_at_r"] - worst["fine map_at_r"])


def test_as_a_command(tmp_path: Path) -> None:
    table().save(tmp_path / "embeddings")
    write_taxonomy(TREE, tmp_path / "tree.csv")
    command = ("bench", "compression", tmp_path / "embeddings", "-t", tmp_path / "tree.csv")
    lines = run(*command, "--dims", "2").splitlines()
    assert len(lines) == 6 and lines[2].startswith("| 8 | float32 | 32 |") and "loss" not in lines[2]
    assert all(line.count("(loss ") == 4 for line in lines[3:])
    rows = json.loads(run(*command, "--dims", "2", "--json"))
    assert rows[0]["fine map_at_r loss"] is None and rows[1]["bytes"] == 8
    assert "--dims must be whole numbers from 1, separated by commas, got '2,x'" in fails(*command, "--dims", "2,x")


def test_axes_need_training_images() -> None:
    images = table()
    alone = EmbeddingTable(images.embeddings, images.frame.assign(split="test"))
    for wrong in (alone, EmbeddingTable(images.embeddings, images.frame.drop(columns="split"))):
        with pytest.raises(EmbeddingError, match="whose column split has 'train' and 'test' rows"):
            compression_losses(wrong, TREE)
