"""Where the embeddings of a model come from: names, files and folders, whose embeddings are cached, or any object."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hierderm.artifacts import HEADER, holds, read_header
from hierderm.data.table import CaseTable
from hierderm.embeddings import KIND, EmbeddingTable, embeddings_of
from hierderm.errors import BenchmarkError, EmbeddingError
from hierderm.experiment.protocol import Division
from hierderm.experiment.runner import Model, Source
from hierderm.files import file_hash
from hierderm.model.colour import ColourHistograms
from hierderm.model.hub import is_hub_name
from hierderm.model.loading import model_folder


def _encoded(source: str, table: CaseTable, place: Path) -> EmbeddingTable:
    from hierderm.model.loading import load
    from hierderm.training.features import unfinished

    with unfinished(place) as store:
        return store.embed(load(source), table)


def _names_a_model(source: str) -> bool:
    return ":" in source or source.endswith(".onnx") or is_hub_name(source) or Path(source).is_dir()


# Which sources each kind takes, and what it gives of (source, table, place): anything `embeddings_of` takes.
KINDS: tuple[tuple[Callable[[str], bool], Callable[[str, CaseTable, Path], Any]], ...] = (
    (lambda source: source == "colour", lambda *_: ColourHistograms()),
    (lambda source: source.endswith(".npy") or holds(Path(source), KIND), lambda source, *_: source),
    (_names_a_model, _encoded),
)


def parse_model(text: str) -> tuple[str, tuple[str, ...]]:
    """The name and the sources of 'NAME=SOURCE', or of a source that names itself; several seeds are joined by '+'."""
    name, equals, source = text.partition("=")
    if not equals:
        name, source = re.sub(r"[^\w.-]+", "-", text).strip("-."), text
    if not name or not source:
        raise BenchmarkError(f"a model must be NAME=SOURCE, got '{text}'.")
    return require_name(name), tuple(source.split("+"))


def require_name(name: str) -> str:
    """The name of a model; BenchmarkError where it can't be that of a folder."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise BenchmarkError(f"a model's name must be of letters, digits, '.', '_', '-', got '{name}'.")
    return name


def as_model(name: str, given: Any, cache: Path) -> Model:
    """A model for the runner. `given`: a source, or a list or tuple with one for each training seed.

    A source is a name or path of `KINDS`, '{fold}' in it standing for the number of the fold, or anything else that
    `embeddings_of` takes; such an object has no version, so it is embedded anew, and its version is its embeddings.
    """
    require_name(name)
    seeds = given if isinstance(given, list | tuple) else [given]
    made: dict[tuple[int, str], EmbeddingTable] = {}  # of objects, by seed and table: folds share the table's images

    def source(seed: int, division: Division) -> Source:
        one, table = seeds[seed], division.table
        if isinstance(one, str | Path):
            own = str(one).replace("{fold}", str(division.fold))
            place = cache / (f"{name}@{seed}" + (f"@{division.fold}" if own != str(one) else ""))
            made_from = version(own)
            return Source(f"{own} {made_from}".strip(), table, partial(_cached, own, made_from, place, table))
        key = (seed, table.table_hash)
        if key not in made:
            made[key] = embeddings_of(one, table)
        return Source(f"embeddings {_content_hash(made[key])}", table, lambda: made[key])

    return Model(name, lambda division: [source(seed, division) for seed in range(len(seeds))])


def version(source: str | Path) -> str:
    """What changes when the file or folder behind a source, or its weights, do; '' where there is none."""
    folder = Path(source)
    if is_hub_name(str(source)):
        folder = model_folder(str(source)) or folder
    files = (folder, folder / HEADER, Path(str(source).rpartition("@")[2]))
    return next((file_hash(path) for path in files if path.is_file()), "")


def _cached(source: str, made_from: str, place: Path, table: CaseTable) -> EmbeddingTable:
    """The embeddings of a whole table, from `place` where they are of this source and these images.

    `made_from`: the `version` of the source.
    """
    key = {"source": source, "version": made_from, "table": table.table_hash}
    if holds(place, KIND) and read_header(place, KIND).content["key"] == key:
        return EmbeddingTable.load(place)
    make = next((make for takes, make in KINDS if takes(source)), None)
    if make is None:
        raise BenchmarkError(
            f"'{source}' is no model: give 'colour', a backbone such as 'hierderm:tiny' or '<backbone>@random', a "
            "model folder of a run, a folder of embeddings, or an .npy file."
        )
    try:
        made = embeddings_of(make(source, table, place), table)
    except EmbeddingError as error:
        raise EmbeddingError(f"{source}: {error}") from None
    made.save(place, replace=True, key=key)
    return made


def _content_hash(embedded: EmbeddingTable) -> str:
    parts = [embedded.embeddings, embedded.probabilities]
    return hashlib.sha256(b"".join(part.tobytes() for part in parts if part is not None)).hexdigest()[:12]
