"""The comparison report: `report.json` for scripts and a self-contained `report.html` for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hierderm import __version__
from hierderm import columns as c
from hierderm.artifacts import write_atomically, write_json
from hierderm.config.loading import dump_config, to_dict
from hierderm.config.settings import Comparison
from hierderm.data.image_io import open_image
from hierderm.data.splits import SplitReport
from hierderm.data.table import CaseTable
from hierderm.evaluation.catalogue import HEADLINES, METRIC_NAMES, TREE, direction, metric_name
from hierderm.evaluation.evaluation import Evaluation, Metric
from hierderm.evaluation.inference.differences import Difference, adjusted, paired_difference
from hierderm.evaluation.metrics.ranking import nearest_others
from hierderm.report.map import map_points
from hierderm.report.methods import methods
from hierderm.report.page import render
from hierderm.report.plots import (
    category_bars,
    embedding_maps,
    fine_confusion,
    history_figure,
    project,
    reliability_figure,
)
from hierderm.report.rows import Row
from hierderm.report.sections import collapse_sentences, confusion_rows, group_tables, neighbour_table, trust_sentences
from hierderm.report.thumbnails import as_base64, data_uri, thumbnail, thumbnail_uri
from hierderm.report.words import certainty_sentence, focus_sentences, headline_sentences, verdict
from hierderm.types import IntArray

THUMBNAIL, TIP = 96, 80  # pixels a side, of examples and of pictures on the map
MAP_PICTURES = 800  # points of the map that shows pictures, at most
MAP_IMAGES = 3000  # points of a map, at most
N_EXAMPLES, N_NEIGHBOURS = 4, 6
CATEGORY_COLUMNS = {
    "recall_at_1": "Recall@1",
    "map_at_r": "MAP@R",
    "r_precision": "R-precision",
    "mrr": "Reciprocal rank",
    "fine_recall_at_1": "Fine recall@1",
    "lca_height_at_10": "Height, top 10",
    "share_in_main_cluster": "Share in its main cluster",
    "purity_of_main_cluster": "Purity of that cluster",
}


def write_report(
    config: Comparison,
    table: CaseTable,
    split_report: SplitReport | None,
    rows: Sequence[Row],
    folder: Path,
    environment: Mapping[str, str],
) -> Path:
    """Write `report.json` and `report.html` to `folder`; returns the path of the page."""
    evaluations = [row.evaluation for row in rows]
    focus = next(row for row in rows if row.evaluation.model == (config.focus or rows[-1].evaluation.model))
    confidence = config.evaluation.confidence
    differences = focus_differences(focus.evaluation, evaluations, confidence)
    words = headline_sentences(evaluations, confidence)
    of_headlines = [d for d in differences if (d.level, d.name) in HEADLINES]
    focus_words = focus_sentences(of_headlines)
    in_short = verdict(evaluations, of_headlines)
    certainty = certainty_sentence(of_headlines)
    facts = _facts(config, table, split_report, rows)
    to_know = [f"{row.evaluation.model}: {text}" for row in rows for text in row.evaluation.warnings]
    to_know += collapse_sentences(evaluations)
    write_json(
        folder / "report.json",
        {
            "hierderm": __version__,
            "name": config.name,
            "split_hash": table.split_hash,
            "taxonomy": table.taxonomy.summary(),
            "facts": facts,
            "summary": [in_short, certainty, *focus_words, *words],
            "warnings": to_know,
            "models": [
                {
                    **row.evaluation.to_dict(),
                    "method": row.config.training.method,
                    "seconds": row.seconds,
                    "n_runs": row.n_runs,
                }
                for row in rows
            ],
            "differences": [d.to_dict() for d in differences],
            "environment": dict(environment),
            "config": to_dict(config),
        },
    )
    trained = {r.entry.name: r.history for r in rows if "train_loss" in r.history}
    classifying = [e for e in evaluations if "reliability" in e.details]
    seen = _nearest(table, focus)
    page = render(
        "report.html.j2",
        name=config.name,
        facts=facts,
        in_short=in_short,
        certainty=certainty,
        to_know=to_know,
        words=words,
        focus=focus.evaluation.model,
        focus_words=focus_words,
        level_tables=[_level_table(level, evaluations) for level in _levels(evaluations)],
        difference_table=_difference_table(differences),
        rows=rows,
        curves=data_uri(history_figure(trained)) if trained else "",
        maps=data_uri(_maps(config, table, rows)),
        map=_map(config, table, focus),
        bars=data_uri(category_bars(evaluations)),
        categories=_category_rows(focus.evaluation),
        confusion=confusion_rows(seen.coarse, seen.coarse[seen.nearest[:, 0]], table.taxonomy.names(0)),
        fine_confusion=data_uri(
            fine_confusion(seen.fine, seen.fine[seen.nearest[:, 0]], table.taxonomy.ancestors[:, 0])
        ),
        reliability=data_uri(reliability_figure(classifying)) if classifying else "",
        trust={
            e.model: trust_sentences(e, config.evaluation.answer_error, 1 - config.evaluation.conformal_error)
            for e in classifying
        },
        groups=group_tables(focus.evaluation),
        neighbours=neighbour_table(focus.evaluation),
        examples=_examples(table, rows, focus),
        methods=methods(config, rows),
        confidence=round(100 * confidence),
        rounds=config.evaluation.bootstrap_rounds,
        kmeans_seeds=config.evaluation.kmeans_seeds,
        several=config.protocol.every_fold or config.protocol.seeds > 1,
        excluded=[str(fault) for fault in table.excluded],
        config=dump_config(config),
        environment=environment,
    )
    write_atomically(folder / "report.html", page)
    return folder / "report.html"


def focus_differences(focus: Evaluation, evaluations: Sequence[Evaluation], confidence: float) -> list[Difference]:
    """The focus model minus every other in every metric both have."""
    found = [
        paired_difference(focus, other, (metric.level, metric.name), confidence)
        for other in evaluations
        if other is not focus
        for metric in focus.metrics
    ]
    known = [difference for difference in found if difference is not None]
    together = adjusted([d for d in known if (d.level, d.name) in HEADLINES])  # named in advance
    return [*together, *(d for d in known if (d.level, d.name) not in HEADLINES)]


def _facts(
    config: Comparison, table: CaseTable, split_report: SplitReport | None, rows: Sequence[Row]
) -> list[tuple[str, str]]:
    counts = {split: int((table.splits == split).sum()) for split in c.SPLITS}
    cases = {split: len(np.unique(table.case_ids[table.splits == split])) for split in c.SPLITS}
    facts = [
        ("Data", config.data.cases),
        ("Taxonomy", table.taxonomy.summary()),
        *((f"{split.capitalize()}", f"{counts[split]} pictures of {cases[split]} cases") for split in c.SPLITS),
        ("Split", f"by case, hash {table.split_hash}"),
        ("Backbone", config.backbone.name),
    ]
    evaluation = rows[0].evaluation
    if config.protocol.every_fold:
        again = f", {config.protocol.repeats} times" if config.protocol.repeats > 1 else ""
        together = f"together {evaluation.n_cases} test cases; the counts are of the first"
        facts.append(("Folds", f"{config.split.folds}{again}, {together}"))
    if config.protocol.seeds > 1 or config.protocol.repeats > 1:
        facts.append(("Trainings of each model", str(max(row.n_runs for row in rows))))
    if split_report:
        facts.append(("Conditions with a single case", f"{split_report.single_group_conditions}, all in training"))
        facts.append(("Cases joined with a look-alike", str(split_report.cases_joined)))
    if table.excluded:
        facts.append(("Rows left out by choice", f"{len(table.excluded)}, listed below"))
    skipped = {m.level: m.skipped for m in evaluation.metrics if m.name == "map_at_r"}
    for level, n in skipped.items():
        facts.append((f"Test pictures without a relevant other case ({level})", f"{n}, skipped in retrieval"))
    return facts


def _levels(evaluations: Sequence[Evaluation]) -> list[str]:
    """The levels that have figures, coarse first, the tree last."""
    found = list(dict.fromkeys(metric.level for evaluation in evaluations for metric in evaluation.metrics))
    return [*(level for level in found if level != TREE), *(level for level in found if level == TREE)]


def _level_table(level: str, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Metrics down, models across; the best of each row marked."""
    rows = []
    for name, title in METRIC_NAMES.items():
        metrics = [evaluation.get((level, name)) for evaluation in evaluations]
        values = [metric.value for metric in metrics if metric is not None and not np.isnan(metric.value)]
        if values:
            better = direction(name)
            best = {"lower": min(values), "higher": max(values), "none": np.nan}[better]
            cells = [_cell(metric, best) for metric in metrics]
            title += {"lower": " (lower is better)", "higher": "", "none": " (no better or worse)"}[better]
            rows.append({"title": title, "headline": (level, name) in HEADLINES, "cells": cells})
    title = "of the tree" if level == TREE else f"at the {level} level"
    return {"level": title, "models": [evaluation.model for evaluation in evaluations], "rows": rows}


