"""The nearest neighbours of the test images: for the confusion plots and the rows of examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hierderm import columns as c
from hierderm.data.image_io import open_image
from hierderm.data.table import CaseTable
from hierderm.evaluation.metrics.blocks import nearest_items
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.report.rows import Row
from hierderm.report.thumbnails import thumbnail_uri
from hierderm.types import IntArray, Mask

SIDE = 96  # pixels of an example's longer side
N_EXAMPLES, N_NEIGHBOURS = 4, 6


@dataclass(frozen=True)
class Neighbours:
    """The test images of a model with their nearest images of other cases.

    `fine`, `coarse`: labels, shape (n_images,); `nearest`: rows of the test split, nearest first, shape (n_images, k);
    k is 0 where the test has one case only.
    """

    fine: IntArray
    coarse: IntArray
    nearest: IntArray

    @property
    def first(self) -> IntArray:
        """The nearest image of each, shape (n_images,); -1 where there is none."""
        return np.asarray(self.nearest[:, 0]) if self.nearest.shape[1] else np.full(len(self.fine), -1)


def nearest_neighbours(table: CaseTable, row: Row) -> Neighbours:
    """Up to 6 neighbours of each test image of one model."""
    frame = row.test.frame
    fine = table.taxonomy.encode(frame[c.CONDITION])
    k = min(N_NEIGHBOURS, len(frame) - int(frame[c.CASE_ID].value_counts().max()))
    test = Labelled(row.test.embeddings, fine[None], row.test.case_ids)
    nearest = nearest_items(test, k=k) if k > 0 else np.empty((len(frame), 0), dtype=np.int64)
    return Neighbours(fine, table.taxonomy.to_level(fine, 0), nearest)


def example_groups(table: CaseTable, row: Row, neighbours: Neighbours) -> list[dict[str, Any]]:
    """Queries drawn at random with their neighbours, by whether the nearest image has the right condition, only the
    right category, or neither."""
    fine, coarse, first = neighbours.fine, neighbours.coarse, neighbours.first
    known, same_fine, same_coarse = first >= 0, fine[first] == fine, coarse[first] == coarse
    kinds: dict[str, Mask] = {
        "The nearest image has the same condition": known & same_fine,
        "The nearest image has another condition of the same category": known & same_coarse & ~same_fine,
        "The nearest image has another category": known & ~same_coarse,
    }
    rng = np.random.default_rng(0)
    groups = []
    for title, chosen in kinds.items():
        queries = rng.permutation(np.flatnonzero(chosen))[:N_EXAMPLES]
        share = f"{chosen.mean():.0%} of {len(chosen)} queries"
        rows = [[_tile(table, row, neighbours, i, q) for i in (q, *neighbours.nearest[q])] for q in queries]
        groups.append({"title": title, "share": share, "rows": rows})
    return groups


def _tile(table: CaseTable, row: Row, neighbours: Neighbours, image: int, query: int) -> dict[str, str]:
    fine, coarse, frame = neighbours.fine, neighbours.coarse, row.test.frame
    kind = "same" if fine[image] == fine[query] else "category" if coarse[image] == coarse[query] else "other"
    return {
        "image": thumbnail_uri(open_image(table.root / frame[c.IMAGE_PATH].iloc[image]), SIDE),
        "condition": str(frame[c.CONDITION].iloc[image]),
        "category": table.taxonomy.names(0)[coarse[image]],
        "kind": "query" if image == query else kind,
    }
