"""The store of results, one for each model and task: `results/MODEL/TASK.json`, and its arrays in `TASK.npz`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from hierderm.artifacts import read_header
from hierderm.errors import BenchmarkError
from hierderm.evaluation.catalogue import Key
from hierderm.evaluation.evaluation import Evaluation, Metric
from hierderm.evaluation.inference.groups import Gap, GroupScore
from hierderm.evaluation.tasks.registry import Task
from hierderm.experiment.run import RUN
from hierderm.files import replacing, write_json

Row = TypeVar("Row", Metric, GroupScore, Gap)


@dataclass(frozen=True)
class Result:
    """What one model reached in one task: the evaluation, and the JSON that was written with it."""

    evaluation: Evaluation
    content: dict[str, Any]


@dataclass(frozen=True, repr=False)
class Results:
    """The stored results of a comparison or a benchmark.

    Attributes:
        folder: Where they are.
        models: By model, then by task: the evaluation, and the content of its JSON file.
    """

    folder: Path
    models: Mapping[str, Mapping[str, Result]]

    def __repr__(self) -> str:
        return f"Results({str(self.folder)!r}: {', '.join(f'{m} ({len(t)} tasks)' for m, t in self.models.items())})"

    @classmethod
    def open(cls, folder: str | Path) -> Results:
        """Read all results of a folder.

        Args:
            folder: Of a comparison or a benchmark.

        Returns:
            The results.

        Raises:
            BenchmarkError: It is another folder, or has no results.
        """
        folder = Path(folder)
        read_header(folder, RUN, error=BenchmarkError)
        found: dict[str, dict[str, Result]] = {}
        for path in sorted((folder / "results").glob("*/*.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            found.setdefault(content["model"], {})[content["task"]] = Result(_evaluation(content, path), content)
        if not found:
            raise BenchmarkError(f"{folder} has no results. Make some with: hierderm bench run ... -o {folder}")
        return cls(folder, found)

    def to_pandas(self) -> pd.DataFrame:
        """The leaderboard: a row a model, best mean rank first; for each main metric its value, low and high.

        Returns:
            The columns model, mean_rank with its interval, n_ranked, 'LEVEL METRIC' with 'LEVEL METRIC low' and
            'LEVEL METRIC high', dim, and embedding_seconds.

        Raises:
            BenchmarkError: Results on different data or by different settings, which can't be compared.
        """
        from hierderm.experiment.leaderboard import leaderboard

        return leaderboard(self)

    def joined(self, model: str, tasks: Sequence[Task]) -> Evaluation:
        """The results of some tasks of a model as one evaluation.

        Args:
            model: Its name.
            tasks: Which tasks; they must have been run.

        Returns:
            The evaluation that all tasks together give.
        """
        parts = [self.models[model][task.name].evaluation for task in tasks]
        whole: dict[str, Any] = {
            field: tuple(row for part in parts for row in getattr(part, field))
            for field in ("metrics", "categories", "groups", "gaps", "neighbours")
        }
        for field in ("replicates", "per_image", "details"):
            whole[field] = {key: value for part in parts for key, value in getattr(part, field).items()}
        return replace(
            parts[0], **whole, warnings=tuple(dict.fromkeys(text for part in parts for text in part.warnings))
        )


def is_stored(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether the result of this identity (model, task, and all that its values depend on) is there and whole."""
    path = result_path(folder, identity["model"], identity["task"])
    if not path.is_file() or not path.with_suffix(".npz").is_file():
        return False
    saved = json.loads(path.read_text(encoding="utf-8"))
    return all(saved.get(key) == value for key, value in identity.items())


def store(folder: Path, content: Mapping[str, Any], evaluation: Evaluation) -> None:
    """Write one result. `content`: its identity, and what else the JSON shall say."""
    path = result_path(folder, content["model"], content["task"])
    arrays: dict[str, Any] = {"case_ids": evaluation.case_ids}
    arrays |= {f"rounds {level} {name}": values for (level, name), values in evaluation.replicates.items()}
    arrays |= {f"images {level} {name}": values for (level, name), values in evaluation.per_image.items()}
    with replacing(path.with_suffix(".npz")) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)
    write_json(path, {**content, **evaluation.to_dict()})  # last: with it the result is whole


def result_path(folder: Path, model: str, task: str) -> Path:
    """Where the result of a model's task is, or will be, once it is whole."""
    return Path(folder, "results", model, f"{task}.json")


def _evaluation(content: Mapping[str, Any], path: Path) -> Evaluation:
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}

    def named(kind: str) -> dict[Key, Any]:
        keys = {name: name.split(" ", 1)[1].rsplit(" ", 1) for name in arrays if name.startswith(f"{kind} ")}
        return {(level, name): arrays[full] for full, (level, name) in keys.items()}

    plain: dict[str, Any] = {field: content[field] for field in ("model", "n_images", "n_cases", "details")}
    plain |= {field: tuple(content[field]) for field in ("categories", "neighbours", "warnings")}
    return Evaluation(
        metrics=_rows(Metric, content["metrics"]),
        groups=_rows(GroupScore, content["groups"]),
        gaps=_rows(Gap, content["gaps"]),
        replicates=named("rounds"),
        per_image=named("images"),
        case_ids=arrays["case_ids"],
        **plain,
    )


def _rows(kind: type[Row], rows: Sequence[Mapping[str, Any]]) -> tuple[Row, ...]:
    """Value objects from JSON, where null stands for nan."""
    names = [field.name for field in fields(kind)]
    known: list[dict[str, Any]] = [{name: np.nan if row[name] is None else row[name] for name in names} for row in rows]
    return tuple(kind(**values) for values in known)
