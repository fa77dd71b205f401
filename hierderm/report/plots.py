"""Plots as PNG bytes (matplotlib, no display), and the points of the map that is part of the page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from hierderm.evaluation.evaluation import Evaluation
from hierderm.types import Floats, IntArray

# Tol's six bright colours, then each time the colour of middle lightness that is farthest from all before (in Oklab).
PALETTE = (
    "#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#5A3C00", "#3C1EA5", "#B478FF", "#FFB4F0",
    "#00F096", "#A55A00", "#969687", "#004B69", "#784BD2", "#5AB41E", "#96000F", "#4B96FF", "#691E69", "#FF8700",
)  # fmt: skip
MARKERS = "o^sDvP*X"
ITERATIONS = 500  # of t-SNE: half of scikit-learn's default, after which points of a map hardly move
MAP_SIDE = 560  # of the map in the page, in its own units
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


def history_figure(histories: Mapping[str, pd.DataFrame], chosen: Mapping[str, int]) -> bytes:
    """Each loss by itself and validation MAP@R by epoch, a line a model; a vertical line at the epoch that was chosen.

    The sum of the losses is not drawn: it rises when the second is faded in. Losses are those of training; dashed the
    same loss on validation.
    """
    panels = {column: title for column, title in HISTORY_PANELS.items() if any(column in h for h in histories.values())}
    figure = Figure(figsize=(4 * len(panels), 3.2))
    for place, (column, title) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), place)
        for number, (name, history) in enumerate(histories.items()):
            colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
            if column in history:
                axes.plot(history["epoch"] + 1, history[column], color=colour, marker=marker, markersize=4, label=name)
            if (held_out := f"validation_{column}") in history:
                axes.plot(history["epoch"] + 1, history[held_out], color=colour, linestyle="--")
            axes.axvline(chosen[name] + 1, color=colour, linewidth=0.8, linestyle=":")
        dashed = any(f"validation_{column}" in history for history in histories.values())
        axes.set_title(title + (" (dashed: validation)" if dashed else ""), fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.axes[-1].legend(fontsize=8)  # the panel that all models are in
    return png(figure)


def embedding_maps(points: Mapping[str, Floats], labels: IntArray, names: Sequence[str], columns: int = 3) -> bytes:
    """A 2-D map for each model, each point a test image, coloured by category."""
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
    return png(figure)


def project(embeddings: Floats, seed: int) -> Floats:
    """t-SNE of the embeddings to the plane (scikit-learn), shape (n_images, 2); PCA where there are under 10."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(embeddings) < 10:
        flat = PCA(min(2, *embeddings.shape), random_state=seed).fit_transform(embeddings)
        return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    perplexity = min(30.0, (len(embeddings) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", max_iter=ITERATIONS, random_state=seed)
    points: Floats = tsne.fit_transform(embeddings.astype(np.float64))
    return points


def map_points(where: Floats, labels: IntArray, texts: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Place, colour, shape and text of each point of a map in the page, and the legend.

    `where`: shape (n, 2); `labels`: the category of each point.
    """
    low, span = where.min(axis=0), np.ptp(where, axis=0)
    placed = (where - low) / np.where(span > 0, span, 1) * (MAP_SIDE - 20) + 10
    style = {label: map_look(n) for n, label in enumerate(np.unique(labels))}
    points = [
        {"n": n, "x": round(float(x), 1), "y": round(float(y), 1), **style[label], "text": text}
        for n, ((x, y), label, text) in enumerate(zip(placed, labels.tolist(), texts, strict=True))
    ]
    return {
        "side": MAP_SIDE,
        "points": points,
        "legend": [{"name": names[label], **look} for label, look in style.items()],
    }


def category_bars(evaluations: Sequence[Evaluation]) -> bytes:
    """Coarse Recall@1 of each category, one bar for each model; the largest category first."""
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
    return png(figure)


def reliability_figure(evaluations: Sequence[Evaluation]) -> bytes:
    """Reliability diagram and risk-coverage curve of each model that classifies, one column for each level."""
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
    return png(figure)


def fine_confusion(true: IntArray, found: IntArray, category: IntArray) -> bytes:
    """Condition of the query against that of its nearest image, in the order of the tree, categories outlined.

    `category`: that of every condition, shape (n_fine,).
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
    return png(figure)
