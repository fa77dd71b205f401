"""The sections of the report page: each function returns what its part of `report.html.j2` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hierderm import columns as c
from hierderm import plots
from hierderm.config.loading import dump_config
from hierderm.config.settings import Comparison, EvaluationConfig
from hierderm.data.image_io import open_image
from hierderm.data.table import CaseTable
from hierderm.evaluation.evaluation import Evaluation
from hierderm.evaluation.inference.differences import Difference
from hierderm.progress import track
from hierderm.report import tables
from hierderm.report.figures import headline_plot, plot
from hierderm.report.methods import methods
from hierderm.report.neighbours import Neighbours, example_groups, nearest_neighbours
from hierderm.report.page_map import map_points
from hierderm.report.rows import Row
from hierderm.report.thumbnails import as_base64, thumbnail
from hierderm.report.words import Summary, calibration_sentences, data_name, slug

THUMBNAIL = 80  # pixels of the longer side of an image on the map
MAX_MAP_IMAGES = 800  # points of the map that shows images
MAX_MAP_POINTS = 1000  # points of each map that shows points only


def first_screen(
    config: Comparison,
    evaluations: Sequence[Evaluation],
    focus: Row,
    differences: Sequence[Difference],
    summary: Summary,
) -> dict[str, Any]:
    """What answers at a glance, on the page and in the PDF: the outcome, the main metrics, and their plot."""
    return {
        "slug": slug(f"{data_name(config.data.cases)} {len(evaluations)} models"),
        "focus": focus.evaluation.model,
        "settings": config.evaluation,
        "summary": summary,
        "main": tables.main_table(evaluations),
        "headline": headline_plot(evaluations, differences),
    }


def page_sections(
    config: Comparison, table: CaseTable, rows: Sequence[Row], focus: Row, differences: Sequence[Difference]
) -> dict[str, Any]:
    """What the page shows below, folded, besides facts, warnings and environment, by section."""
    evaluations, seed = [row.evaluation for row in rows], config.evaluation.seed
    shown = [focus, *(row for row in rows[:1] if row is not focus)]
    neighbours = [nearest_neighbours(table, row) for row in shown]
    return {
        "averaged": config.protocol.every_fold or config.protocol.seeds > 1,
        "differences": tables.difference_table(differences),
        "levels": tables.level_tables(evaluations),
        "models": models_section(rows),
        "maps": maps_section(table, rows, focus, seed),
        "categories": categories_section(table, evaluations, focus, neighbours[0]),
        "calibration": calibration_section(evaluations, config.evaluation),
        "groups": {
            "tables": tables.group_tables(focus.evaluation),
            "neighbours": tables.neighbour_tables(focus.evaluation),
        },
        "examples": [
            {"model": row.entry.name, "groups": example_groups(table, row, found)}
            for row, found in zip(shown, neighbours, strict=True)
        ],
        "methods": methods(config, rows),
        "record": {"excluded": [str(fault) for fault in table.excluded], "config": dump_config(config)},
    }


def models_section(rows: Sequence[Row]) -> dict[str, Any]:
    """What each model is, and the training curves of those trained by epochs."""
    trained = [row for row in rows if "train_loss" in row.history]
    if not trained:
        return {"rows": rows, "curves": None}
    figure = plots.history({r.entry.name: r.history for r in trained}, {r.entry.name: r.chosen for r in trained})
    return {"rows": rows, "curves": plot("training-curves", "losses and validation scores by epoch", figure)}


def maps_section(table: CaseTable, rows: Sequence[Row], focus: Row, seed: int) -> dict[str, Any]:
    """The focus model's map with an image for each point, and a plot of the maps of all models."""
    tree, frame = table.taxonomy, focus.test.frame
    chosen = np.random.default_rng(seed).permutation(len(frame))[:MAX_MAP_POINTS]
    with_image = chosen[:MAX_MAP_IMAGES]
    fine = tree.encode(frame[c.CONDITION])
    coarse = tree.to_level(fine, 0)
    drawn = track(rows, "Drawing maps", unit="models")
    points = {row.entry.name: plots.project(row.test.embeddings[chosen], seed) for row in drawn}
    names = [tree.names()[condition] for condition in fine[with_image]]
    images = [open_image(table.root / path) for path in frame[c.IMAGE_PATH].iloc[with_image]]
    return {
        **map_points(points[focus.entry.name][: len(images)], coarse[with_image], names, tree.names(0)),
        "images": [as_base64(thumbnail(image, THUMBNAIL)) for image in images],
        "plot": plot(
            "maps",
            "t-SNE maps of the test images, one for each model, coloured by category",
            plots.embedding_maps(points, coarse[chosen], tree.names(0)),
        ),
    }


def categories_section(
    table: CaseTable, evaluations: Sequence[Evaluation], focus: Row, neighbours: Neighbours
) -> dict[str, Any]:
    """Results by category of all models; metrics and confusions of the focus model."""
    tree, known = table.taxonomy, neighbours.first >= 0
    first, fine, coarse = neighbours.first[known], neighbours.fine, neighbours.coarse
    return {
        "plot": plot("categories", "coarse Recall@1 of each category and model", plots.categories(evaluations)),
        "table": tables.category_table(focus.evaluation),
        "confusion": tables.confusion_table(coarse[known], coarse[first], tree.names(0)),
        "fine_confusion": plot(
            "confusion-of-conditions",
            "confusion of conditions in the order of the tree",
            plots.confusion(fine[known], fine[first], tree.ancestors[:, 0]),
        )
        if known.any()
        else None,
    }


def calibration_section(evaluations: Sequence[Evaluation], config: EvaluationConfig) -> dict[str, Any]:
    """Reliability, risk-coverage, selective answers and conformal sets; empty without a model that classifies."""
    if not any("reliability" in evaluation.details for evaluation in evaluations):
        return {}
    coverage = 1 - config.conformal_error
    sentences = {e.model: calibration_sentences(e, config.answer_error, coverage) for e in evaluations}
    alt = "reliability diagrams and risk-coverage curves of the models that classify"
    return {"plot": plot("calibration", alt, plots.calibration(evaluations)), "sentences": sentences}
