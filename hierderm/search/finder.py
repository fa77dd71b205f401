"""CaseFinder: an index with the model that embeds its queries. Pictures go in, cases and an answer come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hierderm import columns as c
from hierderm.data.image_io import ImageLike
from hierderm.data.table import CaseTable
from hierderm.embeddings import Aggregation, EmbeddingTable, Hit, SearchHits
from hierderm.errors import SearchError
from hierderm.search.answer import Answer, Calibration, Candidate, answer, calibrate
from hierderm.search.case_index import MAX_PICTURES, CaseIndex
from hierderm.search.engines import Kind
from hierderm.search.filters import Filter, as_text
from hierderm.search.persistence import open_index
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Floats, IntArray, Vectors

if TYPE_CHECKING:
    from hierderm.model.encoder import Encoder

SHOWN_COLUMNS = (c.FITZPATRICK, c.MONK, c.BODY_SITE, c.SOURCE)
K = 10
NO_FILTER = Filter()


@dataclass(frozen=True)
class Wanted:
    """What a search is asked for; see `CaseIndex.search_cases`."""

    k: int = K
    aggregation: Aggregation = "best"
    only: Filter = NO_FILTER
    per_condition: int = 0


DEFAULTS = Wanted()


@dataclass(frozen=True)
class Found:
    """The cases that were found, what they say, and what the model's own classifier says (None where it has none).

    `embeddings`: of the query, shape (n_pictures, dim); `rows`: positions of the hits in the gallery; `classified`:
    for each level, coarse first, its nodes by falling probability.
    """

    embeddings: Vectors
    hits: tuple[Hit, ...]
    rows: tuple[int, ...]
    answer: Answer | None
    classified: tuple[tuple[Candidate, ...], ...] | None = None


class CaseFinder:
    """An open index and its encoder; threads may share one."""

    def __init__(self, index: CaseIndex, load: Callable[[], Encoder]) -> None:
        self.index, self._load = index, load
        self._encoder: Encoder | None = None
        self._loading = Lock()

    @classmethod
    def open(cls, folder: Path, *, model: str = "") -> CaseFinder:
        """Open an index folder. `model`: where its model is now, by default where it was when the index was built."""
        index = open_index(folder)

        def load() -> Encoder:
            from hierderm.model.encoder import load as load_encoder

            name = model or index.about.model
            if not name:
                raise SearchError("the index does not say which model embeds queries: name it (--model).")
            encoder = load_encoder(name)
            index.require_same_model(encoder.provenance)
            return encoder

        return cls(index, load)

    @property
    def encoder(self) -> Encoder:
        """The model of the index, loaded on first use; SearchError where another one is found in its place."""
        with self._loading:
            if self._encoder is None:
                self._encoder = self._load()
            return self._encoder

    def by_pictures(self, pictures: Sequence[ImageLike], wanted: Wanted = DEFAULTS) -> Found:
        """The cases nearest to one case of one to three pictures: as `Encoder.encode` takes them."""
        if not 1 <= len(pictures) <= MAX_PICTURES:
            raise SearchError(f"a query must have 1 to {MAX_PICTURES} pictures, got {len(pictures)}.")
        encoded = self.encoder.encode_all(pictures)
        tree, probabilities = self.encoder.taxonomy, encoded.probabilities
        classified = None
        if tree is not None and probabilities is not None:
            classified = tuple(_ranked(probabilities.mean(axis=0), tree, level) for level in range(tree.n_levels))
        return replace(self.by_embeddings(encoded.embeddings, wanted), classified=classified)

    def by_image(self, image_id: str, wanted: Wanted = DEFAULTS) -> Found:
        """The cases nearest to a picture of the index, its own case left out."""
        with self.index.lock.reading():
            row = self.index.row_of_image(image_id)
            own = str(self.index.frame[c.CASE_ID].iloc[row])
            return self.by_embeddings(np.asarray(self.index.vectors[[row]]), wanted, leave_out=[own])

    def by_text(self, text: str, wanted: Wanted = DEFAULTS) -> Found:
        """The cases whose pictures are nearest to a text. Similarities of text are not those of pictures: no answer."""
        if not text.strip():
            raise SearchError("a text query must have words, got none.")
        return replace(self.by_embeddings(self.encoder.encode_text(text), wanted), answer=None)

    def by_embeddings(self, embeddings: Vectors, wanted: Wanted = DEFAULTS, leave_out: Sequence[str] = ()) -> Found:
        """The cases nearest to embedded pictures of one case, shape (n_pictures, dim).

        The answer is read from as many nearest cases as were calibrated, however many are shown; where a filter
        narrows the search it has no confidence.
        """
        index, calibration = self.index, self.index.calibration
        with index.lock.reading():
            shown = index.search(
                embeddings,
                k=wanted.k,
                aggregation=wanted.aggregation,
                only=wanted.only,
                leave_out=leave_out,
                per_condition=wanted.per_condition,
            )
            voters = shown
            if calibration is not None and not wanted.only:
                voters = index.search(
                    embeddings, k=calibration.k, aggregation=calibration.aggregation, leave_out=leave_out
                )
            said = answer(voters, index.gallery.fine, index.taxonomy, calibration, calibrated_for=not wanted.only)
            rows = tuple(int(row) for row in shown.rows[0] if row >= 0)
            return Found(embeddings, tuple(index.hits(shown)), rows, said)

    def describe(self, found: Found, *, files: bool) -> dict[str, Any]:
        """An answer as plain JSON. `files`: with the paths of the pictures, which a server must not give away."""
        hits = []
        for hit, row in zip(found.hits, found.rows, strict=True):
            of_row = self.index.frame.iloc[row]
            extra = {name: as_text(of_row[name]) for name in SHOWN_COLUMNS if name in of_row}
            content = {**asdict(hit), "path": list(hit.path), "similarity": round(hit.similarity, 4), **extra}
            del content["file"]
            hits.append({**content, "file": str(hit.file)} if files else content)
        said = found.answer
        return {
            "levels": list(self.index.taxonomy.level_names),
            "answer": None if said is None else _answer_content(said, self.index.taxonomy),
            "classifier": None if found.classified is None else [_candidates(level) for level in found.classified],
            "hits": hits,
        }


def _answer_content(said: Answer, taxonomy: Taxonomy) -> dict[str, Any]:
    return {
        "level": None if said.level is None else taxonomy.level_names[said.level],
        "node": said.node,
        "confidence": None if said.confidence is None else round(said.confidence, 3),
        "reason": said.reason,
        "differential": [_candidates(level) for level in said.differential],
    }


def _candidates(level: Sequence[Candidate]) -> list[dict[str, Any]]:
    return [{**asdict(candidate), "share": round(candidate.share, 4)} for candidate in level]


def _ranked(probabilities: Floats, tree: Taxonomy, level: int) -> tuple[Candidate, ...]:
    of_level = tree.sum_up(probabilities[None].astype(np.float64), level)[0]
    above = tree.names(level - 1) if level else ()
    nodes = tree.levels[level]
    return tuple(
        Candidate(nodes[number].name, float(of_level[number]), above[nodes[number].parent] if level else "")
        for number in np.argsort(-of_level, kind="stable")
    )


# --- building ----------------------------------------------------------------------------------------------------


def make_index(
    table: CaseTable,
    embedded: EmbeddingTable,
    *,
    model: str,
    kind: Kind | Literal["auto"] = "auto",
    splits: Sequence[str] = (),
    wanted_accuracy: float = 0.8,
    k: int = K,
) -> tuple[CaseIndex, str]:
    """An index of the embedded pictures of a table, or of some of its splits, and '' or why it is not calibrated.

    It is calibrated on the table's validation cases, unless the model was trained on another split: then they may
    have been training cases, and a confidence learnt from them would be too high.
    """
    split_hash = table.split_hash if _is_split(table) else ""
    trained_on = embedded.provenance.split_hash
    if splits:
        embedded = embedded.select(np.isin(table.splits, splits))
    provenance = replace(
        embedded.provenance, taxonomy_hash=table.taxonomy.content_hash, split_hash=trained_on or split_hash
    )
    whole = EmbeddingTable(embedded.embeddings, embedded.frame, provenance)
    name = str(Path(model).absolute()) if model and Path(model).is_dir() else model
    index = CaseIndex.build(whole, table.taxonomy, kind=kind, model=name, image_root=table.root.absolute())
    if trained_on and trained_on != split_hash:
        return index, "the model was trained on another split than the table's"
    index.calibration = calibrate_on_validation(index, wanted_accuracy=wanted_accuracy, k=k)
    return index, "" if index.calibration else "there are no validation cases in the index"


def calibrate_on_validation(
    index: CaseIndex, *, wanted_accuracy: float = 0.8, k: int = K, aggregation: Aggregation = "best"
) -> Calibration | None:
    """What validation cases in the index teach about its answers, each query's own case left out; None without any."""
    searched = _search_validation(index, k, aggregation)
    if searched is None:
        return None
    hits, truth = searched
    learnt = calibrate(hits, index.gallery.fine, truth, index.taxonomy, wanted=wanted_accuracy)
    return replace(learnt, aggregation=aggregation)


