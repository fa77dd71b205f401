"""Embeddings of a table's images as a value object that knows which model, preprocessing, tree and split made it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from hierderm import columns as c
from hierderm.artifacts import Header, read_folder, write_folder
from hierderm.errors import EmbeddingError, some_of
from hierderm.files import require_regular
from hierderm.parquet import read_parquet, write_parquet
from hierderm.types import Floats, Mask, Vectors

KIND = "embeddings"  # of a folder
UNIT_TOLERANCE = 1e-3
BLOCK = 2**12  # rows at a time
Aggregation = Literal["best", "mean"]  # how cases of several images are compared


@dataclass(frozen=True)
class Provenance:
    """What made the embeddings; hashes of twelve hex digits, '' where unknown."""

    model: str = ""
    weights_hash: str = ""
    preprocessing_hash: str = ""
    taxonomy_hash: str = ""
    split_hash: str = ""
    external: bool = False  # whether the images are of another source than the model's training, and checked for it


@dataclass(frozen=True)
class _Content:
    """What the header of a folder of embeddings says."""

    provenance: Provenance
    key: dict[str, Any]


@dataclass(frozen=True, repr=False)
class EmbeddingTable:
    """`embeddings`: unit length, shape (n_images, dim), float32; `frame`: the rows of the case table they belong to.

    `probabilities`: of the conditions, shape (n_images, n_fine), rows summing to 1, or None where the model has none.
    `looks`: of the images, whatever they show (`hierderm.data.look`), shape (n_images, n), nan where an image could not
    be read; None where they are not known.
    """

    embeddings: Vectors
    frame: pd.DataFrame
    provenance: Provenance = Provenance()
    probabilities: Vectors | None = None
    looks: Vectors | None = None

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or len(self.embeddings) != len(self.frame):
            raise EmbeddingError(
                f"embeddings must have shape (n_images, dim) with n_images = {len(self.frame)} rows of the table, "
                f"got {self.embeddings.shape}. For one image use embeddings[None]."
            )
        finite = by_blocks(self.embeddings, lambda block: np.isfinite(block).all(axis=1))
        if not finite.all():
            rows = np.flatnonzero(~finite)
            raise EmbeddingError(f"embeddings must be finite; {len(rows)} row(s) are not, the first is row {rows[0]}.")
        length = by_blocks(self.embeddings, lambda block: np.linalg.norm(block, axis=1))
        if len(length) and np.abs(length - 1).max() > UNIT_TOLERANCE:
            row = int(np.abs(length - 1).argmax())
            raise EmbeddingError(f"embeddings must have unit length, row {row} has {length[row]:.4f}. Normalise them.")
        if self.probabilities is not None:
            _require_probabilities(self.probabilities, len(self.frame))
        if self.looks is not None and (self.looks.ndim != 2 or len(self.looks) != len(self.frame)):
            raise EmbeddingError(f"looks must have a row an image ({len(self.frame)}), got {self.looks.shape}.")

    def __repr__(self) -> str:
        n, dim = self.embeddings.shape
        classified = "" if self.probabilities is None else ", with probabilities"
        return f"EmbeddingTable({n} embeddings of length {dim}{classified}, model {self.provenance.model or 'unknown'})"

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def case_ids(self) -> npt.NDArray[np.str_]:
        """Case ids, shape (n_images,), text."""
        return self.frame[c.CASE_ID].to_numpy(dtype=str)

    def select(self, rows: Mask) -> EmbeddingTable:
        """The table of some rows.

        Args:
            rows: True for each row that stays, shape (n_images,).

        Returns:
            The table of these rows.
        """
        probabilities, looks = (None if x is None else x[rows] for x in (self.probabilities, self.looks))
        frame = self.frame[rows].reset_index(drop=True)
        return EmbeddingTable(self.embeddings[rows], frame, self.provenance, probabilities, looks)

    def save(self, folder: Path | str, *, replace: bool = False, key: Mapping[str, Any] | None = None) -> None:
        """Write a folder, whole or not at all: embeddings.npy, cases.parquet and, where known, probabilities and looks.

        Args:
            folder: Where it shall be; nothing, or an empty folder, must be there.
            replace: Replace a folder of embeddings that lies there.
            key: What the embeddings were computed from, as JSON; kept in the header, for caches.

        Raises:
            OutputError: `folder` holds something that would be lost, or can't be written.
        """

        def write(place: Path) -> None:
            np.save(place / "embeddings.npy", self.embeddings)
            for name, values in (("probabilities", self.probabilities), ("looks", self.looks)):
                if values is not None:
                    np.save(place / f"{name}.npy", values)
            write_parquet(self.frame, place / "cases.parquet")

        content = {"provenance": asdict(self.provenance), "key": dict(key or {})}
        write_folder(Path(folder), KIND, content, write, replace=replace)

    @classmethod
    def load(cls, folder: Path | str) -> EmbeddingTable:
        """Read a folder that `save` wrote.

        Args:
            folder: The folder, of `hierderm embed` too.

        Returns:
            The table.

        Raises:
            EmbeddingError: It is none, or names the file that is damaged or missing.
        """
        folder = Path(folder)

        def read(header: Header) -> EmbeddingTable:
            frame = read_parquet(header.file("cases.parquet"), EmbeddingError)
            require_rows(frame)
            vectors, made_by = read_vectors(header.file("embeddings.npy")), header.parsed(_Content).provenance
            probabilities, looks = (header.optional(f"{name}.npy") for name in ("probabilities", "looks"))
            return cls(
                vectors,
                frame,
                made_by,
                read_array(probabilities) if probabilities else None,
                read_vectors(looks) if looks else None,
            )

        return read_folder(folder, KIND, read, error=EmbeddingError)


@dataclass(frozen=True)
class Encoded:
    """What one pass gives.

    Attributes:
        embeddings: Unit length, shape (n_images, dim), float32.
        probabilities: Of the conditions, shape (n_images, n_fine), float32, rows summing to 1; None where the model
            does not classify conditions.
    """

    embeddings: Vectors
    probabilities: Vectors | None = None


class Encodes(Protocol):
    """Anything that turns image files into vectors, shape (n_images, dim), is a model."""

    def encode(self, images: list[Path], /) -> npt.ArrayLike: ...


def provenance_of(model: object) -> Provenance:
    """What a model records of itself; empty where it records nothing."""
    found = getattr(model, "provenance", None)
    return found if isinstance(found, Provenance) else Provenance()


class ImageTable(Protocol):
    """A table of images, as `CaseTable` is one: a row an image, and where each file is."""

    @property
    def frame(self) -> pd.DataFrame: ...
    @property
    def paths(self) -> list[Path]: ...


def embeddings_of(
    source: EmbeddingTable | Encodes | npt.ArrayLike | str | Path,
    table: ImageTable,
    probabilities: npt.ArrayLike | str | Path | None = None,
) -> EmbeddingTable:
    """Embeddings of a table's images from wherever they come.

    Args:
        source: An EmbeddingTable; a saved one's folder; an array of shape (n_images, dim) or an .npy file, row by row
            those of `table`, brought to unit length; or a model, anything with `encode(paths) -> array`. A model that
            has `embed(table) -> EmbeddingTable`, as hierderm's own, is asked for that: it brings probabilities and
            provenance.
        table: The images.
        probabilities: Of the conditions, shape (n_images, n_fine), rows summing to 1, or an .npy file.

    Raises:
        EmbeddingError: The vectors do not fit the table, or are not finite.
    """
    if isinstance(source, str | Path):
        source = read_array(source) if Path(source).suffix.lower() == ".npy" else EmbeddingTable.load(source)
    elif not isinstance(source, EmbeddingTable) and hasattr(source, "embed"):
        source = source.embed(table)
    elif hasattr(source, "encode"):
        source = source.encode(table.paths)
    if isinstance(source, EmbeddingTable):
        _require_same_images(source.frame, table.frame)
    else:
        vectors = _numbers(source, "embeddings")
        if vectors.ndim != 2 or len(vectors) != len(table.frame):
            raise EmbeddingError(
                f"embeddings must have shape (n_images, dim) with a row for each of the {len(table.frame)} rows of the "
                f"table, in their order, got {vectors.shape}."
            )
        source = EmbeddingTable(unit_length(vectors), table.frame.reset_index(drop=True))
    if probabilities is None:
        return source
    given = read_array(probabilities) if isinstance(probabilities, str | Path) else probabilities
    return replace(source, probabilities=_numbers(given, "probabilities").astype(np.float32))


def _require_same_images(embedded: pd.DataFrame, frame: pd.DataFrame) -> None:
    """EmbeddingError where the table has other image files, by their hashes, than those that were embedded."""
    if c.IMAGE_HASH not in embedded or c.IMAGE_HASH not in frame:
        return
    before = dict(zip(embedded[c.IMAGE_ID], embedded[c.IMAGE_HASH], strict=True))
    rows = zip(frame[c.IMAGE_ID].astype(str), frame[c.IMAGE_HASH], strict=True)
    if replaced := [f"'{image}'" for image, now in rows if now and before.get(image, now) not in (now, "")]:
        raise EmbeddingError(
            f"{len(replaced)} image(s) were replaced since they were embedded: {some_of(replaced)}. Embed them again."
        )


def by_blocks(rows: npt.NDArray[Any], compute: Callable[[npt.NDArray[Any]], Any]) -> npt.NDArray[Any]:
    """`compute` of some rows after the others, joined: its intermediate arrays stay small."""
    parts = [compute(rows[start : start + BLOCK]) for start in range(0, max(1, len(rows)), BLOCK)]
    return np.concatenate(parts)


def unit_length(vectors: Floats) -> Vectors:
    """Rows divided by their length, float32; a zero row is an error, as it has no direction."""
    vectors = np.asarray(vectors)
    unit = np.empty(vectors.shape, dtype=np.float32)
    for start in range(0, len(vectors), BLOCK):
        some = vectors[start : start + BLOCK].astype(np.float64)
        length = np.linalg.norm(some, axis=1, keepdims=True)
        if not np.isfinite(some).all() or (length == 0).any():
            wrong = ~np.isfinite(some).all(axis=1) | (length[:, 0] == 0)
            row = start + int(np.flatnonzero(wrong)[0])
            raise EmbeddingError(f"embeddings must be finite and not zero, row {row} is.")
        unit[start : start + BLOCK] = some / length
    return unit


def require_rows(frame: pd.DataFrame) -> None:
    """EmbeddingError where the rows that lie with vectors can't be those of a checked table."""
    if lacking := [name for name in (c.IMAGE_ID, c.CASE_ID) if name not in frame]:
        raise EmbeddingError(f"the table must have the columns {lacking}, it has {list(frame.columns)}.")
    for name in frame.columns.intersection([c.IMAGE_ID, c.CASE_ID, c.CONDITION]):
        wrong = [value for value in frame[name] if not isinstance(value, str) or not value or not value.isprintable()]
        if wrong:
            raise EmbeddingError(f"{name} must be text that can be seen, got {some_of([ascii(v) for v in wrong])}.")
    if repeated := sorted(set(frame[c.IMAGE_ID][frame[c.IMAGE_ID].duplicated()])):
        raise EmbeddingError(f"each image_id must come once, {some_of(repeated)} come(s) several times.")


