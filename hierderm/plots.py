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
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from hierderm.errors import EmbeddingError
from hierderm.evaluation.catalogue import HEADLINES, Key, direction, metric_name
from hierderm.evaluation.evaluation import Evaluation, Metric
from hierderm.evaluation.inference.differences import Difference
from hierderm.types import Floats, IntArray

# Tol's six bright colours, then each time the colour of middle lightness that is farthest from all before (in Oklab).
PALETTE = (
    "#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#5A3C00", "#3C1EA5", "#B478FF", "#FFB4F0",
    "#00F096", "#A55A00", "#969687", "#004B69", "#784BD2", "#5AB41E", "#96000F", "#4B96FF", "#691E69", "#FF8700",
)  # fmt: skip
MARKERS = "o^sDvP*X"
NAME_LENGTH = 40  # signs of a name beside a plot, at most
ITERATIONS = 500  # of t-SNE: half of scikit-learn's default, after which points of a map hardly move
MAP_SHAPES = {"circle": "o", "square": "s", "diamond": "D"}


def map_look(number: int) -> dict[str, str]:
    """Colour and shape of a category on maps: neighbours in number differ in both, 60 categories in one of them.

    Args:
        number: Of the category, from 0.

    Returns:
        'colour', and 'shape' by its name.
    """
    return {"colour": PALETTE[number % len(PALETTE)], "shape": list(MAP_SHAPES)[number % len(MAP_SHAPES)]}