def _cell(metric: Metric | None, best: float) -> dict[str, Any]:
    if metric is None or np.isnan(metric.value):
        return {"text": "–", "interval": "", "best": False}
    interval = "" if np.isnan(metric.low) else f"{metric.low:.3f} to {metric.high:.3f}"
    return {"text": f"{metric.value:.3f}", "interval": interval, "best": round(metric.value, 3) == round(best, 3)}


def _category_rows(evaluation: Evaluation) -> list[list[str]]:
    """A row a category of the focus model's figures, the largest first, as text."""
    names = [key for key in evaluation.categories[0] if key in CATEGORY_COLUMNS]
    rows = sorted(evaluation.categories, key=lambda row: -row["n_images"])
    return [
        ["Category", "Pictures", "Cases", *(CATEGORY_COLUMNS[name] for name in names), "Lies in clusters ruled by"],
        *(
            [
                row["category"],
                str(row["n_images"]),
                str(row["n_cases"]),
                *("–" if row[name] is None else f"{row[name]:.3f}" for name in names),
                ", ".join(f"{name} {share:.0%}" for name, share in row["went_to"][:3]),
            ]
            for row in rows
        ),
    ]


def _difference_table(differences: Sequence[Difference]) -> dict[str, Any]:
    references = list(dict.fromkeys(d.reference for d in differences))
    found = {(d.level, d.name, d.reference): d for d in differences}
    rows = [
        {"title": metric_name(*key), "cells": [found.get((*key, reference)) for reference in references]}
        for key in HEADLINES
        if any((*key, reference) in found for reference in references)
    ]
    return {"references": references, "rows": rows}


