"""Run tasks on models: embeddings are cached, results written one by one, and a killed run goes on."""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hierderm.artifacts import claim_folder, replacing, write_json
from hierderm.config.settings import EvaluationConfig
from hierderm.data.table import CaseTable
from hierderm.evaluation.catalogue import Key
from hierderm.evaluation.evaluation import Evaluation, Metric, with_intervals
from hierderm.evaluation.inference.bootstrap import case_draws
from hierderm.evaluation.inference.combine import combine_folds, combine_seeds
from hierderm.evaluation.subject import Subject, subject_of
from hierderm.evaluation.tasks.registry import Task
from hierderm.experiment.sources import Model, embeddings_of

KIND = "benchmark"  # of a folder
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What one model reached in one task: the evaluation, and the JSON that was written for it."""

    evaluation: Evaluation
    content: dict[str, Any]


def bench(
    models: Sequence[Model],
    tasks: Sequence[Task],
    folds: Sequence[CaseTable],
    config: EvaluationConfig,
    folder: Path,
    *,
    data: str,
    environment: dict[str, str],
    workers: int = 0,
) -> None:
    """Evaluate models by the tasks of a benchmark; what is in the folder already is kept.

    Args:
        models: Names and sources, as `parse_model` gives them.
        tasks: What to evaluate.
        folds: The table with its split, or one table for each fold, whose results are combined.
        config: Settings of the evaluation.
        folder: Results go to `results/MODEL/TASK.json` and `.npz`, embeddings to `embeddings`.
        data: Name of the data, for the results.
        environment: Versions and machine, for the results.
        say: Is told what is being done.
        workers: Processes that load images.
    """
    claim_folder(folder, KIND)
    for model in models:
        missing = [task for task in tasks if not _is_done(model, task, folds, config, folder)]
        if not missing:
            logger.info("%s: all tasks done.", model.name)
            continue
        start = time.monotonic()
        logger.info("%s: embedding ...", model.name)
        subjects = _subjects(model, folds, config, folder, workers)
        seconds = time.monotonic() - start
        for task in missing:
            logger.info("%s: %s ...", model.name, task.name)
            start = time.monotonic()
            evaluation = _evaluate(task, subjects, config)
            content = {
                **_identity(model, task, folds, config),
                "about": task.about,
                "main": [list(key) for key in task.main or _keys(evaluation)],
                "data": data,
                "n_images": evaluation.n_images,
                "n_cases": evaluation.n_cases,
                "dim": int(subjects[0][0].test.embeddings.shape[1]),
                "metrics": [metric.to_dict() for metric in evaluation.metrics],
                "warnings": list(evaluation.warnings),
                "details": evaluation.details,
                "embedding_seconds": round(seconds, 2),
                "seconds": round(time.monotonic() - start, 2),
                "process_peak_memory_mb": _peak_memory_mb(),
                "environment": environment,
            }
            _write(evaluation, content, folder)


def _subjects(
    model: Model, folds: Sequence[CaseTable], config: EvaluationConfig, folder: Path, workers: int
) -> list[list[Subject]]:
    """For each fold a subject for each seed. What does not depend on the fold is embedded once."""
    subjects = []
    for fold, table in enumerate(folds):
        of_fold = []
        for seed, source in enumerate(model.sources):
            own = source.replace("{fold}", str(fold))
            place = f"{model.name}.{seed}" + (f".{fold}" if own != source else "")
            embedded = embeddings_of(own, table, folder / "embeddings" / place, workers=workers)
            of_fold.append(subject_of(embedded, table, config, name=model.name))
        subjects.append(of_fold)
    return subjects


def _evaluate(task: Task, subjects: Sequence[Sequence[Subject]], config: EvaluationConfig) -> Evaluation:
    of_folds = []
    for fold, seeds in enumerate(subjects):
        draws = case_draws(seeds[0].test.case_ids, config.bootstrap_rounds, config.seed, seeds[0].every_case)
        every = [with_intervals(subject, task.scores(subject), draws) for subject in seeds]
        of_folds.append(combine_seeds(every, config.confidence, config.seed + fold))
    return combine_folds(of_folds, config.confidence)


def _keys(evaluation: Evaluation) -> list[Key]:
    return [(metric.level, metric.name) for metric in evaluation.metrics]


def _identity(model: Model, task: Task, folds: Sequence[CaseTable], config: EvaluationConfig) -> dict[str, Any]:
    """What a stored result must agree in to be kept."""
    content = {
        "model": model.name,
        "sources": list(model.sources),
        "task": task.name,
        "task_version": task.version,
        "split_hashes": [table.split_hash for table in folds],
        "taxonomy_hash": folds[0].taxonomy.content_hash,
        "evaluation": asdict(config),
    }
    return dict(json.loads(json.dumps(content)))


def _is_done(model: Model, task: Task, folds: Sequence[CaseTable], config: EvaluationConfig, folder: Path) -> bool:
    path = _path(folder, model.name, task.name)
    if not path.is_file() or not path.with_suffix(".npz").is_file():
        return False
    saved = json.loads(path.read_text())
    return all(saved.get(key) == value for key, value in _identity(model, task, folds, config).items())


def _path(folder: Path, model: str, task: str) -> Path:
    return folder / "results" / model / f"{task}.json"


def _peak_memory_mb() -> float:
    """Highest memory of the process so far, not of the task alone."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


def _write(evaluation: Evaluation, content: dict[str, Any], folder: Path) -> None:
    path = _path(folder, content["model"], content["task"])
    arrays: dict[str, Any] = {"case_ids": evaluation.case_ids}
    arrays |= {f"rounds {level} {name}": values for (level, name), values in evaluation.replicates.items()}
    arrays |= {f"images {level} {name}": values for (level, name), values in evaluation.per_image.items()}
    with replacing(path.with_suffix(".npz")) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)
    write_json(path, content)  # last: with it the result is whole


def read_results(folder: Path) -> dict[str, dict[str, Result]]:
    """The stored results by model and task."""
    found: dict[str, dict[str, Result]] = {}
    for path in sorted((folder / "results").glob("*/*.json")):
        content = json.loads(path.read_text())
        found.setdefault(content["model"], {})[content["task"]] = Result(_evaluation(content, path), content)
    return found


def _evaluation(content: dict[str, Any], path: Path) -> Evaluation:
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    fields = ("level", "name", "value", "low", "high", "count", "skipped")
    rows: list[dict[str, Any]] = [
        {key: float("nan") if row[key] is None else row[key] for key in fields} for row in content["metrics"]
    ]
    metrics = tuple(Metric(**row) for row in rows)

    def of(kind: str) -> dict[Key, Any]:
        chosen = {name.split(" ", 1)[1]: values for name, values in arrays.items() if name.startswith(f"{kind} ")}
        return {(name.rsplit(" ", 1)[0], name.rsplit(" ", 1)[1]): values for name, values in chosen.items()}

    return Evaluation(
        content["model"], metrics, (), content["n_images"], content["n_cases"], of("rounds"), of("images"),
        arrays["case_ids"], warnings=tuple(content["warnings"]),
    )  # fmt: skip
