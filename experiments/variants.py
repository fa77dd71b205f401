# The question: what raises recall@1 of the closed form, judged on images that the analysis has not seen?
# Command: hierderm compare experiments/photographs.toml --out runs/photographs --data.cases .. --data.taxonomy ..
#          python experiments/variants.py runs/photographs --folds 3
# In each fold the validation images, and in turn each fifth of the training cases, are embedded by an analysis of the
# others (shrinkage 0.4, strength 10, share 0.5, six views). A row is a variant with one change less its base: paired
# differences with 95 % intervals over cases. Features that are missing are embedded first, which takes longest.

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from sklearn.model_selection import GroupKFold

from hierderm import columns as c
from hierderm.config.methods import Augmentation
from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.metrics.retrieval import retrieval_scores
from hierderm.experiment.run import Run
from hierderm.model.backbone import load_backbone
from hierderm.model.heads import Discriminants
from hierderm.training.features import FeatureStore
from hierderm.training.tree_analysis import TreeAnalysis

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Variant:
    """`seen`: how an image is embedded; `views`: to learn from; `fine`, `coarse`: shares of the node probabilities."""

    seen: dict[str, Any] = field(default_factory=lambda: {"views": 6})
    name: str = "hierderm:lite0"
    size: int = 0
    views: int = 6
    width: str = "layers"
    strong: bool = False
    strength: float = 10.0
    fine: float = 0.15
    coarse: float = 0.35
    temperature: float = 2.0


BASE, PLAIN = Variant(), Variant(seen={})
MIRRORS, FEW, ONE = Variant(seen={"mirrors": True}), replace(PLAIN, views=3), replace(PLAIN, views=1)
FLAT = replace(BASE, strength=0.0, fine=0.2, coarse=0.0)
STRONGER = Augmentation(crop=0.3, rotation=90, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.04, blur=0.3)
ROWS = {
    "mirror images, minus the image alone": (MIRRORS, PLAIN),
    "six views, minus mirror images": (BASE, MIRRORS),
    "six views, minus mirror images, flat-fine": (FLAT, replace(FLAT, seen=MIRRORS.seen)),
    "three training views in place of six": (FEW, PLAIN),
    "the output alone": (replace(PLAIN, width="output"), PLAIN),
    "means not shrunk (strength 0)": (replace(BASE, strength=0.0), BASE),
    "strength 30": (replace(BASE, strength=30.0), BASE),
    "no node probabilities": (replace(BASE, fine=0.0, coarse=0.0), BASE),
    "temperature 1": (replace(BASE, temperature=1.0), BASE),
    "temperature 1, flat-fine": (replace(FLAT, temperature=1.0), FLAT),
    "temperature 3": (replace(BASE, temperature=3.0), BASE),
    "categories and conditions alike": (replace(BASE, fine=0.25, coarse=0.25), BASE),
    "share 0.8": (replace(BASE, fine=0.24, coarse=0.56), BASE),
    "share 0.8, alike, temperature 1": (replace(BASE, fine=0.4, coarse=0.4, temperature=1.0), BASE),
    "stronger augmentation of three training views": (replace(FEW, strong=True), FEW),
    "260 pixels, one training view": (replace(ONE, size=260), ONE),
    "hierderm:lite2 at 260 pixels, one training view": (replace(ONE, name="hierderm:lite2"), ONE),
}


def composed(found: Discriminants, features: npt.NDArray[np.floating], table: CaseTable, variant: Variant) -> Array:
    """The embedding with a share of its own for each level, and tempered probabilities."""
    directions = features @ found.weight.T + found.bias
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    probabilities = softmax(found.logits(features) / variant.temperature, axis=1)
    parts = [np.sqrt(1 - variant.fine - variant.coarse) * directions, np.sqrt(variant.fine * probabilities)]
    return np.concatenate([*parts, np.sqrt(variant.coarse * (probabilities @ table.taxonomy.membership(0)))], axis=1)


Parts = list[tuple[TreeAnalysis, npt.NDArray[np.bool_]]]


