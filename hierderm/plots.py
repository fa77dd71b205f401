"""Plots of evaluations and embeddings, as matplotlib figures.

    from hierderm import plots

    plots.forest([paired_difference(one, other, key, 0.95) for key in HEADLINES])
    plots.calibration(evaluation).savefig("calibration.svg", bbox_inches="tight")
    plots.embedding_maps({"mine": plots.project(vectors)}, table.labels(0), tree.names(0))

No display is needed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from hierderm.errors import EmbeddingError
from hierderm.evaluation.catalogue import direction, metric_name
from hierderm.evaluation.evaluation import Evaluation
from hierderm.evaluation.inference.differences import Difference
from hierderm.types import Floats, IntArray

# Tol's six bright colours, then each time the colour of middle lightness that is farthest from all before (in Oklab).
PALETTE = (
    "#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#5A3C00", "#3C1EA5", "#B478FF", "#FFB4F0",
    "#00F096", "#A55A00", "#969687", "#004B69", "#784BD2", "#5AB41E", "#96000F", "#4B96FF", "#691E69", "#FF8700",
)  # fmt: skip
MARKERS = "o^sDvP*X"
ITERATIONS = 500  # of t-SNE: half of scikit-learn's default, after which points of a map hardly move
MAP_SHAPES = {"circle": "o", "square": "s", "diamond": "D"}


def map_look(number: int) -> dict[str, str]:
    """Colour and shape of a category on maps: neighbours in number differ in both, 60 categories in one of them."""
    return {"colour": PALETTE[number % len(PALETTE)], "shape": list(MAP_SHAPES)[number % len(MAP_SHAPES)]}


def png(figure: Figure) -> bytes:
    """The plot as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return buffer.getvalue()


HISTORY_PANELS = {
    "contrastive_loss": "contrastive loss",
    "classification_loss": "classification loss",
    "coarse_map_at_r": "coarse MAP@R, validation",
    "fine_map_at_r": "fine MAP@R, validation",
}


def forest(differences: Sequence[Difference]) -> Figure:
    """Paired differences with their intervals, a row each; filled where the interval excludes 0.

    Args:
        differences: Of any metrics and models, in the order of the rows (`hierderm.paired_difference`).

    Returns:
        The figure; to the right is more, and metrics of which less is better say so.

    Raises:
        EmbeddingError: There is none.
    """
    if not differences:
        raise EmbeddingError("a forest plot needs at least one difference, got none.")
    models = list(dict.fromkeys((d.model, d.reference) for d in differences))
    figure = Figure(figsize=(7, 0.32 * len(differences) + 1.2))
    axes = figure.add_subplot()
    axes.axvline(0, color="#999999", linewidth=1)
    for row, d in enumerate(differences):
        number = models.index((d.model, d.reference))
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
        axes.plot([d.low, d.high], [row, row], color=colour, linewidth=2)
        filled = colour if d.significant else "white"
        axes.plot(d.value, row, marker=marker, color=colour, markerfacecolor=filled, markersize=7)
    names = [
        metric_name(d.level, d.name) + (" (less is better)" if direction(d.name) == "lower" else "")
        for d in differences
    ]
    if len(models) > 1:
        names = [f"{name}: {d.model} − {d.reference}" for name, d in zip(names, differences, strict=True)]
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("difference" if len(models) > 1 else f"{models[0][0]} − {models[0][1]}")
    axes.grid(axis="x", alpha=0.3)
    return figure