def validation_scores(index: CaseIndex, *, k: int = K) -> list[dict[str, float]]:
    """How the index does on its validation cases: mean figures, one table a level, coarse first; [] without any."""
    from hierderm.evaluation.metrics.retrieval import hit_scores

    searched = _search_validation(index, k, "best")
    if searched is None:
        return []
    hits, truth = searched
    tables = hit_scores(hits.rows, index.taxonomy.ancestors[truth].T, index.labels)
    return [{name: float(np.nanmean(values)) for name, values in table.items()} for table in tables]


def _search_validation(index: CaseIndex, k: int, aggregation: Aggregation) -> tuple[SearchHits, IntArray] | None:
    """Hits of the validation cases of an index, up to three pictures a case, and the conditions of the queries."""
    frame = index.frame
    if c.SPLIT not in frame or not (frame[c.SPLIT] == c.VALIDATION).any():
        return None
    part = frame[frame[c.SPLIT] == c.VALIDATION].groupby(c.CASE_ID).head(MAX_PICTURES)
    cases, first, numbers = np.unique(part[c.CASE_ID].to_numpy(dtype=str), return_index=True, return_inverse=True)
    rows = part.index.to_numpy()
    hits = index.search_cases(
        np.asarray(index.vectors[rows]),
        numbers.astype(np.int64),
        k=k,
        aggregation=aggregation,
        leave_out=[[str(case)] for case in cases],
    )
    return hits, index.gallery.fine[rows[first]]


def _is_split(table: CaseTable) -> bool:
    return c.SPLIT in table.frame and bool((table.frame[c.SPLIT] != "").all())