def held_out(table: CaseTable, views: list[npt.NDArray[np.float32]]) -> Parts:
    """Analyses and the images that they have not seen: those of validation, and in turn each fifth of training."""
    train, rows = table.part(c.TRAIN), np.flatnonzero(table.splits == c.TRAIN)
    analysis = TreeAnalysis(views, train.fine, table.taxonomy, n_views=len(views), components=4096)
    parts = [(analysis, table.splits == c.VALIDATION)]
    for _, left in GroupKFold(5, shuffle=True, random_state=0).split(rows, groups=train.case_ids):
        inside = np.isin(np.arange(len(rows)), left)
        parts.append((analysis.leaving_out(inside), np.isin(np.arange(len(table)), rows[inside])))
    return parts


def queries(table: CaseTable, store: FeatureStore, variant: Variant, known: dict[str, Parts]) -> Array:
    """MAP@R and recall@1 of both levels of each image, shape (n_images, 4), nan of test images."""
    plain, seen = (load_backbone(BackboneConfig(variant.name, **way), "layers") for way in ({}, variant.seen))
    for backbone in (plain, seen):
        if variant.size:
            backbone.preprocessing = replace(backbone.preprocessing, size=variant.size)
    width = plain.output_dim if variant.width == "output" else plain.dim
    key = f"{variant.name} {variant.size} {variant.views} {variant.width} {variant.strong}"
    if key not in known:
        views, _ = store.for_training(plain, table, variant.views, STRONGER if variant.strong else Augmentation())
        known[key] = held_out(table, [view[:, :width] for view in views])
    whole, values = store.features(seen, table)[:, :width], np.full((len(table), 4), np.nan)
    for analysis, chosen in known[key]:
        found, part = analysis.fit(shrinkage=0.4, decay=1.0, strength=variant.strength), table.select(chosen)
        embeddings = composed(found, whole[chosen], table, variant)
        levels = retrieval_scores(Labelled(embeddings, table.taxonomy.ancestors[part.fine].T, part.case_ids)).levels
        columns = [levels[n].values[key] for n in (0, -1) for key in ("map_at_r", "recall_at_1")]
        values[chosen] = np.stack(columns, axis=1)
    return values


def difference(own: Array, other: Array, cases: npt.NDArray[np.str_]) -> list[str]:
    _, group = np.unique(cases, return_inverse=True)
    n, cells = group.max() + 1, list[str]()
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), 1000)
    for column in (own - other).T:
        known = ~np.isnan(column)
        sums, counts = (np.bincount(group[known], w, n) for w in (column[known], np.ones(known.sum())))
        low, high = np.quantile((weights @ sums) / (weights @ counts), [0.025, 0.975])
        cells.append(f"{column[known].mean():+.3f} ({low:+.3f} to {high:+.3f})")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="of `hierderm compare experiments/photographs.toml`")
    parser.add_argument("--folds", type=int, default=5, help="the first so many")
    parser.add_argument("--rows", type=int, nargs="+", default=range(1, 1 + len(ROWS)), help="numbers, from 1")
    options = parser.parse_args()
    rows = [list(ROWS.items())[number - 1] for number in options.rows]
    store, found = FeatureStore(options.folder / "features"), dict[str, list[Array]]()
    cases = []
    for place in sorted(options.folder.glob("fold-?"))[: options.folds]:
        table, known = Run.open(place / "models" / "vanilla").table, dict[str, Parts]()
        cases.append(table.case_ids)
        for variant in {str(one): one for _, pair in rows for one in pair}.values():
            found.setdefault(str(variant), []).append(queries(table, store, variant, known))
    print("| variant | coarse MAP@R | coarse R@1 | fine MAP@R | fine R@1 |\n|---|---|---|---|---|")
    for name, pair in rows:
        own, other = (np.concatenate(found[str(variant)]) for variant in pair)
        print(f"| {name} | {' | '.join(difference(own, other, np.concatenate(cases)))} |")


if __name__ == "__main__":
    main()
