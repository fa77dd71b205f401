"""Who proposes the rows that are worth comparing: all of them, or those that a FAISS structure finds.

An engine only proposes. The proposed rows are compared with the stored vectors, so similarities are exact and a row
that must not come back never does, whatever the engine returns.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hierderm.errors import IndexFolderError, MissingExtraError
from hierderm.threads import n_threads
from hierderm.types import IntArray, Mask, Vectors

Kind = Literal["flat", "hnsw", "ivf", "ivfpq"]
KINDS: tuple[Kind, ...] = ("flat", "hnsw", "ivf", "ivfpq")
FLAT_UP_TO, HNSW_UP_TO = 50_000, 2_000_000  # images, for the automatic choice
LINKS, BUILD_EFFORT = 32, 100  # of an HNSW graph: neighbours a node, candidates while building
TRAINING_VECTORS = 100_000  # of k-means, at most
TOO_MANY_REMOVED = 0.2  # share of a graph's nodes; beyond it the graph is built anew


def automatic_kind(n_images: int) -> Kind:
    """Exact search while that is fast, then a graph, then compressed lists."""
    return "flat" if n_images <= FLAT_UP_TO else "hnsw" if n_images <= HNSW_UP_TO else "ivfpq"


def import_faiss() -> Any:
    """FAISS, limited to the threads the process may use; MissingExtraError where it is not installed."""
    try:
        import faiss
    except ImportError:
        raise MissingExtraError("an index other than 'flat'", package="faiss-cpu") from None
    faiss.omp_set_num_threads(n_threads())
    return faiss


def return_memory() -> None:
    """Give freed memory back to the system, where the C library (glibc) would keep it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class Engine:
    """A FAISS structure over the rows of a gallery, each named by an id: a non-negative integer.

    `effort`: how far a search looks (efSearch of a graph, lists of an inverted file); more finds more and takes longer.
    `ids`: of the rows, shape (n_rows,), int64.
    """

    def __init__(self, kind: Kind, index: Any, effort: int, ids: IntArray) -> None:
        self.kind, self.index, self.effort = kind, index, effort
        self._name(ids)

    @classmethod
    def build(cls, kind: Kind, vectors: Vectors, seed: int = 0) -> Engine:
        """The structure over `vectors`, shape (n_rows, dim), unit length."""
        faiss = import_faiss()
        n, dim = vectors.shape
        if kind == "hnsw":
            index = faiss.index_factory(dim, f"HNSW{LINKS},SQfp16", faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = BUILD_EFFORT
            index.add(vectors)
            return cls(kind, index, 64, np.arange(n))
        lists = max(1, min(round(4 * n**0.5), n // 39))
        index = faiss.index_factory(dim, f"IVF{lists},{_coding(kind, n, dim)}", faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1  # FAISS warns on the terminal below 39
        if kind == "ivfpq":
            index.pq.cp.niter, index.pq.cp.max_points_per_centroid = 10, 64
            index.pq.cp.min_points_per_centroid = 1
        chosen = np.sort(np.random.default_rng(seed).permutation(n)[:TRAINING_VECTORS])
        index.train(np.ascontiguousarray(vectors[chosen]))
        index.add_with_ids(vectors, np.arange(n))
        return cls(kind, index, 1, np.arange(n))

    @classmethod
    def load(
        cls, path: Path, kind: Kind, effort: int, ids: IntArray, *, shape: tuple[int, ...], mapped: bool
    ) -> Engine:
        """Read what `save` wrote over vectors of this `shape`; `mapped` leaves it on disk, for search only.

        IndexFolderError where it is something else.
        """
        faiss = import_faiss()
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
        except RuntimeError as error:
            raise IndexFolderError(f"{path} could not be read by FAISS ({str(error)[:200]}). Build again.") from None
        graph = kind == "hnsw"
        fits = (
            isinstance(index, faiss.IndexHNSW if graph else faiss.IndexIVF)
            and index.d == shape[1]
            and index.metric_type == faiss.METRIC_INNER_PRODUCT
            and ids.shape == shape[:1]
            and ids.dtype == np.int64
            and len(np.unique(ids)) == len(ids) > 0
            and ids.min() >= 0
            and (ids.max() < index.ntotal if graph else index.ntotal == len(ids))
            and effort >= 1
        )
        if not fits:
            raise IndexFolderError(
                f"{path} must be a FAISS index of kind '{kind}' over {shape[0]} vectors of length {shape[1]}, with an "
                f"id each and an effort from 1, got {type(index).__name__} of {index.ntotal} of length {index.d}, "
                f"{ids.shape} ids of {ids.dtype}, effort {effort}. Build again."
            )
        return cls(kind, index, effort, ids)

    def save(self, path: Path) -> None:
        import_faiss().write_index(self.index, str(path))

    @property
    def max_effort(self) -> int:
        return 2048 if self.kind == "hnsw" else int(self.index.nlist)

    @property
    def removed(self) -> int:
        """Number of removed rows that the structure still holds."""
        return int(self.index.ntotal) - len(self.ids)

    def add(self, vectors: Vectors) -> None:
        """Rows after those there are."""
        ids = self._next_id + np.arange(len(vectors))
        if self.kind == "hnsw":
            self.index.add(vectors)
        else:
            self.index.add_with_ids(vectors, ids)
        self._name(np.concatenate([self.ids, ids]))

    def keep(self, kept: Mask) -> None:
        """Remove the other rows, shape (n_rows,). A graph can't: their nodes stay, and no search returns them."""
        if self.kind != "hnsw":
            self.index.remove_ids(import_faiss().IDSelectorBatch(self.ids[~kept]))
        self._name(self.ids[kept])

    def propose(self, queries: Vectors, n: int, allowed: Mask | None = None) -> IntArray:
        """For each query about the nearest `n` rows, in no order, shape (n_queries, n); -1 where fewer were found.

        `allowed`: for each row whether it may come, shape (n_rows,), or None for all. The smaller their share, the
        further the search looks: among all that it looks at, as many are allowed as without a filter.
        """
        faiss = import_faiss()
        options: dict[str, Any] = {}
        effort = self.effort
        if self.removed or allowed is not None:
            bitmap = np.packbits(self._by_id(allowed), bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(len(bitmap), faiss.swig_ptr(bitmap))
        if allowed is not None:
            effort = min(self.max_effort, round(effort / max(float(allowed.mean()), 1e-9)))
        if self.kind == "hnsw":  # without its bounded queue FAISS would not look at the selector
            parameters = faiss.SearchParametersHNSW(efSearch=max(effort, n), bounded_queue=True, **options)
        else:
            parameters = faiss.SearchParametersIVF(nprobe=effort, **options)
        # faiss.contrib.torch_utils, which pytorch-metric-learning loads, replaces `search` by one without `params`.
        search = getattr(self.index, "search_numpy", self.index.search)
        found = np.asarray(search(np.ascontiguousarray(queries), n, params=parameters)[1], dtype=np.int64)
        return np.where(found >= 0, self._places[found], -1)

    def _by_id(self, allowed: Mask | None) -> Mask:
        """For each id whether it may come, those of removed rows not, shape (n_ids,)."""
        if allowed is not None and not self.removed and len(allowed) == self._next_id:
            return allowed  # an id is its row
        by_id = np.zeros(self._next_id, dtype=bool)
        by_id[self.ids if allowed is None else self.ids[allowed]] = True
        return by_id

    @property
    def _next_id(self) -> int:
        return max(int(self.ids.max()) + 1, self.index.ntotal if self.kind == "hnsw" else 0)  # a graph counts its nodes

    def _name(self, ids: IntArray) -> None:
        self.ids = ids
        self._places = np.full(self._next_id, -1, dtype=np.int64)  # the row of each id, -1 where it was removed
        self._places[ids] = np.arange(len(ids))


def _coding(kind: Kind, n: int, dim: int) -> str:
    """How an inverted file keeps its vectors: in half precision, or as product codes, a byte for eight numbers."""
    if kind == "ivf":
        return "SQfp16"
    parts = next(parts for parts in range(max(1, dim // 8), 0, -1) if dim % parts == 0)
    bits = 8 if n >= 4 * 256 else 4
    return f"PQ{parts}x{bits}np"  # np: without polysemous training, which takes nearly all the time and is not used
