"""From a table to an index: embed its images, index them, calibrate answers, and describe the result."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from hierderm import columns as c
from hierderm.config.settings import BackboneConfig, ForwardEngine
from hierderm.data.look import looks_of
from hierderm.data.table import CaseTable
from hierderm.embeddings import Aggregation, EmbeddingTable, Encodes, Provenance, embeddings_of, provenance_of
from hierderm.engines import Kind
from hierderm.errors import SearchError
from hierderm.evaluation.scores import mean_of_known
from hierderm.search.answer import Calibration, calibrate
from hierderm.search.case_index import CaseIndex
from hierderm.search.query import MAX_IMAGES
from hierderm.search.result import SearchResult
from hierderm.types import FloatArray, Floats, IntArray

Model = str | Path | Encodes | None
logger = logging.getLogger(__name__)


def build_index(
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
    """What `CaseIndex.build` does. It describes the arguments."""
    splits = [splits] if isinstance(splits, str) else splits
    if not 0 < accuracy < 1:
        raise SearchError(f"accuracy must be between 0 and 1, got {accuracy}.")
    if unknown := sorted(set(splits) - set(c.SPLITS)):
        raise SearchError(f"splits must be of {list(c.SPLITS)}, got {unknown}.")
    table = _embed(cases, model, engine) if embeddings is None else _given(cases, embeddings)
    split_hash = cases.split_hash if _is_split(cases) else ""
    trained_on = table.provenance.split_hash
    provenance = replace(
        table.provenance, taxonomy_hash=cases.taxonomy.content_hash, split_hash=trained_on or split_hash
    )
    table = replace(table, provenance=provenance)
    rows = np.isin(cases.splits, splits) if splits else np.ones(len(cases), dtype=bool)
    table = table.select(rows) if splits else table
    learns = not trained_on or trained_on == split_hash
    if learns and c.SPLIT in table.frame and (table.frame[c.SPLIT] == c.VALIDATION).any():
        table = _with_looks(table, [path for path, kept in zip(cases.paths, rows, strict=True) if kept])
    index = CaseIndex.from_embeddings(
        table, cases.taxonomy, kind=kind, model=recorded_name(model), image_root=cases.root.absolute()
    )
    index.about = replace(index.about, trained=bool(trained_on))
    if embeddings is not None and model is not None:
        index.require_same_model(provenance_of_model(model))  # else no query could ever be compared with it
    learn(index, learns=learns, accuracy=accuracy, k=k)
    return index


def learn(index: CaseIndex, *, learns: bool, accuracy: float, k: int) -> None:
    """Calibrate a new index, or record why not.

    `learns`: whether its split is that of its model; else its validation cases may have been training cases, and a
    confidence learnt from them would be too high.
    """
    if not learns:
        _not_calibrated(index, "the model was trained on another split than the table's")
        return
    index.calibration = calibrate_on_validation(index, accuracy=accuracy, k=k)
    if index.calibration is None:
        _not_calibrated(index, "there are no validation cases in the index")


def embed_for(
    index: CaseIndex, cases: CaseTable, model: Model = None, *, engine: ForwardEngine = "auto"
) -> EmbeddingTable:
    """The images of a table as `CaseIndex.add` takes them: embedded by the index's model, paths as the index has them.

    `model`: where the index's model is now; None: where it was when the index was built.
    """
    table = embed_queries(index, cases, model, engine=engine)
    root = Path(index.about.image_root)
    paths = [path.absolute() for path in cases.paths]
    names = [str(path.relative_to(root) if path.is_relative_to(root) else path) for path in paths]
    return replace(table, frame=table.frame.assign(**{c.IMAGE_PATH: names}))


def embed_queries(
    index: CaseIndex, cases: CaseTable, model: Model = None, *, engine: ForwardEngine = "auto"
) -> EmbeddingTable:
    """The images of a table embedded by the index's model, with their looks where the index has them.

    `model`: see `embed_for`.
    """
    table = _embed(cases, model or index.about.model or None, engine)
    return _with_looks(table, cases.paths) if index.gallery.has_looks else table


def calibrate_on_validation(
    index: CaseIndex, *, accuracy: float = 0.8, k: int = 10, aggregation: Aggregation = "best"
) -> Calibration | None:
    """What validation cases in the index teach about its answers, each query's own case left out.

    None without any that has another case to find.
    """
    searched = _search_validation(index, k, aggregation)
    if searched is None:
        return None
    learnt = calibrate(searched.hits, searched.truth, wanted=accuracy, looks=searched.looks)
    return replace(learnt, aggregation=aggregation)


def recalibrate(index: CaseIndex) -> None:
    """Learn the calibration of an index again, for its rows have changed; withdraw it where nothing is left to learn.

    It was learnt from validation cases among the rows, and from what each of them finds there.
    """
    before = index.calibration
    if before is None:
        return
    index.calibration = calibrate_on_validation(
        index, accuracy=before.rule.wanted, k=before.k, aggregation=before.aggregation
    )
    if index.calibration is None:
        _not_calibrated(index, "the validation cases that it was calibrated on were removed")
        logger.warning("Answers are not calibrated any more: %s.", index.about.not_calibrated)
    else:
        n_cases = index.calibration.rule.levels[-1].n_queries
        logger.info("Answers were calibrated again, on %d validation cases.", n_cases)


def validation_means(index: CaseIndex, *, k: int = 10) -> list[dict[str, float]]:
    """The mean of each metric on the validation cases of the index, a table a level, coarse first; [] without any."""
    from hierderm.evaluation.metrics.retrieval import hit_scores

    searched = _search_validation(index, k, "best")
    if searched is None:
        return []
    labels = index.taxonomy.ancestors.T  # (n_levels, n_fine)
    tables = hit_scores(searched.hits.fine, labels[:, searched.truth], labels)
    return [{name: mean_of_known(values) for name, values in table.items()} for table in tables]


def describe_index(index: CaseIndex) -> list[str]:
    """What an index is and how it does on its validation cases, in lines of text."""
    about = index.about
    exact = "exact" if about.kind == "flat" else f"recall@10 against exact search {about.recall_at_10:.3f}"
    lines = [
        f"{len(index)} images of {index.n_cases} cases, vectors of length {index.gallery.dim}",
        f"taxonomy {index.taxonomy.summary()}",
        f"model {about.model or 'unknown'} (weights {index.provenance.weights_hash or 'unknown'})",
        f"kind {about.kind}: {exact}",
    ]
    if index.calibration is None:
        return [*lines, f"answers are not calibrated: {about.not_calibrated or 'it was built so'}"]
    rule, means = index.calibration.rule, validation_means(index)
    for level, (learnt, scores) in enumerate(zip(rule.levels, means, strict=True)):
        if level in index.gallery.levels_of_one_node:
            only = index.gallery.path(int(index.gallery.rows_at(np.array([0]))[0]))[level]
            lines.append(
                f"{index.taxonomy.level_names[level]}: all cases are of '{only}', so nothing can be wrong there"
            )
            continue
        answered = f"never answered: {rule.why_never(level)}"
        if learnt.threshold is not None:
            asked = "validation cases" + " left open by finer levels" * (level < index.taxonomy.fine_level)
            right = f"{learnt.answered} of {learnt.n_queries} {asked}, {learnt.right} right"
            answered = f"answered from {learnt.threshold:.0%} of the votes on: {right}"
        means_text = f"recall@1 {scores['recall_at_1']:.3f}, 5-NN accuracy {scores['knn_accuracy']:.3f}"
        lines.append(f"{index.taxonomy.level_names[level]}: {means_text}; {answered}")
    return lines if index.calibration.likeness is None else [*lines, index.calibration.likeness.describe()]


def _embed(cases: CaseTable, model: Model, engine: ForwardEngine) -> EmbeddingTable:
    from hierderm.model.loading import load

    if model is None:
        raise SearchError("name a model that embeds the images, or give their embeddings.")
    if isinstance(model, str | Path):
        return load(model, engine=engine).embed(cases)
    made = embeddings_of(model, cases)
    return replace(made, provenance=made.provenance if made.provenance.model else provenance_of_model(model))


def _with_looks(table: EmbeddingTable, paths: Sequence[Path]) -> EmbeddingTable:
    """A table with the looks of its images, which lie at `paths`."""
    if table.looks is not None:
        return table
    looks = looks_of(paths)
    if unknown := int(np.isnan(looks[:, 0]).sum()):
        logger.warning(
            "%d of %d images can't be read: queries unlike the index are refused by the others, and by embeddings.",
            unknown, len(looks),
        )  # fmt: skip
    return replace(table, looks=looks)


def _given(cases: CaseTable, embeddings: EmbeddingTable | Floats | Path | str) -> EmbeddingTable:
    """Known embeddings as a table, where they are those of the images of `cases`."""
    found = embeddings_of(embeddings, cases)
    if list(found.frame[c.IMAGE_ID]) != list(cases.frame[c.IMAGE_ID]):
        raise SearchError("the embeddings must be those of the table's images, in its order. Embed the table again.")
    return found


def provenance_of_model(model: str | Path | Encodes) -> Provenance:
    """What a model, or the one in a folder or of a name, records of itself."""
    from hierderm.model.loading import load

    return provenance_of(load(model) if isinstance(model, str | Path) else model)


def recorded_name(model: Model) -> str:
    """What an index records of its model, such that it can be loaded again; '' where it can't."""
    name = str(model or "") if model is None or isinstance(model, str | Path) else provenance_of(model).model
    return str(Path(name).absolute() if name and Path(name).is_dir() else BackboneConfig.parse(name))


