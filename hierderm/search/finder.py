"""CaseFinder: an index with the model that embeds its queries. Images go in, cases and an answer come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from hierderm import columns as c
from hierderm.data.image_io import ImageLike, each_image, open_image
from hierderm.data.look import look
from hierderm.data.table import as_text
from hierderm.embeddings import Aggregation, Encodes, provenance_of, unit_length
from hierderm.errors import SearchError
from hierderm.search.answer import Answer, Calibration, Candidate, answer, ranked_nodes
from hierderm.search.case_index import CaseIndex
from hierderm.search.gallery import Hit
from hierderm.search.likeness import Judged, distances_of
from hierderm.search.places import Place, place_of
from hierderm.search.query import MAX_IMAGES
from hierderm.search.result import SearchResult
from hierderm.search.why import Match, match
from hierderm.types import Vectors

if TYPE_CHECKING:
    from hierderm.model.encoder import Encoder

SHOWN_COLUMNS = (c.FITZPATRICK, c.MONK, c.SKIN_TONE, c.BODY_SITE, c.SOURCE)


@dataclass(frozen=True)
class SearchOptions:
    """How to search; `CaseIndex.search` describes each option."""

    k: int = 10
    within: Sequence[str] = ()
    where: Mapping[str, Sequence[str]] = field(default_factory=dict)
    aggregation: Aggregation = "best"
    per_condition: int = 0


DEFAULTS = SearchOptions()


@dataclass(frozen=True, repr=False)
class FinderResult:
    """What was found for one query.

    Attributes:
        vectors: Embeddings of the query, unit length, shape (n_images, dim), float32.
        found: The nearest cases.
        answer: What the cases vote for at each level of the tree; None of a text query.
        classified: For each level, coarse first, its nodes by falling probability of the model's own classifier; None
            where the model has none, or the query is unlike the cases of the index.
    """

    vectors: Vectors
    found: SearchResult
    answer: Answer | None
    classified: tuple[tuple[Candidate, ...], ...] | None = None

    def __repr__(self) -> str:
        answered = "" if self.answer is None else f", answer {self.answer.node or 'none'}"
        return f"FinderResult({len(self.hits)} cases{answered}; see hits, answer, to_dict())"

    @property
    def hits(self) -> list[Hit]:
        """The nearest cases as records, nearest first."""
        return self.found.to_list()[0]

    def to_dict(self, *, paths: bool) -> dict[str, Any]:
        """The result as plain JSON. `paths`: with those of the images, which a server must not give away.

        `missing`: how many servers were down, whose cases could not be found.
        `closer_than` of a hit: the share of pairs of cases of the index that are less similar, in [0, 1]; None of a
        text query, whose similarities are of another kind.
        """
        hits, gallery = [], self.found.gallery
        columns = [name for name in SHOWN_COLUMNS if name in gallery.columns]
        for hit in self.hits:
            cells = gallery.cells(hit.row)
            content = {
                "case_id": hit.case_id,
                "image_id": hit.image_id,
                "condition": hit.condition,
                "path": list(hit.path),
                "similarity": round(hit.similarity, 4),
                "closer_than": None if self.answer is None else _rounded(gallery.closer_than(hit.similarity)),
                **{name: as_text(cells[name]) for name in columns},
            }
            hits.append({**content, "image_path": str(hit.image_path)} if paths else content)
        names = gallery.taxonomy.level_names
        return {
            "levels": list(names),
            "answer": None if self.answer is None else _answer_content(self.answer, names),
            "classifier": None if self.classified is None else [_candidates(level) for level in self.classified],
            "hits": hits,
            "missing": len(gallery.missing),
        }


class CaseFinder:
    """Search an index with images, text or vectors. Threads may share a finder.

    Attributes:
        index: The cases that are searched.
        place: Where `open` found the index; None of an index in memory.
        generation: Another value for each state of that place; '' of an index in memory.

    Args:
        index: The cases to search.
        model: Where the model of the index is now, or the model itself, any object with `encode`; None: where it was
            when the index was built.
    """

    def __init__(self, index: CaseIndex, model: str | Path | Encodes | None = None) -> None:
        self.index, self._model = index, model
        self.place: Place | None = None
        self.generation = ""
        self._encoder: Encoder | Encodes | None = None
        self._loading = Lock()

    @classmethod
    def open(
        cls, folder: Path | str, *, model: str | Path | Encodes | None = None, partial: bool = False
    ) -> CaseFinder:
        """A finder on the folder of an index, or on a database.

        Args:
            folder: What `CaseIndex.save` wrote, or the address of a database.
            model: As of the class.
            partial: See `hierderm.search.places.place_of`.

        Returns:
            The finder; the model is loaded on first use.

        Raises:
            IndexFolderError: The folder is damaged, or no index.
            DatabaseError: The server can't be reached, or has no index.
        """
        return cls._at(place_of(folder, partial=partial), model)

    @classmethod
    def _at(cls, place: Place, model: str | Path | Encodes | None) -> CaseFinder:
        found = place.generation()  # first: an index that is opened later than this is opened again, not missed
        finder = cls(place.opened(), model)
        finder.place, finder.generation = place, found
        return finder

    def reopened(self) -> CaseFinder:
        """A finder on the index as it is now, ready to search; it shares the model while the index keeps it.

        Returns:
            The finder; this one stays as it is.

        Raises:
            IndexFolderError: The folder is damaged.
            DatabaseError: The server can't be reached.
            SearchError: The model of the index is missing, or another one is in its place.
        """
        assert self.place is not None
        finder = CaseFinder._at(self.place, self._model)
        if self._same_model(finder.index):
            finder._encoder = self._encoder
        _ = finder.encoder
        return finder

    def _same_model(self, index: CaseIndex) -> bool:
        try:
            self.index.require_same_model(index.provenance)
        except SearchError:
            return False
        return index.about.model == self.index.about.model

    @property
    def encoder(self) -> Encoder | Encodes:
        """The model of the index, loaded on first use; SearchError where another one is found in its place."""
        with self._loading:
            if self._encoder is None:
                self._encoder = self._load()
            return self._encoder

    def _load(self) -> Encoder | Encodes:
        from hierderm.model.loading import load

        model = self._model or self.index.about.model
        if not model:
            raise SearchError("the index does not record which model embeds queries: name it (--model).")
        encoder = load(model) if isinstance(model, str | Path) else model
        self.index.require_same_model(provenance_of(encoder))
        return encoder

    @property
    def takes_text(self) -> bool:
        """Whether the model embeds text, too."""
        return getattr(self.encoder, "text_tower", None) is not None

    @property
    def shows_places(self) -> bool:
        """Whether `why` works: the model is one of torch, by hierderm."""
        return getattr(self.encoder, "device", None) is not None

    def why(self, images: Sequence[Image.Image], image_id: str) -> tuple[int, Image.Image, Match]:
        """Which places of a query's images and of an image of the index the backbone sees as most alike.

        Args:
            images: The query's one to three images.
            image_id: An image of the index.

        Returns:
            Which of the query's images is most similar, from 0; the image of the index; and the places: a hint.

        Raises:
            ImageError: The image of the index can't be read.
            SearchError: The model can't say, or there is no such image.
            ModelError: The backbone has no places.
        """
        from hierderm.model.patches import patch_features

        if not self.shows_places:
            raise SearchError("the model of the index does not say what it sees at which place.")
        gallery, encoder = self.index.gallery, cast("Encoder", self.encoder)
        row = gallery.image_row(image_id)
        (path,) = gallery.image_paths([row])
        case = open_image(path)
        nearest = 0
        if len(images) > 1:
            (vector,) = np.asarray(gallery.vectors_at(np.array([row])))
            nearest = int((encoder.encode(list(images)) @ vector).argmax())
        return nearest, case, match(patch_features(encoder, images[nearest]), patch_features(encoder, case))

    def search(self, images: ImageLike | Sequence[ImageLike], options: SearchOptions = DEFAULTS) -> FinderResult:
        """Find the cases nearest to one case.

        Args:
            images: Its one to three images, as `Encoder.encode` takes them.
            options: How to search.

        Returns:
            The cases, what they vote for, and what the model's classifier says.

        Raises:
            ImageError: A file is missing or no image.
            SearchError: There are no images or too many, or an option does not fit the index.
        """
        images = list(each_image(images))
        if not 1 <= len(images) <= MAX_IMAGES:
            raise SearchError(f"a query must have 1 to {MAX_IMAGES} images, got {len(images)}.")
        encoder: Any = self.encoder
        looks = np.stack([look(image) for image in images]) if self.index.gallery.has_looks else None
        if not hasattr(encoder, "encode_all"):  # a model of the user's; ours embeds and classifies in one pass
            return self.search_vectors(unit_length(np.asarray(encoder.encode(images))), options, looks=looks)
        encoded, tree = encoder.encode_all(images), encoder.taxonomy
        found = self.search_vectors(encoded.embeddings, options, looks=looks)
        if encoded.probabilities is None or (found.answer is not None and found.answer.unlike):
            return found
        mean = encoded.probabilities.mean(axis=0, dtype=np.float64)
        return replace(found, classified=tuple(ranked_nodes(mean, tree, level) for level in range(tree.n_levels)))

    def search_image_id(self, image_id: str, options: SearchOptions = DEFAULTS) -> FinderResult:
        """Find the cases nearest to an image of the index, its own case left out.

        Args:
            image_id: An image of the index.
            options: How to search.

        Returns:
            The cases, and what they vote for.

        Raises:
            SearchError: There is no such image, or an option does not fit the index.
        """
        gallery = self.index.gallery
        rows = np.array([gallery.image_row(image_id)])
        cells = gallery.cells(rows[0])
        learnt_from = c.SPLIT in cells and cells[c.SPLIT] == c.TRAIN
        differs = "the model has learnt from this case" if learnt_from and self.index.about.trained else ""
        vectors, looks = np.asarray(gallery.vectors_at(rows)), gallery.looks_at(rows)
        return self.search_vectors(vectors, options, leave_out=[str(cells[c.CASE_ID])], differs=differs, looks=looks)

    def search_text(self, text: str, options: SearchOptions = DEFAULTS) -> FinderResult:
        """Find the cases nearest to a text. Similarities of text are not those of images: there is no answer.

        Args:
            text: What to find, in words.
            options: How to search.

        Returns:
            The cases.

        Raises:
            SearchError: There are no words, or the model can't embed text.
        """
        if not text.strip():
            raise SearchError("a text query must have words, got none.")
        encoder: Any = self.encoder
        if not hasattr(encoder, "encode_text"):
            raise SearchError("the model of the index has no encode_text, so it can't be searched by words.")
        return replace(self.search_vectors(encoder.encode_text(text), options), answer=None)

    def search_vectors(
        self,
        vectors: Vectors,
        options: SearchOptions = DEFAULTS,
        leave_out: Sequence[str] = (),
        *,
        differs: str = "",
        looks: Vectors | None = None,
    ) -> FinderResult:
        """Find the cases nearest to one case of embedded images.

        The answer is read from as many nearest cases as were calibrated, however many are shown and of however many
        conditions; where a filter narrows the search it has no confidence. Whether a query is like the index is tested
        on all cases, whatever the filter.

        Args:
            vectors: Of the case's one to three images, unit length, shape (n_images, dim).
            options: How to search.
            leave_out: Ids of cases that may not come.
            differs: In what the query is unlike the validation cases, so that their confidence is not its own.
            looks: Of the images (`hierderm.data.look`), shape (n_images, n_look); None where there are only vectors,
                then only these are tested.

        Returns:
            The cases, and what they vote for.
        """
        index = self.index
        query: dict[str, Any] = {"cases": np.zeros(len(vectors), dtype=np.int64), "leave_out": [leave_out]}
        with index.reading():
            calibration, gallery = index.calibration, index.gallery
            asked = asdict(options)
            votes = asked | {"per_condition": 0}
            if calibration is not None:
                votes |= {"k": calibration.k, "aggregation": calibration.aggregation}
            given = gallery.levels_of_one_node
            if options.within or options.where:
                differs = "it is learnt from searches of all cases, and a filter narrows this one"
                allowed = np.flatnonzero(gallery.count(options.within, options.where))
                given = gallery.taxonomy.levels_of_one_node(allowed)
            shown = index.search(vectors, **query, **asked)
            voters = shown if votes == asked else index.search(vectors, **query, **votes)
            free = {"k": votes["k"], "aggregation": votes["aggregation"]}
            near = index.search(vectors, **query, **free) if options.within or options.where else voters
            missing = shown.gallery.missing
            judged = None if missing else _judge(near, calibration, looks, leave_out, len(vectors))
        if missing:
            differs = f"{len(missing)} server(s) of the index are down, and their cases are missing"
        read = answer(voters, calibration, differs=differs, given=given, judged=judged)
        return FinderResult(vectors, shown, read)


def _judge(
    near: SearchResult,
    calibration: Calibration | None,
    looks: Vectors | None,
    leave_out: Sequence[str],
    n_images: int,
) -> Judged | None:
    """Whether a query is like the cases of the index, of which `near` are the nearest."""
    if calibration is None or calibration.likeness is None:
        return None
    distance = near.gallery.look_distance(looks, list(near.gallery.case_numbers(leave_out).values()))
    return calibration.likeness.judge(distances_of(near.similarity[:, 0], [distance])[0], n_images=n_images)


def _rounded(share: float) -> float | None:
    return None if np.isnan(share) else round(share, 4)


def _answer_content(read: Answer, level_names: Sequence[str]) -> dict[str, Any]:
    return {
        "level": None if read.level is None else level_names[read.level],
        "node": read.node,
        "confidence": None if read.confidence is None else round(read.confidence, 3),
        "reason": read.reason,
        "differential": [_candidates(level) for level in read.differential],
        "given": [level_names[level] for level in read.given],
        "unlike": read.unlike,
        "likeness": None if read.likeness is None else round(read.likeness, 4),
    }


def _candidates(level: Sequence[Candidate]) -> list[dict[str, Any]]:
    return [{**asdict(candidate), "share": round(candidate.share, 4)} for candidate in level]