def read_vectors(path: Path, *, mapped: bool = False) -> Vectors:
    """Vectors as we write them; EmbeddingError where they have another type. `mapped`: see `read_array`."""
    vectors = read_array(path, mapped=mapped)
    if vectors.dtype != np.float32:
        raise EmbeddingError(f"{path} must hold float32, got {vectors.dtype}.")
    return vectors


def read_array(path: Path | str, *, mapped: bool = False) -> Floats:
    """A numeric array from an .npy file; EmbeddingError where it is none. Pickles are never loaded.

    `mapped`: leave it on the disk, to be read where it is used.
    """
    array = _load(path, mapped)
    if array.ndim != 2:
        raise EmbeddingError(f"{path} must hold numbers, shape (n_images, dim), got {array.shape} of {array.dtype}.")
    return _numbers(array, str(path))


def _load(path: Path | str, mapped: bool) -> npt.NDArray[Any]:
    try:
        require_regular(Path(path))
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except Exception as error:  # numpy raises errors of all kinds on damaged headers
        raise EmbeddingError(f"{path} must be an .npy file of numbers: {error}.") from None
    if not isinstance(array, np.ndarray):
        raise EmbeddingError(f"{path} must hold one array, it is an archive of several. Save the one with np.save.")
    return array


def _numbers(values: Any, name: str) -> Floats:
    """Values as floats; EmbeddingError where they are no real numbers, which a conversion would hide."""
    try:
        array: npt.NDArray[Any] = np.asanyarray(values)  # one on the disk stays there
    except ValueError as error:  # rows of different lengths
        raise EmbeddingError(f"{name} must be an array of numbers ({error}).") from None
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise EmbeddingError(f"{name} must be real numbers, got {array.dtype}.")
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)


def _require_probabilities(probabilities: Floats, n_images: int) -> None:
    if probabilities.ndim != 2 or len(probabilities) != n_images:
        raise EmbeddingError(f"probabilities must have a row an image ({n_images}), got {probabilities.shape}.")
    wrong = ~np.isfinite(probabilities).all(axis=1) | (probabilities < 0).any(axis=1)
    wrong |= np.abs(probabilities.sum(axis=1, dtype=np.float64) - 1) > UNIT_TOLERANCE
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise EmbeddingError(
            f"probabilities must be finite, from 0, and sum to 1 in each row; {int(wrong.sum())} row(s) are not so, "
            f"the first is row {row} with the sum {probabilities[row].sum():.4f}."
        )
