"""Models from names, files, folders and objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import BenchmarkError, EmbeddingError
from hierderm.experiment.protocol import Division
from hierderm.experiment.sources import as_model, parse_model


def embed(source: object, table: CaseTable, cache: Path) -> EmbeddingTable:
    (one,) = as_model("model", source, cache).sources(Division(cache, table))
    return one.embed()


def test_how_models_are_named() -> None:
    assert parse_model("a=runs/x/model+runs/y/model") == ("a", ("runs/x/model", "runs/y/model"))
    assert parse_model("colour") == ("colour", ("colour",))
    assert parse_model("hierderm:tiny")[0] == "hierderm-tiny"
    for wrong in ("=colour", "a="):
        with pytest.raises(BenchmarkError, match="must be NAME=SOURCE"):
            parse_model(wrong)
    for wrong in ("a b", "../a", ""):
        with pytest.raises(BenchmarkError, match="a model's name must be of letters"):
            as_model(wrong, "colour", Path())


def test_embeddings_of_names_are_made_once(toy: CaseTable, small_siglip: Path, tmp_path: Path) -> None:
    made: list[np.ndarray] = []
    for source in ("colour", f"hf:{small_siglip}", f"hf:{small_siglip}@random"):
        cache = tmp_path / str(len(made))
        made.append(embed(source, toy, cache).embeddings)
        file = cache / "model@0" / "embeddings.npy"
        time = file.stat().st_mtime_ns
        np.testing.assert_array_equal(made[-1], embed(source, toy, cache).embeddings)
        assert file.stat().st_mtime_ns == time
    assert not np.allclose(made[1], made[2])


def test_an_object_is_a_model_whose_version_is_its_embeddings(toy: CaseTable, tmp_path: Path) -> None:
    class Mine:
        def __init__(self, seed: int) -> None:
            self.seed, self.calls = seed, 0

        def encode(self, images: list[Path]) -> np.ndarray:
            self.calls += 1
            return np.random.default_rng(self.seed).normal(size=(len(images), 4))

    mine = Mine(0)
    model = as_model("mine", [mine, Mine(1)], tmp_path)
    divisions = [Division(tmp_path, toy, fold=fold) for fold in range(2)]  # the same images
    (first, other), (again, _) = (model.sources(division) for division in divisions)
    assert mine.calls == 1 and first.version == again.version != other.version
    embedded = first.embed().embeddings
    np.testing.assert_array_equal(embedded, embed(Mine(0), toy, tmp_path).embeddings)
    (same,) = as_model("array", embedded, tmp_path).sources(divisions[0])
    assert same.version == first.version
    assert not list(tmp_path.iterdir())  # without a name there is nothing to look a cache up by


def test_the_number_of_the_fold_in_a_name(toy: CaseTable, tmp_path: Path) -> None:
    for fold in range(2):
        np.save(tmp_path / f"{fold}.npy", np.random.default_rng(fold).normal(size=(len(toy), 3)))
    model = as_model("m", str(tmp_path / "{fold}.npy"), tmp_path / "cache")
    zero, one = (model.sources(Division(tmp_path, toy, fold=fold))[0] for fold in range(2))
    assert zero.version != one.version
    assert not np.allclose(zero.embed().embeddings, one.embed().embeddings)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir() if path.name[0] != ".") == ["m@0@0", "m@0@1"]


def test_a_file_of_embeddings(toy: CaseTable, tmp_path: Path) -> None:
    path = tmp_path / "mine.npy"
    np.save(path, np.random.default_rng(0).normal(size=(len(toy), 6)))
    first = embed(path, toy, tmp_path / "cache").embeddings
    np.save(path, np.random.default_rng(1).normal(size=(len(toy), 6)))
    assert not np.allclose(embed(path, toy, tmp_path / "cache").embeddings, first)  # the file changed
    np.save(path, np.zeros((3, 6)))
    with pytest.raises(
        EmbeddingError, match=r"mine.npy: .* a row for each of the .* rows of the table, .* got \(3, 6\)"
    ):
        embed(path, toy, tmp_path / "cache")
    path.write_bytes(b"no array")
    with pytest.raises(EmbeddingError, match="mine.npy must be an .npy file of numbers"):
        embed(path, toy, tmp_path / "cache")
    np.save(path, np.array([["a"]]))
    with pytest.raises(EmbeddingError, match="mine.npy must be real numbers, got <U1"):
        embed(path, toy, tmp_path / "cache")
    with pytest.raises(EmbeddingError, match="none.npy must be an .npy file of numbers: .*No such file"):
        embed(tmp_path / "none.npy", toy, tmp_path / "cache")
    with pytest.raises(BenchmarkError, match="'nothing' is no model: give 'colour', a backbone"):
        embed("nothing", toy, tmp_path / "cache")
