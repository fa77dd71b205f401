"""A bridge to MTEB, whose image part is MIEB: models as its encoders, tables of cases as its tasks.

    import mteb
    from hierderm.mteb import MtebEncoder, clustering_task, retrieval_task

    model = MtebEncoder("runs/mine/models/hierarchical/model")
    mteb.evaluate(model, mteb.get_tasks(["CIFAR10Clustering"]))  # a task of theirs
    mteb.evaluate(any_model, [retrieval_task(table), clustering_task(table)], cache=None)  # your table

It needs `pip install 'hierderm[mteb]'`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hierderm import columns as c
from hierderm.data.table import CaseTable
from hierderm.embeddings import Encodes, unit_length
from hierderm.errors import CaseTableError, MissingExtraError, ModelError
from hierderm.files import text_hash
from hierderm.types import Floats

try:
    from datasets import Dataset, DatasetDict, Image
    from mteb import TaskMetadata
    from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta, ScoringFunction
except ModuleNotFoundError:
    raise MissingExtraError("hierderm.mteb", "mteb") from None

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData


class MtebEncoder(AbsEncoder):
    """A model as an encoder of MTEB, for tasks of images, and of texts where it embeds these in the same space.

    Args:
        model: Anything with `encode(images)`, which gets PIL images, or what `hierderm.load` takes.
        name: In MTEB's results, 'organisation/model'; by default 'hierderm/' and the model's name.
    """

    def __init__(self, model: Encodes | str | Path, name: str = "") -> None:
        if isinstance(model, str | Path):
            from hierderm.model.loading import load

            model = load(str(model))
        self.model: Any = model
        own = str(getattr(model, "name", type(model).__name__)).rpartition("/")[2].replace(":", "-")
        self.name = name or f"hierderm/{own}"
        said = {"name": self.name, "revision": _revision(model), "modalities": ["image"]}
        self.mteb_model_meta = ModelMeta.create_empty({**said, "similarity_fn_name": ScoringFunction.COSINE})

    def encode(self, inputs: Any, **_: Any) -> Floats:
        """Embed batches of images or texts.

        Args:
            inputs: Batches, as MTEB gives them.
            **_: What else MTEB gives, which is not read.

        Returns:
            Vectors of unit length, shape (n, dim), float32.

        Raises:
            ModelError: Batches of both at once, or of texts for a model without a text tower.
        """
        vectors = [np.zeros((0, 0), dtype=np.float32)]
        for batch in inputs:
            kinds = [kind for kind in ("image", "text") if kind in batch]
            if len(kinds) != 1:
                raise ModelError(f"each input must be an image or a text, got {kinds or sorted(batch)}.")
            encode = self.model.encode if kinds == ["image"] else getattr(self.model, "encode_text", None)
            if encode is None:
                raise ModelError(f"{self.name} embeds images only, this task has texts.")
            vectors.append(unit_length(np.asarray(encode(list(batch[kinds[0]])), dtype=np.float32)))
        return np.concatenate(vectors[1:] or vectors)


def clustering_task(table: CaseTable, level: str = "coarse", *, name: str = "HierdermClustering") -> AbsTask:
    """The test images of a table as a task of MTEB: k-means clusters against the nodes of a level.

    Args:
        table: The cases; all rows where it has no split.
        level: Name of a level, or 'coarse' or 'fine'.
        name: Of the task, in MTEB's results.

    Returns:
        A task for `mteb.evaluate`.
    """
    number, test = table.taxonomy.level_number(level), _part(table, [c.TEST])
    data = _images(test).add_column("label", test.labels(number).tolist())

    class Clustering(AbsTaskClusteringLegacy):
        metadata = _metadata(table, name, "ImageClustering", "nmi", f"Clusters against the {level} level.")
        input_column_name, label_column_name = "image", "label"

        def load_data(self, num_proc: int | None = None, **more: Any) -> None:
            self.dataset, self.data_loaded = DatasetDict({"test": data}), True

    return Clustering()


def retrieval_task(table: CaseTable, level: str = "fine", *, name: str = "HierdermRetrieval") -> AbsTask:
    """A split table as a task of MTEB: each test image searches the training and validation images.

    Cases are on one side alone, so no image finds its own case. Relevant are images of its node on the level; graded
    by depth, where `level` is 'tree'.

    Args:
        table: The cases, with a split.
        level: Name of a level, 'coarse', 'fine', or 'tree'.
        name: Of the task, in MTEB's results.

    Returns:
        A task for `mteb.evaluate`.

    Raises:
        CaseTableError: The table has no split, or a case is on both sides.
    """
    tree, queries, corpus = table.taxonomy, _part(table, [c.TEST]), _part(table, [c.TRAIN, c.VALIDATION])
    if len(corpus) == 0 or c.SPLIT not in table.frame:
        raise CaseTableError("a retrieval task needs a split: test images search those of training and validation.")
    if shared := sorted(set(queries.case_ids.tolist()) & set(corpus.case_ids.tolist())):
        raise CaseTableError(f"a case must be on one side of the split, {shared[:5]} are on both.")
    levels = range(tree.n_levels) if level == "tree" else [tree.level_number(level)]
    depth = np.sum([np.equal.outer(queries.labels(n), corpus.labels(n)) for n in levels], axis=0)
    ids = [corpus.frame[c.IMAGE_ID].astype(str).tolist(), queries.frame[c.IMAGE_ID].astype(str).tolist()]
    relevant = {
        query: {ids[0][item]: int(row[item]) for item in np.flatnonzero(row)}
        for query, row in zip(ids[1], depth, strict=True)
    }
    content: RetrievalSplitData = {
        "corpus": _images(corpus).add_column("id", ids[0]),
        "queries": _images(queries).add_column("id", ids[1]),
        "relevant_docs": {query: found for query, found in relevant.items() if found},
        "top_ranked": None,
    }

    class Retrieval(AbsTaskRetrieval):
        metadata = _metadata(table, name, "Any2AnyRetrieval", "ndcg_at_10", f"Images of the same node, {level} level.")

        def load_data(self, num_proc: int | None = None, **more: Any) -> None:
            self.dataset, self.data_loaded = {"default": {"test": content}}, True

    return Retrieval()


def _part(table: CaseTable, splits: list[str]) -> CaseTable:
    return table.select(np.isin(table.splits, splits)) if c.SPLIT in table.frame else table


def _images(table: CaseTable) -> Dataset:
    """Read when they are needed, upright."""
    return Dataset.from_dict({"image": [str(path) for path in table.paths]}).cast_column("image", Image())


def _revision(model: object) -> str:
    """What of the model the results depend on."""
    provenance = getattr(model, "provenance", None)
    return text_hash(str(provenance)) if provenance is not None else "unknown"


def _metadata(table: CaseTable, name: str, kind: Any, score: str, text: str) -> TaskMetadata:
    content = text_hash(table.frame.to_csv(index=False) + table.taxonomy.content_hash)
    return TaskMetadata(
        name=name,
        type=kind,
        description=f"Images of skin conditions under the taxonomy {table.taxonomy.summary()}. {text}",
        reference=None,
        dataset={"path": "local", "revision": content},
        category="i2i",
        modalities=["image"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=score,
        date=None,
        domains=["Medical"],
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation=None,
    )
