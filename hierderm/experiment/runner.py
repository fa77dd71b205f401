"""Run tasks on models: every division, every seed, combined into one stored result for each model and task."""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hierderm.config.settings import EvaluationConfig
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable
from hierderm.evaluation.evaluation import evaluate_subject
from hierderm.evaluation.inference.combine import combine
from hierderm.evaluation.subject import subject_of
from hierderm.evaluation.tasks.registry import Task
from hierderm.experiment.protocol import Division, Divisions
from hierderm.experiment.results import is_stored, store
from hierderm.experiment.run import environment
from hierderm.progress import track

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """The embeddings of one table by one training of a model; `version` is a text that changes when they do."""

    version: str
    table: CaseTable
    embed: Callable[[], EmbeddingTable]


@dataclass(frozen=True)
class Model:
    """A model by name; `sources` gives one source for each of its training seeds, trained on a division."""

    name: str
    sources: Callable[[Division], list[Source]]


def run(
    models: Sequence[Model], divisions: Divisions, tasks: Sequence[Task], config: EvaluationConfig, folder: Path
) -> None:
    """Every task of every model into the store of a claimed folder; results of the same identity are kept.

    The result of a task is written as soon as it is computed, so a killed run goes on where it was.
    """
    data = _data_identity(divisions)
    for model in track(models, "Models", unit="models", shown=None if len(models) > 1 else False):
        sources = [[model.sources(division) for division in folds] for folds in divisions]
        identities = {task: _identity(model, sources, task, data, config) for task in tasks}
        missing = {task: identity for task, identity in identities.items() if not is_stored(folder, identity)}
        if missing:
            _evaluate(sources, missing, config, folder)
        else:
            logger.info("%s: all tasks done.", model.name)


def _evaluate(
    sources: Sequence[Sequence[Sequence[Source]]],
    missing: dict[Task, dict[str, Any]],
    config: EvaluationConfig,
    folder: Path,
) -> None:
    """Compute and store these tasks of one model, whose subjects are embedded once and shared by the tasks."""
    name = next(iter(missing.values()))["model"]
    logger.info("%s: embedding ...", name)
    start = time.monotonic()
    subjects = [
        [[subject_of(s.embed(), s.table, config, name=name) for s in seeds] for seeds in folds] for folds in sources
    ]
    about = {
        "dim": int(subjects[0][0][0].test.embeddings.shape[1]),
        "embedding_seconds": round(time.monotonic() - start, 2),
        "environment": environment(),
    }
    for task, identity in track(missing.items(), name, unit="tasks"):
        logger.info("%s: %s ...", name, task.name)
        start = time.monotonic()
        parts = [[[evaluate_subject(s, [task]) for s in seeds] for seeds in folds] for folds in subjects]
        evaluation = combine(parts, config.confidence, config.seed)
        main = [list(key) for key in task.main or [(metric.level, metric.name) for metric in evaluation.metrics]]
        cost = {"seconds": round(time.monotonic() - start, 2), "process_peak_memory_mb": _peak_memory_mb()}
        store(folder, {**identity, "about": task.about, "main": main, **about, **cost}, evaluation)


def _data_identity(divisions: Divisions) -> dict[str, Any]:
    """The part of an identity that all models and tasks share."""
    return {
        "table_hashes": [division.table_hash for folds in divisions for division in folds],
        "taxonomy_hash": divisions[0][0].table.taxonomy.content_hash,
    }


def _identity(
    model: Model,
    sources: Sequence[Sequence[Sequence[Source]]],
    task: Task,
    data: dict[str, Any],
    config: EvaluationConfig,
) -> dict[str, Any]:
    """What a stored result must agree in to be kept."""
    settings = {key: value for key, value in asdict(config).items() if key != "tasks"}
    content = {
        "model": model.name,
        "sources": [[[source.version for source in seeds] for seeds in folds] for folds in sources],
        "task": task.name,
        "task_version": task.version,
        **data,
        "evaluation": settings,
    }
    return dict(json.loads(json.dumps(content)))


def _peak_memory_mb() -> float:
    """Highest memory of the process so far, not of the task alone."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)
