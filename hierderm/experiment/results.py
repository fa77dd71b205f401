"""The store of results, one for each model and task: `results/MODEL/TASK.json`, and its arrays in `TASK.npz`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hierderm.artifacts import read_header
from hierderm.errors import BenchmarkError, describe_os_error
from hierderm.evaluation.catalogue import Key
from hierderm.evaluation.evaluation import Evaluation, Metric
from hierderm.evaluation.inference.groups import Gap, GroupScore
from hierderm.evaluation.tasks.registry import Task
from hierderm.files import replacing, require_regular, write_json
from hierderm.json_files import read_json
from hierderm.notebook import with_table
from hierderm.types import Count

COMPARISON, BENCHMARK = "comparison", "benchmark"  # the kinds of folders with results
AGAIN = "Restore a copy, or delete it and give the command again: it is computed anew."


@dataclass(frozen=True)
class _Content:
    """What is read from the JSON of a result, which has more for people."""

    model: str
    task: str
    main: tuple[tuple[str, str], ...]
    table_hashes: tuple[str, ...]
    taxonomy_hash: str
    evaluation: dict[str, Any]
    dim: Count
    embedding_seconds: float
    n_images: Count
    n_cases: Count
    metrics: tuple[Metric, ...]
    categories: tuple[dict[str, Any], ...]
    groups: tuple[GroupScore, ...]
    gaps: tuple[Gap, ...]
    neighbours: tuple[dict[str, Any], ...]
    details: dict[str, Any]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What one model reached in one task: the evaluation, and what the JSON that was written with it says."""

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

    def _repr_html_(self) -> str:
        return with_table(self, self.to_pandas())

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
        read_header(folder, COMPARISON, BENCHMARK, error=BenchmarkError)
        found: dict[str, dict[str, Result]] = {}
        for path in sorted((folder / "results").glob("*/*.json")):
            content = read_json(path, _Content, BenchmarkError, extra="ignore", again=AGAIN)
            evaluation = _evaluation(content, path)
            said = vars(content) | evaluation.to_dict()
            found.setdefault(content.model, {})[content.task] = Result(evaluation, said)
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

    def joined(self, model: str, tasks: Sequence[Task] = ()) -> Evaluation:
        """The results of some tasks of a model as one evaluation.

        Args:
            model: Its name.
            tasks: Which tasks; they must have been run. By default all that have.

        Returns:
            The evaluation that all tasks together give.
        """
        done = self.models[model]
        parts = [done[name].evaluation for name in ([task.name for task in tasks] or done)]
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
    saved = read_json(path, dict[str, Any], BenchmarkError, again=AGAIN)
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


def _evaluation(content: _Content, path: Path) -> Evaluation:
    arrays = _arrays(path.with_suffix(".npz"))

    def named(kind: str) -> dict[Key, Any]:
        keys = {name: name.split(" ", 1)[1].rsplit(" ", 1) for name in arrays if name.startswith(f"{kind} ")}
        return {(level, name): arrays[full] for full, (level, name) in keys.items()}

    shared = {field.name for field in fields(Evaluation)} & {field.name for field in fields(_Content)}
    return Evaluation(
        replicates=named("rounds"),
        per_image=named("images"),
        case_ids=arrays["case_ids"],
        **{name: getattr(content, name) for name in shared},
    )


def _arrays(path: Path) -> dict[str, Any]:
    """The arrays of a result by name; BenchmarkError where they are missing, damaged, or something else."""
    try:
        require_regular(path)
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        kinds = {name: (array.ndim, array.dtype.kind) for name, array in arrays.items()}
        values = {name: kind for name, kind in kinds.items() if name != "case_ids"}
        if kinds.get("case_ids") != (1, "U") or any(
            kind != (1, "f") or len(name.split(" ")) < 3 for name, kind in values.items()
        ):
            raise ValueError(f"it holds {kinds}")
    except OSError as fault:
        raise BenchmarkError(f"{path} can't be read: {describe_os_error(fault)} {AGAIN}") from None
    except Exception as fault:  # numpy and zipfile raise errors of all kinds
        raise BenchmarkError(f"{path} is damaged ({str(fault)[:200]}). {AGAIN}") from None
    return arrays