def png(figure: Figure) -> bytes:
    """The plot as PNG.

    Args:
        figure: Any plot of this module.

    Returns:
        The content of a PNG file.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": "hierderm"})
    return buffer.getvalue()


HISTORY_PANELS = {
    "contrastive_loss": "contrastive loss",
    "coarse_map_at_r": "coarse MAP@R, validation", "coarse_recall_at_1": "coarse recall@1, validation",
    "classification_loss": "classification loss",
    "fine_map_at_r": "fine MAP@R, validation", "fine_recall_at_1": "fine recall@1, validation",
}  # fmt: skip


def forest(differences: Sequence[Difference], columns: int = 3) -> Figure:
    """Paired differences with their intervals: filled where the interval excludes 0, blue for better, red for worse.

    Args:
        differences: Of any metrics and models (`hierderm.paired_difference`).
        columns: Panels in a row, >= 1.

    Returns:
        The figure: of one pair of models a row for each metric; of several pairs a panel for each metric with a row for
        each pair. Order is that of `differences`. To the right is more; metrics of which less is better say so.

    Raises:
        EmbeddingError: There is none.
    """
    if not differences:
        raise EmbeddingError("a forest plot needs at least one difference, got none.")
    models = list(dict.fromkeys(d.model for d in differences))
    pairs = list(dict.fromkeys((d.model, d.reference) for d in differences))
    panels: dict[str, dict[str, Difference]] = {}
    for d in differences:
        pair = d.reference if len(models) == 1 else f"{d.model} − {d.reference}"
        metric = metric_name(d.level, d.name) + (" (less is better)" if direction(d.name) == "lower" else "")
        panel, row = ("", metric) if len(pairs) == 1 else (metric, pair)
        panels.setdefault(panel, {})[row] = d
    rows = list(dict.fromkeys(row for panel in panels.values() for row in panel))
    columns = min(columns, len(panels))
    n_lines = -(-len(panels) // columns)
    size = (1.3 + columns * (5 if columns == 1 else 1.5), n_lines * (0.21 * len(rows) + 0.45) + 0.55)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(n_lines, columns, sharex=True, sharey=True, squeeze=False)
    for number, axes in enumerate(grid.flat):
        axes.set_visible(number < len(panels))
        axes.tick_params(length=0, labelsize=9, labelbottom=number + columns >= len(panels))
    for axes, (title, own) in zip(grid.flat, panels.items(), strict=False):
        _forest_panel(axes, [own.get(row) for row in rows])
        axes.set_title(title, fontsize=10)
    grid[0, 0].set_yticks(range(len(rows)), rows if len(pairs) == 1 else [_short(row) for row in rows])
    minus = f"{_short(models[0])} − {_short(pairs[0][1]) if len(pairs) == 1 else 'the other model'}"
    means = "blue: better, red: worse; hollow: the interval includes 0"
    text = f"{minus if len(models) == 1 else 'difference'}\n{means}"
    figure.supxlabel(text, fontsize=9)
    return figure


def _forest_panel(axes: Axes, rows: Sequence[Difference | None]) -> None:
    axes.axvline(0, color="#999999", linewidth=1)
    for place, d in enumerate(rows):
        if d is not None:
            colour = PALETTE[0] if d.better else PALETTE[1] if d.worse else "#888888"
            axes.plot([d.low, d.high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
            filled = colour if d.significant else "white"
            axes.plot(d.value, place, marker="o", color=colour, markerfacecolor=filled, markersize=6)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def scores(evaluations: Evaluation | Sequence[Evaluation]) -> Figure:
    """The headline metrics of one model or several, with their intervals.

    Args:
        evaluations: Each with a headline metric at least.

    Returns:
        The figure: a row for each metric, a mark for each model.

    Raises:
        EmbeddingError: None of them has a headline metric.
    """
    evaluations = _several(evaluations)
    keys = headline_keys(evaluations)
    if not keys:
        raise EmbeddingError(f"a plot of scores needs one of the headline metrics {list(HEADLINES)}, there is none.")
    figure = Figure(figsize=(7, len(keys) * (0.2 + 0.16 * len(evaluations)) + 1.1), layout="constrained")
    axes = figure.add_subplot()
    for number, evaluation in enumerate(evaluations):
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
        shift = 0.7 * ((number + 0.5) / len(evaluations) - 0.5)
        for row, metric in enumerate(_known(evaluation, key) for key in keys):
            if metric is not None:
                place = row + shift
                axes.plot([metric.low, metric.high], [place, place], color=colour, linewidth=2)
                axes.plot(metric.value, place, marker=marker, color=colour, markersize=6, linestyle="none")
                if len(evaluations) == 1:
                    axes.text(metric.value, place - 0.18, f"{metric.value:.3f}", ha="center", fontsize=8)
        axes.plot([], [], color=colour, marker=marker, linewidth=2, label=_short(evaluation.model))
    first = evaluations[0]
    axes.set_yticks(range(len(keys)), [metric_name(*key) for key in keys], fontsize=9)
    axes.set_ylim(len(keys) - 0.4, -0.6)
    axes.set_xlim(left=min(0.0, *(e[key].value for e in evaluations for key in keys if _known(e, key))))
    axes.set_xlabel(f"value and interval; test: {first.n_images} images of {first.n_cases} cases", fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, frameon=False)
    return figure


def history(histories: Mapping[str, pd.DataFrame], chosen: Mapping[str, int]) -> Figure:
    """Each loss by itself and validation scores by epoch, a line a model; a vertical line at the epoch that was chosen.

    The sum of the losses is not drawn: it rises when the second is faded in. Losses are those of training; dashed the
    same loss on validation.

    Args:
        histories: Of each model, by name, a row an epoch (`Run.history`).
        chosen: Of each model the row that was chosen (`Run.chosen`).

    Returns:
        The figure, a panel a loss or score.
    """
    panels = {column: title for column, title in HISTORY_PANELS.items() if any(column in h for h in histories.values())}
    n_lines = 2 if len(panels) > 3 else 1
    columns = -(-len(panels) // n_lines)
    figure = Figure(figsize=(4 * columns, 3.2 * n_lines), layout="constrained")
    for place, (column, title) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(n_lines, columns, place)
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
            style: dict[str, Any] = {"color": look["colour"], "marker": marker, "markersize": 3.5, "markeredgewidth": 0}
            axes.plot(x, y, linestyle="none", label=names[label], **style)
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


def headline_keys(evaluations: Sequence[Evaluation]) -> list[Key]:
    """The headline metrics that are defined for any of these.

    Args:
        evaluations: Of one model each.

    Returns:
        Level and name of each, in the order of reports.
    """
    return [key for key in HEADLINES if any(_known(evaluation, key) for evaluation in evaluations)]


def _known(evaluation: Evaluation, key: Key) -> Metric | None:
    """A metric where it is defined."""
    metric = evaluation.get(key)
    return None if metric is None or np.isnan(metric.value) else metric


def _short(name: str) -> str:
    """A name that leaves room for what is plotted."""
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"


def _several(evaluations: Evaluation | Sequence[Evaluation]) -> Sequence[Evaluation]:
    return [evaluations] if isinstance(evaluations, Evaluation) else evaluations
