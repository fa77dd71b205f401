"""The leaderboard: every model's main figures with intervals, and its mean rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from hierderm.errors import BenchmarkError, suggest
from hierderm.evaluation.catalogue import Key, direction, metric_name
from hierderm.evaluation.inference.bootstrap import interval
from hierderm.evaluation.inference.differences import Difference, adjusted, paired_difference
from hierderm.experiment.benchmark import Result, read_results
from hierderm.types import FloatArray

Results = Mapping[str, Mapping[str, Result]]
Column = tuple[str, Key]  # task, figure


def results_of(folder: Path) -> Results:
    """The results of a benchmark folder; BenchmarkError where there are none, or where their data differ."""
    found = read_results(folder)
    if not found:
        raise BenchmarkError(f"{folder} has no results. Make some with: hierderm bench run ... -o {folder}")
    splits = {tuple(result.content["split_hashes"]) for tasks in found.values() for result in tasks.values()}
    if len(splits) > 1:
        raise BenchmarkError(f"{folder} has results on {len(splits)} different splits, which do not compare.")
    return found


def columns_of(results: Results) -> list[Column]:
    """The main figures of all tasks, in the order of the tasks."""
    found: dict[Column, None] = {}
    for tasks in results.values():
        for task, result in tasks.items():
            for level, name in result.content["main"]:
                metric = result.evaluation.get((level, name))
                if metric is not None and not np.isnan(metric.value):
                    found[task, (level, name)] = None
    return list(found)


def leaderboard(results: Results) -> pd.DataFrame:
    """A row a model, best mean rank first.

    For each main figure three columns: value, low and high. `mean_rank` is over the figures that every model has, 1 the
    best, ties shared; its interval ranks the models anew in each bootstrap round, on the same draws of the cases.
    `n_ranked`: how many figures that are.
    """
    models, columns = list(results), columns_of(results)
    shared = [column for column in columns if all(_metric(results, model, column) for model in models)]
    ranked = [column for column in shared if direction(column[1][1]) != "none"]
    values = {column: np.array([_metric(results, model, column).value for model in models]) for column in ranked}
    rank = np.mean([_ranks(column, of_models) for column, of_models in values.items()], axis=0) if ranked else None
    rounds = _rank_rounds(results, models, ranked)
    rows = []
    for number, model in enumerate(models):
        row: dict[str, Any] = {"model": model}
        if rank is not None:
            ends = interval(float(rank[number]), rounds[:, number])
            row |= {"mean_rank": float(rank[number]), "mean_rank_low": ends[0], "mean_rank_high": ends[1]}
        row["n_ranked"] = len(ranked)
        for column in columns:
            metric = _metric(results, model, column)
            name = f"{column[1][0]} {column[1][1]}"
            value, low, high = (metric.value, metric.low, metric.high) if metric else (np.nan,) * 3
            row |= {name: value, f"{name} low": low, f"{name} high": high}
        first = next(iter(results[model].values())).content
        row |= {"dim": first["dim"], "embedding_seconds": first["embedding_seconds"]}
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values("mean_rank", kind="stable").reset_index(drop=True) if ranked else table


def _metric(results: Results, model: str, column: Column) -> Any:
    result = results[model].get(column[0])
    metric = None if result is None else result.evaluation.get(column[1])
    return None if metric is None or np.isnan(metric.value) else metric


def _ranks(column: Column, values: FloatArray) -> FloatArray:
    """1 for the best of the models, along the last axis."""
    sign = 1.0 if direction(column[1][1]) == "lower" else -1.0
    return np.asarray(rankdata(sign * values, axis=-1))


def _rank_rounds(results: Results, models: Sequence[str], ranked: Sequence[Column]) -> FloatArray:
    """The mean rank of each model in each bootstrap round, shape (n_rounds, n_models)."""
    of_columns = []
    for column in ranked:
        evaluations = [results[model][column[0]].evaluation for model in models]
        rounds = [e.replicates.get(column[1]) for e in evaluations]
        found = [r for r in rounds if r is not None and len(r)]
        if len(found) == len(models):
            values = np.stack([e[column[1]].value + r - r.mean() for e, r in zip(evaluations, found, strict=True)])
            of_columns.append(_ranks(column, values.T))
    return np.mean(of_columns, axis=0) if of_columns else np.empty((0, len(models)))


def as_cells(results: Results) -> tuple[list[str], list[list[str]]]:
    """The leaderboard as text: titles, and a row a model; 'value [low, high]'."""
    table, columns = leaderboard(results), columns_of(results)
    titles = ["model", "mean rank", *(metric_name(*key) for _, key in columns)]
    rows = []
    for _, row in table.iterrows():
        names = ["mean_rank", *(f"{level} {name}" for _, (level, name) in columns)]
        ends = [("mean_rank_low", "mean_rank_high"), *((f"{name} low", f"{name} high") for name in names[1:])]
        cells = [_cell(row, name, *pair) for name, pair in zip(names, ends, strict=True)]
        rows.append([str(row["model"]), *cells])
    return titles, rows


def _cell(row: pd.Series, name: str, low: str, high: str) -> str:
    if name not in row or np.isnan(row[name]):
        return "–"
    digits = 1 if name == "mean_rank" else 3
    ends = "" if np.isnan(row[low]) else f" [{row[low]:.{digits}f}, {row[high]:.{digits}f}]"
    return f"{row[name]:.{digits}f}{ends}"


def as_markdown(results: Results) -> str:
    """The leaderboard as a Markdown table."""
    titles, rows = as_cells(results)
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_html(results: Results, title: str) -> str:
    """The leaderboard as a page of its own."""
    from hierderm.report.page import render

    titles, rows = as_cells(results)
    return render("leaderboard.html.j2", title=title, titles=titles, rows=rows, warnings=warnings_of(results))


def warnings_of(results: Results) -> dict[str, list[str]]:
    """What must be known of each model before believing its figures; models without a warning are left out."""
    found = {model: {w for r in tasks.values() for w in r.content["warnings"]} for model, tasks in results.items()}
    return {model: sorted(texts) for model, texts in found.items() if texts}


def compare_models(results: Results, first: str, second: str, confidence: float, *, every: bool) -> list[Difference]:
    """`first` minus `second` in the main figures they share, or in `every` figure, adjusted for their number."""
    for name in (first, second):
        if name not in results:
            raise BenchmarkError(f"there is no model '{name}'.{suggest(name, results)} There are {list(results)}.")
    found: list[Difference] = []
    for task, result in results[first].items():
        other = results[second].get(task)
        keys = [(m.level, m.name) for m in result.evaluation.metrics] if every else result.content["main"]
        for level, name in keys:
            if other is not None and direction(name) != "none":
                difference = paired_difference(result.evaluation, other.evaluation, (level, name), confidence)
                found += [difference] if difference is not None else []
    return adjusted(found)
