"""Filling a model: a stream of rows through COPY, in parts that each come whole, so that a load can go on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

import numpy as np
import pandas as pd
from psycopg.sql import SQL

from hierderm import columns as c
from hierderm.artifacts import HEADER, Header, read_folder
from hierderm.data.table import split_hash
from hierderm.embeddings import KIND, EmbeddingTable, Provenance, read_vectors, require_rows
from hierderm.errors import EmbeddingError, SearchError, some_of
from hierderm.files import file_hash
from hierderm.json_files import checked
from hierderm.search.checks import check_conditions, check_ids
from hierderm.search.postgres.cells import Kinds, cells_of, kinds_of
from hierderm.search.postgres.schema import Precision, partition, vectors_table
from hierderm.search.postgres.servers import Session
from hierderm.search.postgres.statements import preorder
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import IntArray, Vectors

PART = 10_000  # images that are committed together
_BEGIN, _END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"  # of binary COPY


class Source(Protocol):
    """Embedded images that are read part by part, always in the same order."""

    @property
    def n_images(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def kinds(self) -> Kinds: ...
    @property
    def provenance(self) -> Provenance: ...
    @property
    def has_looks(self) -> bool: ...
    @property
    def content_hash(self) -> str: ...
    def parts(self, start: int) -> Iterator[EmbeddingTable]:
        """From image number `start` on, up to `PART` images each."""


@dataclass(frozen=True)
class TableSource:
    """A table in memory."""

    table: EmbeddingTable

    @property
    def n_images(self) -> int:
        return len(self.table)

    @property
    def dim(self) -> int:
        return int(self.table.embeddings.shape[1])

    @property
    def kinds(self) -> Kinds:
        return kinds_of(self.table.frame)

    @property
    def provenance(self) -> Provenance:
        return self.table.provenance

    @property
    def has_looks(self) -> bool:
        return self.table.looks is not None

    @property
    def content_hash(self) -> str:
        digest = hashlib.sha256(pd.util.hash_pandas_object(self.table.frame.astype(str)).to_numpy().tobytes())
        for start in range(0, self.n_images, PART):
            digest.update(np.ascontiguousarray(self.table.embeddings[start : start + PART]).tobytes())
        return digest.hexdigest()[:12]

    def parts(self, start: int) -> Iterator[EmbeddingTable]:
        whole = self.table
        for begin in range(start, len(whole), PART):
            some = slice(begin, begin + PART)
            looks = None if whole.looks is None else whole.looks[some]
            frame = whole.frame.iloc[some].reset_index(drop=True)
            yield EmbeddingTable(np.asarray(whole.embeddings[some]), frame, whole.provenance, looks=looks)


@dataclass(frozen=True)
class FolderSource:
    """A folder that `EmbeddingTable.save` wrote, read from the disk as it is needed."""

    folder: Path
    vectors: Vectors
    looks: Vectors | None
    kinds: Kinds
    provenance: Provenance

    @classmethod
    def open(cls, folder: Path) -> FolderSource:
        """EmbeddingError where it is none, or damaged."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        def read(header: Header) -> FolderSource:
            vectors = read_vectors(header.file("embeddings.npy"), mapped=True)
            looks = header.optional("looks.npy")
            schema = pq.read_schema(header.file("cases.parquet"))
            numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
            kinds = {one.name: any(is_one(one.type) for is_one in numbers) for one in schema}
            made_by = checked(header.content["provenance"], Provenance, str(folder / HEADER), EmbeddingError)
            return cls(folder, vectors, None if looks is None else read_vectors(looks, mapped=True), kinds, made_by)

        return read_folder(folder, KIND, read, error=EmbeddingError)

    @property
    def n_images(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def has_looks(self) -> bool:
        return self.looks is not None

    @property
    def content_hash(self) -> str:
        return file_hash(self.folder / HEADER)

    @property
    def split_hash(self) -> str:
        """As `CaseTable.split_hash`; '' without a split."""
        if c.SPLIT not in self.kinds:
            return ""
        frame = pd.read_parquet(self.folder / "cases.parquet", columns=[c.CASE_ID, c.SPLIT])
        return split_hash(frame[c.CASE_ID].tolist(), frame[c.SPLIT].tolist())

    def parts(self, start: int) -> Iterator[EmbeddingTable]:
        import pyarrow.parquet as pq

        begin = 0
        for batch in pq.ParquetFile(self.folder / "cases.parquet").iter_batches(batch_size=PART):
            some = slice(begin, begin + len(batch))
            begin = some.stop
            if some.stop > start:
                frame = batch.to_pandas().reset_index(drop=True)
                require_rows(frame)
                looks = None if self.looks is None else np.asarray(self.looks[some])
                yield EmbeddingTable(np.asarray(self.vectors[some]), frame, self.provenance, looks=looks)


@dataclass
class Filling:
    """Where rows of a model go: each case to the server that its id chooses.

    `next_image`, `next_case`: numbers of the next ones; `n_cases`: how many cases came.
    """

    session: Session
    model: int
    precision: Precision
    taxonomy: Taxonomy
    kinds: Kinds
    next_image: int
    next_case: int
    n_cases: int = 0

    def write(self, table: EmbeddingTable, *, with_looks: bool) -> None:
        """Add images after those that are there; SearchError where an id is not new, or a condition unknown."""
        frame, n_servers = table.frame, len(self.session.connections)
        check_ids(frame, self._known_ids(frame[c.IMAGE_ID]))
        check_conditions(frame, self.taxonomy)
        case_ids = frame[c.CASE_ID].astype(str)
        cases, new = self._cases(case_ids)
        images = np.arange(self.next_image, self.next_image + len(table))
        looks = [None] * len(table) if table.looks is None or not with_looks else _look_bytes(table.looks)
        rows = list(zip(images.tolist(), cases.tolist(), frame[c.IMAGE_ID].astype(str), frame[c.IMAGE_PATH].astype(str),
                        cells_of(frame, self.kinds), looks, strict=True))  # fmt: skip
        nodes = np.argsort(preorder(self.taxonomy))[self.taxonomy.encode(frame[c.CONDITION])]
        servers = np.array([server_of(case, n_servers) for case in case_ids])
        for server in self.session.numbers:
            here = np.flatnonzero(servers == server)
            own = [(number, name) for name, number in new if server_of(name, n_servers) == server]
            self._copy(server, "cases", own)
            self._copy(server, "images", [rows[place] for place in here.tolist()])
            packed = _packed(self.model, images[here], cases[here], nodes[here], table.embeddings[here], self.precision)
            self._copy(server, vectors_table(self.precision), packed)
        self.next_image += len(table)

    def _copy(self, server: int, name: str, rows: Sequence[tuple[Any, ...]] | bytes) -> None:
        """Write rows, without their model, or rows in the binary format."""
        address, connection = self.session.addresses[server], self.session.connections[server]
        how = SQL("copy {} from stdin binary" if isinstance(rows, bytes) else "copy {} from stdin")
        with address.faults("a load"), connection.cursor().copy(how.format(partition(name, self.model))) as copy:
            if isinstance(rows, bytes):
                copy.write(rows)
            else:
                for row in rows:
                    copy.write_row((self.model, *row))

    def _known_ids(self, ids: pd.Series) -> pd.Index[Any]:
        statement = SQL("select image_id from {} where image_id = any(%s)").format(partition("images", self.model))
        found = self.session.rows(statement, (ids.astype(str).tolist(),))
        return pd.Index([str(row[0]) for row in found], dtype=str)

    def _cases(self, ids: pd.Series) -> tuple[IntArray, list[tuple[str, int]]]:
        """The numbers of the cases of some images, shape (n_images,), and the new ones among them."""
        codes, distinct = pd.factorize(ids)
        statement = SQL('select case_id, "case" from {} where case_id = any(%s)').format(partition("cases", self.model))
        numbers: dict[str, int] = {row[0]: row[1] for row in self.session.rows(statement, (list(distinct),))}
        names = [str(name) for name in distinct if name not in numbers]
        new = [(name, self.next_case + place) for place, name in enumerate(names)]
        numbers |= dict(new)
        self.next_case += len(new)
        self.n_cases += len(new)
        return np.array([numbers[name] for name in distinct], dtype=np.int64)[codes], new


def server_of(case_id: str, n_servers: int) -> int:
    """The number of the server that has a case."""
    return crc32(case_id.encode()) % n_servers


def require_fit(source: Source, taxonomy: Taxonomy) -> None:
    """SearchError where a source has no images, lacks a column, or was made with another tree."""
    if not source.n_images:
        raise SearchError("an index must have at least one image, got none.")
    if lacking := [name for name in (c.IMAGE_ID, c.CASE_ID, c.CONDITION, c.IMAGE_PATH) if name not in source.kinds]:
        raise SearchError(f"the table must have the columns {some_of(lacking)}, it has {list(source.kinds)}.")
    if source.provenance.taxonomy_hash not in ("", taxonomy.content_hash):
        raise SearchError("the embeddings were made with another taxonomy than the one given. Embed again with it.")


def _look_bytes(looks: Vectors) -> list[bytes | None]:
    return [one.astype("<f4").tobytes() if np.isfinite(one).all() else None for one in looks]


def _packed(
    model: int, images: IntArray, cases: IntArray, nodes: IntArray, vectors: Vectors, precision: Precision
) -> bytes:
    """Rows of the table of vectors in the binary format of COPY: each value after its length in bytes, big-endian.

    A vector is its length, a zero, and its numbers (`vector_send` of pgvector).
    """
    dim, width = vectors.shape[1], 2 if precision == "half" else 4
    values = {"model": ">i4", "image": ">i8", "case": ">i8", "node": ">i4"}
    fields = [("n_fields", ">i2")]
    for name, kind in values.items():
        fields += [(f"{name}_size", ">i4"), (name, kind)]
    fields += [("vector_size", ">i4"), ("dim", ">i2"), ("zero", ">i2")]
    rows = np.zeros(len(vectors), dtype=[*fields, ("vector", f">f{width}", (dim,))])
    rows["n_fields"], rows["dim"], rows["vector"], rows["vector_size"] = 5, dim, vectors, 4 + dim * width
    for name, column in zip(values, (model, images, cases, nodes), strict=True):
        rows[name], rows[f"{name}_size"] = column, rows.dtype[name].itemsize
    return _BEGIN + rows.tobytes() + _END
