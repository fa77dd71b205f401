"""Filling a model: a stream of rows through COPY, in parts that each come whole, so that a load can go on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.artifacts import HEADER, Header, read_folder
from hierderm.data.table import split_hash
from hierderm.embeddings import KIND, EmbeddingTable, Provenance, read_vectors, require_rows
from hierderm.errors import EmbeddingError, SearchError, some_of
from hierderm.files import file_hash
from hierderm.json_files import checked
from hierderm.search.checks import check_conditions, check_ids, require_tree
from hierderm.search.postgres.cells import Kinds, cells_of, kinds_of, require_storable
from hierderm.search.postgres.schema import SCHEMA, Precision, vectors_table
from hierderm.search.postgres.servers import Session
from hierderm.search.postgres.statements import preorder
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import IntArray, Vectors

PART = 10_000  # images that are committed together
LONGEST_VECTOR = 16_000  # numbers, that pgvector holds
_BEGIN, _END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"  # of binary COPY


@dataclass(frozen=True)
class Source:
    """Embedded images that are read part by part, always in the same order: a table in memory, or a folder.

    Attributes:
        vectors: Unit length, shape (n_images, dim); of a folder they stay on the disk, and so do the looks.
        looks: Shape (n_images, n_look), or None.
        kinds: The columns of the case table, and whether each holds numbers.
        provenance: What made the embeddings.
        content_hash: Tells it from another source.
        frames: The case table in frames of `PART` rows.
    """

    vectors: Vectors
    looks: Vectors | None
    kinds: Kinds
    provenance: Provenance
    content_hash: str
    frames: Callable[[], Iterable[pd.DataFrame]]

    @classmethod
    def of_table(cls, table: EmbeddingTable) -> Source:
        """A table in memory; SearchError where PostgreSQL can't hold its cells."""
        require_storable(table.frame)
        frame = table.frame.reset_index(drop=True)
        digest = hashlib.sha256(repr(list(frame)).encode())
        digest.update(pd.util.hash_pandas_object(frame.astype(str)).to_numpy().tobytes())
        for start in range(0, len(table), PART):
            digest.update(np.ascontiguousarray(table.embeddings[start : start + PART]).tobytes())

        def frames() -> Iterator[pd.DataFrame]:
            return (frame[start : start + PART].reset_index(drop=True) for start in range(0, len(frame), PART))

        content_hash = digest.hexdigest()[:12]
        return cls(table.embeddings, table.looks, kinds_of(frame), table.provenance, content_hash, frames)

    @classmethod
    def of_folder(cls, folder: Path) -> Source:
        """What `EmbeddingTable.save` wrote, read as it is needed; EmbeddingError where it is none, or damaged."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        def read(header: Header) -> Source:
            vectors, found = read_vectors(header.file("embeddings.npy"), mapped=True), header.optional("looks.npy")
            cases = header.file("cases.parquet")
            file = pq.ParquetFile(cases)
            if file.metadata.num_rows != len(vectors):
                raise EmbeddingError(
                    f"{folder} has {len(vectors)} vectors for {file.metadata.num_rows} rows of its table."
                )
            numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
            kinds = {one.name: any(is_one(one.type) for is_one in numbers) for one in file.schema_arrow}
            made_by = checked(header.content["provenance"], Provenance, str(folder / HEADER), EmbeddingError)

            def frames() -> Iterator[pd.DataFrame]:
                batches = pq.ParquetFile(cases).iter_batches(batch_size=PART)
                return (part.to_pandas().reset_index(drop=True) for part in batches)

            looks = None if found is None else read_vectors(found, mapped=True)
            return cls(vectors, looks, kinds, made_by, file_hash(folder / HEADER), frames)

        return read_folder(folder, KIND, read, error=EmbeddingError)

    @property
    def n_images(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def split_hash(self) -> str:
        """As `CaseTable.split_hash`; '' without a split."""
        if c.SPLIT not in self.kinds:
            return ""
        table = pd.concat([frame[[c.CASE_ID, c.SPLIT]] for frame in self.frames()])
        return split_hash(table[c.CASE_ID].tolist(), table[c.SPLIT].tolist())

    def parts(self, start: int) -> Iterator[EmbeddingTable]:
        """From image number `start` on, up to `PART` images each."""
        begin = 0
        for frame in self.frames():
            some = slice(begin, begin + len(frame))
            begin = some.stop
            if some.stop > start:
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
        require_storable(frame)
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
        how = f"copy {SCHEMA}.{name}_{self.model} from stdin {'binary' if isinstance(rows, bytes) else ''}"
        with address.faults("loading"), connection.cursor().copy(how) as copy:
            if isinstance(rows, bytes):
                copy.write(rows)
            else:
                for row in rows:
                    copy.write_row((self.model, *row))

    def _known_ids(self, ids: pd.Series) -> pd.Index[Any]:
        statement = f"select image_id from {SCHEMA}.images_{self.model} where image_id = any(%s)"
        found = self.session.rows(statement, (ids.astype(str).tolist(),))
        return pd.Index([str(row[0]) for row in found], dtype=str)

    def _cases(self, ids: pd.Series) -> tuple[IntArray, list[tuple[str, int]]]:
        """The numbers of the cases of some images, shape (n_images,), and the new ones among them."""
        codes, distinct = pd.factorize(ids)
        statement = f'select case_id, "case" from {SCHEMA}.cases_{self.model} where case_id = any(%s)'
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
    """SearchError where a source has no images, lacks a column, has too long vectors or was made with another tree."""
    require_tree(source.n_images, source.provenance, taxonomy)
    if lacking := [name for name in (c.IMAGE_ID, c.CASE_ID, c.CONDITION, c.IMAGE_PATH) if name not in source.kinds]:
        raise SearchError(f"the table must have the columns {some_of(lacking)}, it has {list(source.kinds)}.")
    if source.dim > LONGEST_VECTOR:
        raise SearchError(f"pgvector holds vectors of up to {LONGEST_VECTOR} numbers, these have {source.dim}.")


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