def _maps(config: Comparison, table: CaseTable, rows: Sequence[Row]) -> bytes:
    names = [str(name) for name in rows[0].test.frame[c.CONDITION]]
    labels = table.taxonomy.to_level(table.taxonomy.encode(names), 0)
    chosen = np.random.default_rng(config.evaluation.seed).permutation(len(labels))[:MAP_IMAGES]
    points = {row.entry.name: project(row.test.embeddings[chosen], config.evaluation.seed) for row in rows}
    return embedding_maps(points, labels[chosen], table.taxonomy.names(0))


def _map(config: Comparison, table: CaseTable, focus: Row) -> dict[str, Any]:
    """The focus model's map with a small picture for each point, as many as the page bears."""
    frame, seed = focus.test.frame, config.evaluation.seed
    chosen = np.random.default_rng(seed).permutation(len(frame))[:MAP_PICTURES]
    fine = table.taxonomy.encode(frame[c.CONDITION])[chosen]
    where = project(focus.test.embeddings[chosen], seed)
    texts = [table.taxonomy.names()[number] for number in fine]
    drawn = map_points(where, table.taxonomy.to_level(fine, 0), texts, table.taxonomy.names(0))
    pictures = [open_image(table.root / frame[c.IMAGE_PATH].iloc[row]) for row in chosen]
    return {**drawn, "pictures": [as_base64(thumbnail(picture, TIP)) for picture in pictures]}


@dataclass(frozen=True)
class _Seen:
    """Labels of the test pictures of a row, and the nearest pictures of other cases, shape (n_images, k)."""

    fine: IntArray
    coarse: IntArray
    nearest: IntArray


def _nearest(table: CaseTable, row: Row) -> _Seen:
    frame = row.test.frame
    fine = table.taxonomy.encode(frame[c.CONDITION])
    k = min(N_NEIGHBOURS, len(frame) - int(frame[c.CASE_ID].value_counts().max()))
    everyone = np.arange(len(frame))
    nearest = nearest_others(row.test.embeddings, row.test.case_ids, everyone, k) if k > 0 else everyone[:, None]
    return _Seen(fine, table.taxonomy.to_level(fine, 0), nearest)


def _examples(table: CaseTable, rows: Sequence[Row], focus: Row) -> list[dict[str, Any]]:
    """Picture rows of the focus model and the first: queries whose nearest neighbour is right, and wrong."""
    shown = [focus, *(row for row in rows[:1] if row is not focus)]
    return [{"model": row.entry.name, "groups": _example_groups(table, row)} for row in shown]


def _example_groups(table: CaseTable, row: Row) -> list[dict[str, Any]]:
    frame, seen = row.test.frame, _nearest(table, row)
    fine, coarse, nearest = seen.fine, seen.coarse, seen.nearest[:, 0]
    rng = np.random.default_rng(0)
    groups = []
    for title, rows_of_kind in (
        ("Nearest case has the same condition", fine[nearest] == fine),
        (
            "Nearest case has another condition of the same category",
            (fine[nearest] != fine) & (coarse[nearest] == coarse),
        ),
        ("Nearest case is of another category", coarse[nearest] != coarse),
    ):
        queries = rng.permutation(np.flatnonzero(rows_of_kind))[:N_EXAMPLES]
        share = f"{rows_of_kind.mean():.0%} of {len(frame)} queries"
        lines = [
            [_tile(table, frame, i, query, fine, coarse) for i in (query, *seen.nearest[query])] for query in queries
        ]
        groups.append({"title": title, "share": share, "lines": lines})
    return groups


def _tile(table: CaseTable, frame: Any, image: int, query: int, fine: IntArray, coarse: IntArray) -> dict[str, str]:
    verdict = "same" if fine[image] == fine[query] else "category" if coarse[image] == coarse[query] else "other"
    return {
        "picture": thumbnail_uri(open_image(table.root / frame[c.IMAGE_PATH].iloc[image]), THUMBNAIL),
        "condition": str(frame[c.CONDITION].iloc[image]),
        "category": table.taxonomy.names(0)[coarse[image]],
        "verdict": "query" if image == query else verdict,
    }
