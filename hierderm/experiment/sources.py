"""The models of a benchmark: anything with a name that gives embeddings of a table."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from hierderm import columns as c
from hierderm.artifacts import HEADER, file_hash, holds, read_header, text_hash
from hierderm.data.table import CaseTable
from hierderm.embeddings import KIND, EmbeddingTable, Provenance, read_array, unit_length
from hierderm.errors import BenchmarkError, EmbeddingError
from hierderm.model.colour import ColourHistograms

COLOUR = "colour"
RANDOM = "random:"


@dataclass(frozen=True)
class Model:
    """A name and where its embeddings come from.

    `sources`: one, or one a seed of training. Each is 'colour' (colour histograms), a backbone ('hierderm:tiny',
    'timm:...', 'hf:...'), 'random:<backbone>' (its architecture, untrained), a trained model's folder, a folder of
    embeddings, or an .npy file with a row for each row of the table. '{fold}' stands for the number of the fold.
    """

    name: str
    sources: tuple[str, ...]


def parse_model(text: str) -> Model:
    """'NAME=SOURCE', or a source that names itself; several seeds are joined by '+'."""
    name, equals, source = text.partition("=")
    if not equals:
        name, source = re.sub(r"[^\w.-]+", "-", text).strip("-"), text
    if not re.fullmatch(r"[\w.-]+", name) or not source:
        raise BenchmarkError(f"a model must be NAME=SOURCE, its name of letters, digits, '.', '_', '-', got '{text}'.")
    return Model(name, tuple(source.split("+")))


def embeddings_of(source: str, table: CaseTable, cache: Path, *, workers: int = 0) -> EmbeddingTable:
    """The embeddings of a whole table, from `cache` where they are of this source and these pictures."""
    key = {"source": source, "version": _version(source), "table": _table_hash(table)}
    if holds(cache, KIND) and read_header(cache, KIND).content["key"] == key:
        return EmbeddingTable.load(cache)
    made = _embed(source, table, workers)
    made.save(cache, replace=True, key=key)
    return made


def _embed(source: str, table: CaseTable, workers: int) -> EmbeddingTable:
    path = Path(source)
    if source == COLOUR:
        return EmbeddingTable(ColourHistograms().encode(table.paths), table.frame, Provenance(model=COLOUR))
    if path.suffix == ".npy":
        return _from_array(path, table)
    if holds(path, KIND):
        return EmbeddingTable.load(path)
    from hierderm.model.encoder import load

    if source.startswith(RANDOM):
        return load(source.removeprefix(RANDOM), weights="random").embed(table, workers=workers)
    if ":" not in source and not path.is_dir():
        raise BenchmarkError(
            f"'{source}' is no model: give 'colour', a backbone such as 'hierderm:tiny', 'random:<backbone>', a model "
            "folder of a run, a folder of embeddings, or an .npy file."
        )
    return load(source).embed(table, workers=workers)


def _from_array(path: Path, table: CaseTable) -> EmbeddingTable:
    if not path.is_file():
        raise BenchmarkError(f"{path}: the file of embeddings does not exist.")
    vectors = read_array(path)
    if len(vectors) != len(table):
        raise EmbeddingError(
            f"{path} must have a row for each of the {len(table)} rows of the table, in order, got {len(vectors)}."
        )
    return EmbeddingTable(unit_length(vectors), table.frame, Provenance(model=str(path)))


def _version(source: str) -> str:
    """What changes when a file behind the source does."""
    path = Path(source)
    if path.is_file():
        return file_hash(path)
    return file_hash(path / HEADER) if (path / HEADER).is_file() else ""


def _table_hash(table: CaseTable) -> str:
    return text_hash(json.dumps([list(table.frame[c.IMAGE_ID]), [str(path) for path in table.paths]]))
