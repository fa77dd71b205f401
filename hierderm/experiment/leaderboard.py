"""The leaderboard, a view of the store: every model's main metrics with intervals, and its mean rank."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from hierderm.errors import BenchmarkError, suggest
from hierderm.evaluation.catalogue import HEADLINES, Key, direction, metric_name
from hierderm.evaluation.evaluation import Metric
from hierderm.evaluation.inference.bootstrap import interval
from hierderm.evaluation.inference.differences import Difference, adjusted, paired_difference
from hierderm.experiment.results import Results
from hierderm.report.words import short_standing, slug, warning_sentences
from hierderm.types import FloatArray

Column = tuple[str, Key]  # task, metric


def _require_comparable(results: Results) -> None:
    """BenchmarkError where the results are on different data, or by different settings."""
    contents = [result.content for tasks in results.models.values() for result in tasks.values()]
    for what in ("table_hashes", "taxonomy_hash", "evaluation"):
        n_different = len({json.dumps(content[what]) for content in contents})
        if n_different > 1:
            raise BenchmarkError(
                f"{results.folder} must have results with the same {what} to be compared, it has {n_different} "
                "different. Run the models again with the same data and settings, or delete old ones from its results."
            )


def columns_of(results: Results) -> list[Column]:
    """The main metrics of all tasks that any model has, in the order of the tasks."""
    found = [
        (task, (level, name))
        for tasks in results.models.values()
        for task, result in tasks.items()
        for level, name in result.content["main"]
    ]
    return [column for column in dict.fromkeys(found) if any(_metric(results, m, column) for m in results.models)]


def leaderboard(results: Results) -> pd.DataFrame:
    """A row a model, best mean rank first.

    For each main metric three columns: value, low and high. `mean_rank` is over the metrics that every model has, 1 the
    best, ties shared; its interval ranks the models anew in each bootstrap round, on the same draws of the cases.
    `n_ranked`: how many metrics that are.
    """
    _require_comparable(results)
    models, columns = list(results.models), columns_of(results)
    table = {column: [_metric(results, model, column) for model in models] for column in columns}
    ranked = {key: metrics for key, metrics in table.items() if all(metrics) and direction(key[1][1]) != "none"}
    ranks = [_ranks(column, np.array([m.value for m in metrics if m])) for column, metrics in ranked.items()]
    rounds = _rank_rounds(results, models, list(ranked))
    rows = []
    for number, model in enumerate(models):
        row: dict[str, Any] = {"model": model}
        if ranks:
            rank = float(np.mean(ranks, axis=0)[number])
            low, high = interval(rank, rounds[:, number])
            row |= {"mean_rank": rank, "mean_rank_low": low, "mean_rank_high": high}
        row["n_ranked"] = len(ranked)
        for (_, key), metrics in table.items():
            metric, name = metrics[number], " ".join(key)
            value, low, high = (metric.value, metric.low, metric.high) if metric else (np.nan,) * 3
            row |= {name: value, f"{name} low": low, f"{name} high": high}
        first = next(iter(results.models[model].values())).content
        rows.append(row | {key: first[key] for key in ("dim", "embedding_seconds")})
    frame = pd.DataFrame(rows)
    return frame.sort_values("mean_rank", kind="stable").reset_index(drop=True) if ranked else frame


def _metric(results: Results, model: str, column: Column) -> Metric | None:
    """The metric of a model where it is defined."""
    result = results.models[model].get(column[0])
    metric = None if result is None else result.evaluation.get(column[1])
    return None if metric is None or np.isnan(metric.value) else metric


def _ranks(column: Column, values: FloatArray) -> FloatArray:
    """1 for the best of the models, along the last axis."""
    sign = 1.0 if direction(column[1][1]) == "lower" else -1.0
    return np.asarray(rankdata(sign * values, axis=-1))


def _rank_rounds(results: Results, models: Sequence[str], ranked: Sequence[Column]) -> FloatArray:
    """The mean rank of each model in each bootstrap round, shape (n_rounds, n_models)."""
    column_ranks = []
    for column in ranked:
        evaluations = [results.models[model][column[0]].evaluation for model in models]
        rounds = [e.replicates.get(column[1]) for e in evaluations]
        found = [r for r in rounds if r is not None and len(r)]
        if len(found) == len(models):
            values = np.stack([e[column[1]].value + r - r.mean() for e, r in zip(evaluations, found, strict=True)])
            column_ranks.append(_ranks(column, values.T))
    return np.mean(column_ranks, axis=0) if column_ranks else np.empty((0, len(models)))


def as_cells(results: Results) -> tuple[list[str], list[list[str]]]:
    """The leaderboard as text: titles, and a row a model; 'value [low, high]'."""
    table, columns = leaderboard(results), columns_of(results)
    names = [("mean_rank", "mean_rank_low", "mean_rank_high")]
    names += [(name, f"{name} low", f"{name} high") for name in (" ".join(key) for _, key in columns)]
    rows = [[str(row["model"]), *(_cell(row, *three) for three in names)] for _, row in table.iterrows()]
    return ["model", "mean rank", *(metric_name(*key) for _, key in columns)], rows


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


def outcome(results: Results) -> str:
    """Which model has the best mean rank, and than which it is significantly better or worse."""
    table = leaderboard(results)
    best, *others = table["model"]
    if not others:
        return f"There is nothing to compare: {best} is the only model."
    if "mean_rank" not in table:
        return "There is no mean rank: no main metric is defined for all models."
    row = table.iloc[0]
    shared = {key for _, key in columns_of(results) if table[" ".join(key)].notna().all()}
    found = [d for other in others for d in compare_models(results, best, other, 0.95, every=False)]
    tested = [d for d in found if (d.level, d.name) in shared and not np.isnan(d.low)]
    rank = (
        f"{best} has the best mean rank of {len(table)} models, {row['mean_rank']:.1f} over {row['n_ranked']} metrics"
    )
    return f"{rank}; {short_standing(tested) if tested else 'no difference was tested'}."


def as_html(results: Results) -> str:
    """The leaderboard as a page of its own."""
    from hierderm.report.figures import headline_plot
    from hierderm.report.page import render
    from hierderm.report.tables import main_table

    titles, rows = as_cells(results)
    evaluations = [results.joined(row[0]) for row in rows]
    best, *others = evaluations
    found = [paired_difference(best, other, key, 0.95) for other in others for key in HEADLINES]
    main = main_table(evaluations)
    main["metrics"].insert(0, titles[1])
    for row, cells in zip(rows, main["rows"], strict=True):
        rank, _, ends = row[1].partition(" [")
        marked = row[1] != "–" and rank == rows[0][1].partition(" [")[0]
        cells["cells"].insert(0, {"text": rank, "interval": ends.rstrip("]").replace(", ", " to "), "marked": marked})
    names = ", ".join(row[0] for row in rows)
    return render(
        "leaderboard.html.j2",
        title=f"{len(rows)} models: benchmark {results.folder.name}",
        about=f"{names}. Tested on {best.n_images} images of {best.n_cases} held-out cases.",
        slug=slug(results.folder.name),
        outcome=outcome(results),
        main=main,
        headline=headline_plot(evaluations, [d for d in found if d is not None]),
        titles=titles,
        rows=rows,
        warnings=warnings_of(results),
    )


def warnings_of(results: Results) -> list[str]:
    """What must be known before believing the values: each warning once, with the models that it holds for."""
    return warning_sentences({model: results.joined(model).warnings for model in results.models})


def compare_models(results: Results, first: str, second: str, confidence: float, *, every: bool) -> list[Difference]:
    """`first` minus `second` in the main metrics they share, or in `every` metric, adjusted for their number."""
    _require_comparable(results)
    models = results.models
    for name in (first, second):
        if name not in models:
            raise BenchmarkError(f"there is no model '{name}'.{suggest(name, models)} There are {list(models)}.")
    found: list[Difference] = []
    for task, result in models[first].items():
        other = models[second].get(task)
        keys = [(m.level, m.name) for m in result.evaluation.metrics] if every else result.content["main"]
        for level, name in keys:
            if other is not None and direction(name) != "none":
                difference = paired_difference(result.evaluation, other.evaluation, (level, name), confidence)
                found += [difference] if difference is not None else []
    return adjusted(found)
