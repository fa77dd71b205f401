from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hierderm.data.table import CaseTable
from hierderm.errors import BenchmarkError, EmbeddingError
from hierderm.experiment.sources import Model, embeddings_of, parse_model


def test_how_models_are_named() -> None:
    assert parse_model("a=runs/x/model+runs/y/model") == Model("a", ("runs/x/model", "runs/y/model"))
    assert parse_model("colour") == Model("colour", ("colour",))
    assert parse_model("hierderm:tiny").name == "hierderm-tiny"
    for wrong in ("a b=colour", "=colour", "a="):
        with pytest.raises(BenchmarkError, match="must be NAME=SOURCE"):
            parse_model(wrong)


def test_embeddings_are_made_once(toy: CaseTable, small_siglip: Path, tmp_path: Path) -> None:
    for source in ("colour", f"hf:{small_siglip}", f"random:hf:{small_siglip}"):
        cache = tmp_path / source.replace("/", "-")
        first = embeddings_of(source, toy, cache)
        time = (cache / "embeddings.npy").stat().st_mtime_ns
        again = embeddings_of(source, toy, cache)
        np.testing.assert_array_equal(first.embeddings, again.embeddings)
        assert (cache / "embeddings.npy").stat().st_mtime_ns == time
    given, drawn = (
        np.load(tmp_path / f"{kind}hf:{small_siglip}".replace("/", "-") / "embeddings.npy") for kind in ("", "random:")
    )
    assert not np.allclose(given, drawn)


def test_a_file_of_embeddings(toy: CaseTable, tmp_path: Path) -> None:
    path = tmp_path / "mine.npy"
    np.save(path, np.random.default_rng(0).normal(size=(len(toy), 6)))
    first = embeddings_of(str(path), toy, tmp_path / "cache").embeddings
    np.save(path, np.random.default_rng(1).normal(size=(len(toy), 6)))
    assert not np.allclose(embeddings_of(str(path), toy, tmp_path / "cache").embeddings, first)  # the file changed
    np.save(path, np.zeros((3, 6)))
    with pytest.raises(EmbeddingError, match="mine.npy must have a row for each of the .* rows of the table, .* got 3"):
        embeddings_of(str(path), toy, tmp_path / "cache")
    path.write_bytes(b"no array")
    with pytest.raises(EmbeddingError, match="mine.npy must be an .npy file of numbers"):
        embeddings_of(str(path), toy, tmp_path / "cache")
    np.save(path, np.array([["a"]]))
    with pytest.raises(EmbeddingError, match="must hold numbers, shape"):
        embeddings_of(str(path), toy, tmp_path / "cache")
    with pytest.raises(BenchmarkError, match="the file of embeddings does not exist"):
        embeddings_of(str(tmp_path / "none.npy"), toy, tmp_path / "cache")
    with pytest.raises(BenchmarkError, match="'nothing' is no model: give 'colour', a backbone"):
        embeddings_of("nothing", toy, tmp_path / "cache")
