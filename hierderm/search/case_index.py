"""CaseIndex: the nearest cases to a query, with exact similarities and filters that nothing slips through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.config.settings import ForwardEngine
from hierderm.embeddings import Aggregation, EmbeddingTable, Provenance
from hierderm.engines import KINDS, Engine, Kind, automatic_kind
from hierderm.errors import SearchError
from hierderm.search.answer import Calibration
from hierderm.search.checks import check_conditions, check_ids, require_same_model, require_tree
from hierderm.search.filters import Where, Within
from hierderm.search.gallery import Asked, Gallery
from hierderm.search.memory import MemoryGallery
from hierderm.search.nearest import nearest_cases
from hierderm.search.query import check_options, mean_vector, query_groups
from hierderm.search.result import SearchResult
from hierderm.search.shared_lock import SharedLock
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Count, Floats, IntArray, Share, Vectors

if TYPE_CHECKING:
    from hierderm.data.table import CaseTable
    from hierderm.search.building import Model


@dataclass(frozen=True)
class About:
    """What an index records of itself: kind, effort of its search, the recall measured with it, and where things are.

    `model`: folder of a trained model or name of a backbone that embeds queries, '' where unknown; `image_root`: where
    relative image paths start; `not_calibrated`: why it has no calibration, '' where it has one or nobody tried;
    `trained`: whether the model has learnt from the cases of a split.
    """

    kind: Kind
    effort: Count = 0
    recall_at_10: Share = 1.0
    model: str = ""
    image_root: str = ""
    not_calibrated: str = ""
    trained: bool = False


@dataclass(repr=False)
class CaseIndex:
    """A searchable gallery of embedded images of cases. Make one with `build` or `from_embeddings`, or `open` a folder.

    Threads may share an index: they search together, and a change waits for the searches that run.

    Attributes:
        gallery: The images, as a search reads them; a change replaces it.
        provenance: The model, preprocessing, tree and split that the vectors come from.
        about: Kind, measured recall, model and image folder.
        calibration: How to read an answer from the nearest cases; None where it was not learnt.
    """

    gallery: Gallery
    provenance: Provenance
    about: About
    calibration: Calibration | None = None
    lock: SharedLock = field(default_factory=SharedLock, init=False, repr=False, compare=False)

    def __repr__(self) -> str:
        calibrated = "calibrated" if self.calibration else "not calibrated"
        return f"CaseIndex({len(self)} images of {self.n_cases} cases, kind {self.about.kind}, {calibrated})"

    def __len__(self) -> int:
        """Number of images."""
        return len(self.gallery)

    @property
    def n_cases(self) -> int:
        """Number of cases."""
        return self.gallery.n_cases

    @property
    def taxonomy(self) -> Taxonomy:
        """The tree of the conditions."""
        return self.gallery.taxonomy

    @property
    def vectors(self) -> Vectors:
        """Of all images, unit length, shape (n_images, dim), float32."""
        return self.gallery.vectors_at()

    @property
    def frame(self) -> pd.DataFrame:
        """The rows of the case table of all images."""
        return self.gallery.frame_at()

    @property
    def looks(self) -> Vectors | None:
        """Of all images (`hierderm.data.look`), shape (n_images, n_look), nan where unknown; None without any."""
        return self.gallery.looks_at()

    @classmethod
    def build(
        cls,
        cases: CaseTable,
        model: Model,
        *,
        embeddings: EmbeddingTable | Floats | Path | str | None = None,
        kind: Kind | Literal["auto"] = "auto",
        splits: Sequence[str] = (),
        accuracy: float = 0.8,
        k: int = 10,
        engine: ForwardEngine = "auto",
    ) -> CaseIndex:
        """Embed the images of a table and index them; calibrate answers where the table has validation cases.

        Args:
            cases: The checked table, a row an image.
            model: What embeds the images, and later the queries: a model folder, the name of a backbone, or any object
                with `encode(images) -> (n, dim)`. None where `embeddings` are given and queries will be vectors.
            embeddings: The vectors of the table's rows, where they are known: an EmbeddingTable or its folder, an
                array of shape (n_images, dim), or an .npy file.
            kind: 'flat' is exact; 'hnsw', 'ivf' and 'ivfpq' need FAISS; 'auto' chooses by size.
            splits: Splits to index, such as ('train', 'validation'); empty for all rows.
            accuracy: The accuracy that answers must keep to on validation cases, in (0, 1).
            k: Nearest cases that an answer is read from, >= 1.
            engine: What computes on a CPU where `model` is a name, as `hierderm.load` has it.

        Returns:
            The index, in memory; `save` writes it.

        Raises:
            SearchError: The embeddings do not belong to the table or to the model.
        """
        from hierderm.search.building import build_index

        return build_index(
            cases, model, embeddings=embeddings, kind=kind, splits=splits, accuracy=accuracy, k=k, engine=engine
        )

    @classmethod
    def from_embeddings(
        cls,
        table: EmbeddingTable,
        taxonomy: Taxonomy,
        *,
        kind: Kind | Literal["auto"] = "auto",
        model: str = "",
        image_root: Path | str = "",
    ) -> CaseIndex:
        """Index embeddings, without calibration.

        The effort of an approximate kind is raised until recall@10 reaches 0.95, or its limit.

        Args:
            table: Unit-length vectors and the rows of their images.
            taxonomy: The tree of the table's conditions.
            kind: 'flat' is exact; 'hnsw', 'ivf' and 'ivfpq' need FAISS; 'auto' chooses by size.
            model: Folder or name of the model that embeds queries; '' where it is unknown.
            image_root: Folder that relative image paths start at.

        Returns:
            The index, in memory.

        Raises:
            SearchError: The table is empty, repeats an image, or does not fit the tree.
        """
        require_tree(len(table), table.provenance, taxonomy)
        if kind != "auto" and kind not in KINDS:
            raise SearchError(f"kind must be 'auto' or one of {list(KINDS)}, got '{kind}'.")
        check_ids(table.frame, pd.Index([]))
        check_conditions(table.frame, taxonomy)
        chosen: Kind = automatic_kind(len(table)) if kind == "auto" else kind
        about = About(chosen, model=model, image_root=str(image_root))
        engine = None if chosen == "flat" else Engine.build(chosen, np.asarray(table.embeddings))
        frame = table.frame.reset_index(drop=True)
        gallery = MemoryGallery(table.embeddings, frame, taxonomy, about.image_root, table.looks, engine)
        index = cls(gallery, table.provenance, about)
        index.tune()
        return index

    @classmethod
    def open(cls, folder: Path | str) -> CaseIndex:
        """Open an index; its vectors stay on disk, memory-mapped, or on the server.

        Args:
            folder: What `save` wrote, or the address of a database, 'postgresql://host/database'.

        Returns:
            The index. Change it within `updating`, so that the folder changes, too.

        Raises:
            IndexFolderError: A file is damaged, missing or foreign; the message names it.
            DatabaseError: The server can't be reached, or has no index.
        """
        from hierderm.search.places import place_of

        return place_of(folder).opened()

    def save(self, folder: Path | str, *, replace: bool = False) -> None:
        """Write the index as a folder or into a database, whole or not at all.

        Args:
            folder: A new or empty folder, or the address of a database, 'postgresql://host/database'.
            replace: Replace an index that is there.

        Raises:
            IndexFolderError: The folder holds an index and `replace` is false, or files that are not of an index.
        """
        from hierderm.search.places import place_of

        place_of(folder).save(self, replace=replace)

    @staticmethod
    def updating(folder: Path | str) -> AbstractContextManager[CaseIndex]:
        """Change the index of a folder or a database: `with CaseIndex.updating(folder) as index: index.add(...)`.

        It is written when the block ends well, and stays as it was when it does not; other writers wait.

        Args:
            folder: What `save` wrote, or the address of a database.

        Returns:
            A block in which the index may be changed.
        """
        from hierderm.search.places import place_of

        return place_of(folder).updating()

    def add(self, table: EmbeddingTable) -> None:
        """Add the images of cases, without building anew. What was learnt from the index is learnt again: see `remove`.

        Args:
            table: Embeddings by the index's own model, and the rows of their images; see `embed_for`. Their split is
                not kept: another table's validation cases are not those that the model left out.

        Raises:
            SearchError: Another model made them, an image is in the index already, or a condition is not in the tree.
        """
        self.require_same_model(table.provenance)
        if table.embeddings.shape[1] != self.gallery.dim:
            raise SearchError(f"embeddings must have length {self.gallery.dim}, got {table.embeddings.shape[1]}.")
        check_conditions(table.frame, self.taxonomy)
        frame = table.frame.assign(**{c.SPLIT: ""}) if c.SPLIT in table.frame else table.frame
        with self.lock.writing():
            self.gallery = self.gallery.add(replace(table, frame=frame))
            self._learn_again()

    def remove(self, case_ids: Sequence[str]) -> None:
        """Take cases out with all their images. A graph is built anew once a fifth of its nodes have gone.

        Recall and calibration are learnt again. Without validation cases the calibration is withdrawn: see
        `about.not_calibrated`.

        Args:
            case_ids: The ids of the cases.

        Raises:
            SearchError: A case is not in the index, or none would be left.
        """
        with self.lock.writing():
            wanted = {case_ids} if isinstance(case_ids, str) else set(map(str, case_ids))
            known = self.gallery.case_numbers(wanted)
            if unknown := sorted(wanted - known.keys()):
                raise SearchError(f"{len(unknown)} case(s) to remove are not in the index: {unknown[:5]}.")
            if len(known) == self.n_cases:
                raise SearchError("an index must keep at least one case; delete it to be rid of all.")
            self.gallery = self.gallery.remove(sorted(wanted))
            self._learn_again()

    def require_same_model(self, made_by: Provenance) -> None:
        """Refuse embeddings that do not come from the model of the index.

        Args:
            made_by: Where the embeddings come from.

        Raises:
            SearchError: They come from other weights or another preprocessing.
        """
        require_same_model(made_by, self.provenance)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Have all searches of this thread within a block see the same cases.

        Returns:
            A block of searches.
        """
        with self.lock.reading(), self.gallery.reading():
            yield

    def search(
        self,
        vectors: Floats,
        *,
        k: int = 10,
        within: Within | None = None,
        where: Where | None = None,
        aggregation: Aggregation = "best",
        per_condition: int = 0,
        leave_out: Sequence[str | Iterable[str]] | None = None,
        cases: IntArray | Sequence[int] | None = None,
    ) -> SearchResult:
        """Find the `k` nearest cases to each query. What a filter excludes never comes; `k` come wherever `k` exist.

        Args:
            vectors: Embedded images, unit length, shape (n, dim): each is a query, unless `cases` groups them. Shape
                (dim,) is one query.
            k: Cases to find for each query, 1 to 1,000,000.
            within: Only cases under these nodes: one or several names of any level.
            where: Only images whose column has the value or one of the values, such as {'fitzpatrick': [5, 6]}.
            aggregation: A case is as similar as its best pair of images ('best'), or as the means of the embeddings
                ('mean').
            per_condition: At most so many cases of one condition, so that one does not crowd out the rest; 0 for any
                number.
            leave_out: For each query the id or the ids of cases that may not come, such as its own.
            cases: The query that each row of `vectors` belongs to, numbered from 0, shape (n,); one to three rows each.

        Returns:
            The hits of each query, nearest first; see `SearchResult.to_pandas`.

        Raises:
            SearchError: A vector, a filter or an option does not fit the index.
        """
        groups = query_groups(vectors, cases, self.gallery.dim)
        check_options(k, aggregation, per_condition)
        if leave_out is not None and len(leave_out) != len(groups):
            raise SearchError(f"leave_out must have an entry a query ({len(groups)}), got {len(leave_out)}.")
        if aggregation == "mean":
            groups = [mean_vector(group) for group in groups]
        rows = np.full((len(groups), k), -1)
        similarity = np.full((len(groups), k), np.nan, dtype=np.float32)
        with self.reading():
            gallery = self.gallery
            outs = [()] * len(groups) if leave_out is None else leave_out
            asked = Asked(k, outs, within, where, aggregation, per_condition)
            for query, found in enumerate(gallery.propose(groups, asked)):
                mean = partial(gallery.case_similarity, query=groups[query][0]) if aggregation == "mean" else None
                near, scores = nearest_cases(found, k, score_cases=mean, per_condition=per_condition)
                rows[query, : len(near)], similarity[query, : len(near)] = near, scores
            return SearchResult(rows, similarity, gallery.holding(rows))

    def measure_recall(self) -> float:
        """Search for some images of the index, as it is searched and exactly.

        Returns:
            The share of the exact 10 nearest other images that it finds, in [0, 1].
        """
        with self.reading():
            return self.gallery.recall()

    def tune(self) -> None:
        """Raise the effort until the recall is as wanted, and record both."""
        if self.gallery.approximate:
            effort, recall = self.gallery.tune()
            self.about = replace(self.about, effort=effort, recall_at_10=recall)

    def _learn_again(self) -> None:
        """What was learnt from rows that have changed: the recall of the engine, and how answers are read."""
        from hierderm.search.building import recalibrate

        self.tune()
        recalibrate(self)
