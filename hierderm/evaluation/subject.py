"""What is evaluated: embeddings of test cases, those it may learn from, and the tree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hierderm import columns as c
from hierderm.config.settings import EvaluationConfig
from hierderm.data.checks import check_cases
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable, unit_length
from hierderm.errors import EmbeddingError
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.metrics.retrieval import RetrievalScores, retrieval_scores
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import IntArray


@dataclass(frozen=True)
class Subject:
    """One model's embeddings of one split. `validation`, `train`: None where there are none.

    `every_case`: case ids of the whole table, which the bootstrap draws from: other splits of it see the same draws.
    """

    name: str
    taxonomy: Taxonomy
    config: EvaluationConfig
    test: EmbeddingTable
    every_case: npt.NDArray[np.str_]
    validation: EmbeddingTable | None = None
    train: EmbeddingTable | None = None

    @cached_property
    def levels(self) -> tuple[tuple[int, str], ...]:
        """Number and name of each level: 'coarse' and 'fine' are the ends; a tree of one level has 'fine' only."""
        tree = self.taxonomy
        if tree.n_levels == 1:
            return ((0, "fine"),)
        inner = [(number, tree.level_names[number]) for number in range(1, tree.fine_level)]
        return ((0, "coarse"), *inner, (tree.fine_level, "fine"))

    @cached_property
    def fine(self) -> IntArray:
        """Conditions of the test images, shape (n_images,)."""
        return self.fine_of(self.test)

    def fine_of(self, part: EmbeddingTable) -> IntArray:
        return self.taxonomy.encode(part.frame[c.CONDITION])

    def labels(self, level: int) -> IntArray:
        """Nodes of the test images on a level, shape (n_images,)."""
        return self.taxonomy.to_level(self.fine, level)

    @cached_property
    def pictures(self) -> Labelled:
        return Labelled(self.test.embeddings, self.taxonomy.ancestors[self.fine].T, self.test.case_ids)

    @cached_property
    def retrieval(self) -> RetrievalScores:
        """Every test image queries the others of other cases; computed once for all who need it."""
        return retrieval_scores(self.pictures, influence=True)


def subject_of(
    embeddings: EmbeddingTable | npt.ArrayLike,
    cases: CaseTable | pd.DataFrame,
    taxonomy: Taxonomy,
    config: EvaluationConfig,
    *,
    name: str,
    probabilities: npt.ArrayLike | None = None,
) -> Subject:
    """The embeddings of a table divided as its `split` column says; without one, all of them are the test.

    `embeddings`: shape (n_images, dim), row by row those of `cases` (they are brought to unit length), or an
    EmbeddingTable, whose rows are found by image id. Rows without an embedding are an EmbeddingError.
    """
    checked = cases if isinstance(cases, CaseTable) else _checked(cases, taxonomy)
    frame = checked.frame
    table = embeddings if isinstance(embeddings, EmbeddingTable) else _table_of(embeddings, frame, probabilities)
    _refuse_another_split(table, checked, name)
    place = {image: row for row, image in enumerate(table.frame[c.IMAGE_ID].astype(str))}
    splits = frame[c.SPLIT].to_numpy(dtype=str) if c.SPLIT in frame else np.full(len(frame), c.TEST)
    if not (splits == c.TEST).any():
        raise EmbeddingError("the table must have test images: its split column has none that says 'test'.")

    def part(split: str, *, needed: bool) -> EmbeddingTable | None:
        rows = frame[splits == split]
        found = [place.get(image, -1) for image in rows[c.IMAGE_ID].astype(str)]
        if -1 in found and needed:
            missing = rows[c.IMAGE_ID].iloc[found.index(-1)]
            raise EmbeddingError(
                f"{name}: {found.count(-1)} of {len(found)} {split} images have no embedding, the first is image "
                f"'{missing}'. Embed the whole table."
            )
        if not found or -1 in found:
            return None
        chosen = None if table.probabilities is None else table.probabilities[found]
        return EmbeddingTable(table.embeddings[found], rows.reset_index(drop=True), table.provenance, chosen)

    test = part(c.TEST, needed=True)
    assert test is not None
    validation, train = part(c.VALIDATION, needed=False), part(c.TRAIN, needed=False)
    return Subject(name, taxonomy, config, test, checked.case_ids, validation, train)


def _refuse_another_split(embeddings: EmbeddingTable, cases: CaseTable, name: str) -> None:
    """EmbeddingError where the model was trained on another division of the cases, or on another tree."""
    provenance = embeddings.provenance
    split_hash = cases.split_hash if c.SPLIT in cases.frame else ""
    for what, made_with, now in (
        ("split", provenance.split_hash, split_hash),
        ("taxonomy", provenance.taxonomy_hash, cases.taxonomy.content_hash),
    ):
        if made_with and made_with != now:
            raise EmbeddingError(
                f"{name}: the model was trained on {what} {made_with}, the table has {now or 'none'}: test cases may "
                "be among its training cases. Evaluate on the table the run wrote (cases.csv in its folder)."
            )


def _checked(frame: pd.DataFrame, taxonomy: Taxonomy) -> CaseTable:
    """A stranger's table: pictures are not needed, and without image ids rows are numbered."""
    frame = frame.copy()
    if c.IMAGE_ID not in frame:
        frame[c.IMAGE_ID] = np.arange(len(frame)).astype(str)
    if c.IMAGE_PATH not in frame:
        frame[c.IMAGE_PATH] = frame[c.IMAGE_ID].astype(str)
    return check_cases(frame, taxonomy, Path(), check_images=False)


def _table_of(embeddings: Any, frame: pd.DataFrame, probabilities: Any) -> EmbeddingTable:
    vectors = np.asarray(embeddings)
    if vectors.ndim != 2 or len(vectors) != len(frame):
        raise EmbeddingError(
            f"embeddings must have shape (n_images, dim) with a row for each of the {len(frame)} rows of the table, in "
            f"their order, got {vectors.shape}."
        )
    given = None if probabilities is None else np.asarray(probabilities, dtype=np.float32)
    return EmbeddingTable(unit_length(vectors), frame.reset_index(drop=True), probabilities=given)
