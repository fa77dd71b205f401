"""What is evaluated: embeddings of test cases, those a task may learn from, and the tree."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hierderm import columns as c
from hierderm.config.settings import EvaluationConfig
from hierderm.data.checks import check_cases
from hierderm.data.table import CaseTable, read_frame
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import EmbeddingError
from hierderm.evaluation.inference.bootstrap import case_draws
from hierderm.evaluation.metrics.kmeans import kmeans_clusters
from hierderm.evaluation.metrics.neighbours import select
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.metrics.retrieval import RetrievalScores, retrieval_scores
from hierderm.taxonomy.file import load_taxonomy
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import IntArray

logger = logging.getLogger(__name__)

ANNOUNCED_FROM, ANNOUNCED_QUERIES = 20_000, 256


@dataclass(frozen=True)
class Subject:
    """One model's embeddings of one split.

    Attributes:
        name: Of the model, in tables and messages.
        taxonomy: The tree.
        config: How much work goes into scores and intervals.
        test: The embeddings that are scored.
        every_case: Case ids of the whole table, which the bootstrap draws from: other splits of it see the same draws.
        validation: Embeddings that temperature, thresholds and penalties are learnt from; None without any.
        train: Embeddings that k-NN, probe and few-shot learn from; None without any.
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
        """Conditions of the images of a split, shape (n_images,)."""
        return self.taxonomy.encode(part.frame[c.CONDITION])

    @cached_property
    def draws(self) -> npt.NDArray[np.uint8]:
        """How often each test image counts in each bootstrap round; see `case_draws`."""
        config = self.config
        return case_draws(self.test.case_ids, config.bootstrap_rounds, config.seed, self.every_case)

    def labels(self, level: int) -> IntArray:
        """Nodes of the test images on a level, shape (n_images,)."""
        return self.taxonomy.to_level(self.fine, level)

    def label(self, part: EmbeddingTable) -> Labelled:
        """The images of a split with their nodes on each level and their cases."""
        return Labelled(part.embeddings, self.taxonomy.ancestors[self.fine_of(part)].T, part.case_ids)

    @cached_property
    def labelled(self) -> Labelled:
        """The test images with their nodes and cases."""
        return self.label(self.test)

    def clusters(self, level: int, n_runs: int) -> list[IntArray]:
        """k-means clusters of the test images, as many as labels of a level occur; each run is made once for all tasks.

        The runs take the seeds from `config.seed` on; arrays of shape (n_images,).
        """
        runs = self._clusters.setdefault(level, [])
        seeds = range(self.config.seed + len(runs), self.config.seed + n_runs)
        if seeds:
            runs += kmeans_clusters(self.test.embeddings, len(np.unique(self.labels(level))), seeds)
        return runs[:n_runs]

    @cached_property
    def _clusters(self) -> dict[int, list[IntArray]]:
        return {}

    @cached_property
    def retrieval(self) -> RetrievalScores:
        """Every test image queries the others of other cases; computed once for all tasks."""
        _announce_ranking(self.labelled)
        return retrieval_scores(self.labelled, gallery_effects=True)


def _announce_ranking(images: Labelled) -> None:
    """Say what ranking all images by all will take, measured on the first queries, where it takes a while."""
    if len(images) < ANNOUNCED_FROM:
        return
    start = time.perf_counter()
    retrieval_scores(select(images, np.arange(ANNOUNCED_QUERIES)), images, gallery_effects=True)
    seconds = (time.perf_counter() - start) * len(images) / ANNOUNCED_QUERIES
    logger.info(
        "Each of %s images ranks all others, for MAP@R, nDCG and the like: about %s. Recall, precision, MAP@k and k-NN "
        "of the first neighbours alone are the task retrieval_index.",
        f"{len(images):,}",
        f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min",
    )


def case_table(cases: CaseTable | pd.DataFrame | str | Path, taxonomy: Taxonomy | str | Path) -> CaseTable:
    """Any table of cases as a checked one; image files need not exist, and rows without image ids are numbered."""
    tree = taxonomy if isinstance(taxonomy, Taxonomy) else load_taxonomy(taxonomy)
    if isinstance(cases, CaseTable):
        if cases.taxonomy.content_hash != tree.content_hash:
            raise EmbeddingError(
                f"the taxonomy must be that of the table, {cases.taxonomy.summary()}, got {tree.summary()}."
            )
        return cases
    root, source = (Path(), "cases") if isinstance(cases, pd.DataFrame) else (Path(cases).absolute().parent, str(cases))
    frame = cases.copy() if isinstance(cases, pd.DataFrame) else read_frame(Path(cases))
    if c.IMAGE_ID not in frame:
        frame[c.IMAGE_ID] = np.arange(len(frame)).astype(str)
    if c.IMAGE_PATH not in frame:
        frame[c.IMAGE_PATH] = frame[c.IMAGE_ID].astype(str)
    return check_cases(frame, tree, root, source=source, check_images=False)


def subject_of(embeddings: EmbeddingTable, table: CaseTable, config: EvaluationConfig, *, name: str) -> Subject:
    """The embeddings divided as the `split` column of the table says; without one, all of them are the test.

    Rows are matched by image id. Test images without an embedding, and embeddings of a model that was trained on
    another split or tree, are an EmbeddingError.
    """
    frame = table.frame
    _refuse_another_split(embeddings, table, name)
    rows = {image: row for row, image in enumerate(embeddings.frame[c.IMAGE_ID].astype(str))}
    splits = frame[c.SPLIT].to_numpy(dtype=str) if c.SPLIT in frame else np.full(len(frame), c.TEST)
    if not (splits == c.TEST).any():
        raise EmbeddingError("the table must have test images: its split column has none that says 'test'.")

    def part(split: str) -> EmbeddingTable | None:
        wanted = frame[splits == split]
        found = [rows.get(image, -1) for image in wanted[c.IMAGE_ID].astype(str)]
        if -1 in found and split == c.TEST:
            missing = wanted[c.IMAGE_ID].iloc[found.index(-1)]
            raise EmbeddingError(
                f"{name}: {found.count(-1)} of {len(found)} {split} images have no embedding, the first is image "
                f"'{missing}'. Embed the whole table."
            )
        if not found or -1 in found:
            return None
        given = embeddings.probabilities
        every = len(found) == len(embeddings) and bool((np.asarray(found) == np.arange(len(found))).all())
        taken = slice(None) if every else np.asarray(found)  # not twice in memory where they are all of them
        probabilities = None if given is None else given[taken]
        return EmbeddingTable(
            embeddings.embeddings[taken], wanted.reset_index(drop=True), embeddings.provenance, probabilities
        )

    test = part(c.TEST)
    assert test is not None
    return Subject(name, table.taxonomy, config, test, table.case_ids, part(c.VALIDATION), part(c.TRAIN))


def _refuse_another_split(embeddings: EmbeddingTable, cases: CaseTable, name: str) -> None:
    """EmbeddingError where the model was trained on another division of the cases, or on another tree.

    Cases of another source have been checked for what the model has seen.
    """
    provenance = embeddings.provenance
    split_hash = cases.split_hash if c.SPLIT in cases.frame else ""
    for what, made_with, now in (
        ("split", provenance.split_hash, split_hash),
        ("taxonomy", provenance.taxonomy_hash, cases.taxonomy.content_hash),
    ):
        if made_with and made_with != now and not (what == "split" and provenance.external):
            raise EmbeddingError(
                f"{name}: the model was trained on {what} {made_with}, the table has {now or 'none'}: test cases may "
                "be among its training cases. Evaluate on the table the run wrote (cases.csv in its folder), or embed "
                "cases of another source with --external error."
            )