def history(histories: Mapping[str, pd.DataFrame], chosen: Mapping[str, int]) -> Figure:
    """Each loss by itself and validation MAP@R by epoch, a line a model; a vertical line at the epoch that was chosen.

    The sum of the losses is not drawn: it rises when the second is faded in. Losses are those of training; dashed the
    same loss on validation.

    Args:
        histories: Of each model, by name, a row an epoch (`Run.history`).
        chosen: Of each model the row that was chosen (`Run.chosen`).

    Returns:
        The figure, a panel a loss or level.
    """
    panels = {column: title for column, title in HISTORY_PANELS.items() if any(column in h for h in histories.values())}
    figure = Figure(figsize=(4 * len(panels), 3.2))
    for place, (column, title) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), place)
        for number, (name, history) in enumerate(histories.items()):
            colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
            if column in history:
                axes.plot(history["epoch"], history[column], color=colour, marker=marker, markersize=4, label=name)
            if (held_out := f"validation_{column}") in history:
                axes.plot(history["epoch"], history[held_out], color=colour, linestyle="--")
            axes.axvline(history["epoch"].iloc[chosen[name]], color=colour, linewidth=0.8, linestyle=":")
        dashed = any(f"validation_{column}" in history for history in histories.values())
        axes.set_title(title + (" (dashed: validation)" if dashed else ""), fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.axes[-1].legend(fontsize=8)  # the panel that all models are in
    return figure


def embedding_maps(points: Mapping[str, Floats], labels: IntArray, names: Sequence[str], columns: int = 3) -> Figure:
    """A 2-D map for each model, each point an image, coloured by category.

    Args:
        points: Of each model, by name, the place of each image, shape (n_images, 2) (`project`).
        labels: Category of each image, shape (n_images,).
        names: Of the categories.
        columns: Maps in a row.

    Returns:
        The figure.
    """
    columns = min(columns, len(points))
    n_rows = -(-len(points) // columns)
    figure = Figure(figsize=(4.4 * columns, 4.2 * n_rows + 1))
    shown = np.unique(labels)
    for place, (name, where) in enumerate(points.items(), start=1):
        axes = figure.add_subplot(n_rows, columns, place)
        for order, label in enumerate(shown):
            inside = labels == label
            look, x, y = map_look(order), where[inside, 0], where[inside, 1]
            marker = MAP_SHAPES[look["shape"]]
            axes.scatter(x, y, s=12, linewidths=0, label=names[label], color=look["colour"], marker=marker)
        axes.set_title(name, fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
    handles, texts = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="upper center", bbox_to_anchor=(0.5, 0.06), ncols=4, fontsize=8, markerscale=2)
    return figure


def project(embeddings: Floats, seed: int = 0) -> Floats:
    """t-SNE of embeddings to the plane (scikit-learn); PCA where there are under 10.

    Args:
        embeddings: Shape (n_images, dim).
        seed: Of t-SNE.

    Returns:
        The place of each image, shape (n_images, 2).
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(embeddings) < 10:
        flat = PCA(min(2, *embeddings.shape), random_state=seed).fit_transform(embeddings)
        return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    perplexity = min(30.0, (len(embeddings) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", max_iter=ITERATIONS, random_state=seed)
    points: Floats = tsne.fit_transform(embeddings.astype(np.float64))
    return points


def categories(evaluations: Evaluation | Sequence[Evaluation]) -> Figure:
    """Coarse Recall@1 of each category, one bar for each model; the largest category first.

    Args:
        evaluations: With the task retrieval.

    Returns:
        The figure.
    """
    evaluations = _several(evaluations)
    rows = sorted(evaluations[0].categories, key=lambda row: -row["n_images"])
    figure = Figure(figsize=(11, 0.09 * len(rows) * (len(evaluations) + 1) + 1.2))
    axes = figure.add_subplot()
    height = 0.8 / len(evaluations)
    for number, evaluation in enumerate(evaluations):
        value = {row["category"]: row["recall_at_1"] for row in evaluation.categories}
        where = np.arange(len(rows)) + (number - (len(evaluations) - 1) / 2) * height
        lengths = [value[row["category"]] for row in rows]
        colour = PALETTE[number % len(PALETTE)]
        drawn = [np.nan if length is None else length for length in lengths]
        axes.barh(where, drawn, height * 0.9, color=colour, label=evaluation.model)
        for y in (y for y, length in zip(where, lengths, strict=True) if length is None):
            axes.text(0.005, y, "undefined", fontsize=6, va="center", color=colour)
    axes.set_yticks(range(len(rows)), [f"{row['category']} ({row['n_images']})" for row in rows], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("coarse Recall@1 (in brackets: number of test images)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=min(6, len(evaluations)))
    return figure


def calibration(evaluations: Evaluation | Sequence[Evaluation]) -> Figure:
    """Reliability diagram and risk-coverage curve of each model that classifies, one column for each level.

    Args:
        evaluations: With the task calibration; those without class probabilities are left out.

    Returns:
        The figure: reliability above, risk-coverage below.

    Raises:
        EmbeddingError: None of them has class probabilities.
    """
    evaluations = _several(evaluations)
    if not any("reliability" in e.details for e in evaluations):
        raise EmbeddingError("calibration needs class probabilities, the evaluations have none.")
    shown = [(number, e) for number, e in enumerate(evaluations) if "reliability" in e.details]  # colours as elsewhere
    levels = list(shown[0][1].details["reliability"])
    figure = Figure(figsize=(4.6 * len(levels), 8))
    for column, level in enumerate(levels, start=1):
        upper = figure.add_subplot(2, len(levels), column)
        lower = figure.add_subplot(2, len(levels), len(levels) + column)
        upper.plot([0, 1], [0, 1], color="#999999", linestyle=":")
        for number, evaluation in shown:
            style: dict[str, Any] = {"color": PALETTE[number % len(PALETTE)], "label": evaluation.model}
            bins = evaluation.details["reliability"][level]
            sizes = [12 + 120 * row["count"] / evaluation.n_images for row in bins]
            confidence, accuracy = [row["confidence"] for row in bins], [row["accuracy"] for row in bins]
            upper.plot(confidence, accuracy, linewidth=1, **style)
            upper.scatter(confidence, accuracy, s=sizes, marker=MARKERS[number % len(MARKERS)], color=style["color"])
            curve = np.array(evaluation.details["risk_coverage"][level])
            lower.plot(curve[:, 0], curve[:, 1], linewidth=1.8, linestyle=("-", "--", "-.", ":")[number % 4], **style)
        upper.set_title(f"{level}: reliability", fontsize=10)
        upper.set_xlabel("confidence")
        upper.set_ylabel("accuracy")
        lower.set_title(f"{level}: risk-coverage", fontsize=10)
        lower.set_xlabel("coverage (share of images answered, most confident first)")
        lower.set_ylabel("risk (error of the answers)")
        for axes in (upper, lower):
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1)
            axes.grid(alpha=0.3)
        if column == 1:
            lower.legend(fontsize=8)
    figure.tight_layout()
    return figure


def confusion(true: IntArray, found: IntArray, category: IntArray) -> Figure:
    """Condition of the query against that of its nearest image, in the order of the tree, categories outlined.

    Args:
        true: Conditions of the queries, shape (n_queries,).
        found: Conditions of their nearest images, or predictions, shape (n_queries,).
        category: That of every condition, shape (n_fine,), e.g. `taxonomy.ancestors[:, 0]`.

    Returns:
        The figure; rows are shares that sum to 1.
    """
    present = np.unique(true)
    order = present[np.lexsort((present, category[present]))]
    place = np.full(len(category), -1)
    place[order] = np.arange(len(order))
    inside = place[found] >= 0
    table = np.zeros((len(order), len(order)))
    np.add.at(table, (place[true[inside]], place[found[inside]]), 1)
    totals = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, totals, out=np.zeros_like(table), where=totals > 0)  # a row without a neighbour is blank
    figure = Figure(figsize=(7, 7))
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=max(0.3, float(shares.max())), interpolation="nearest")
    starts = np.flatnonzero(np.diff(category[order], prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        side = end - start
        axes.add_patch(Rectangle((start - 0.5, start - 0.5), side, side, fill=False, edgecolor="#CC3311", linewidth=1))
    axes.set_xlabel("condition of the nearest image")
    axes.set_ylabel("condition of the query")
    axes.set_xticks([])
    axes.set_yticks([])
    return figure


def _several(evaluations: Evaluation | Sequence[Evaluation]) -> Sequence[Evaluation]:
    return [evaluations] if isinstance(evaluations, Evaluation) else evaluations