def _not_calibrated(index: CaseIndex, reason: str) -> None:
    only = "it had a single case, which finds no other"
    index.about = replace(index.about, not_calibrated=reason if index.n_cases > 1 else only)


@dataclass(frozen=True)
class _Searched:
    """What validation cases find: `truth`: their conditions; `looks`: how far the nearest look of another case is."""

    hits: SearchResult
    truth: IntArray
    looks: FloatArray


def _search_validation(index: CaseIndex, k: int, aggregation: Aggregation) -> _Searched | None:
    """What the validation cases of an index find, up to three images a case.

    None where none of them finds another case: there is nothing that could be right or wrong.
    """
    gallery = index.gallery
    if c.SPLIT not in gallery.columns or c.VALIDATION not in gallery.values(c.SPLIT):
        return None
    allowed = gallery.allowed(where={c.SPLIT: c.VALIDATION})
    ids = gallery.frame_at(allowed)[c.CASE_ID].reset_index(drop=True)
    first_three = (ids.groupby(ids).cumcount() < MAX_IMAGES).to_numpy()
    assert allowed is not None
    rows = allowed[first_three]
    cases, first, numbers = np.unique(ids[first_three].to_numpy(dtype=str), return_index=True, return_inverse=True)
    found = index.search(
        np.asarray(gallery.vectors_at(rows)), cases=numbers.astype(np.int64), k=k, aggregation=aggregation,
        leave_out=[str(case) for case in cases],
    )  # fmt: skip
    if not (found.rows >= 0).any():
        return None
    looks, own = gallery.looks_at(rows), gallery.cases_at(rows[first])
    distances = [
        gallery.look_distance(None if looks is None else looks[numbers == number], [int(case)])
        for number, case in enumerate(own)
    ]
    return _Searched(found, gallery.fine_at(rows[first]), np.array(distances))


def _is_split(table: CaseTable) -> bool:
    return c.SPLIT in table.frame and bool((table.frame[c.SPLIT] != "").all())
