"""How well text finds images: each category name is a query; precision among the ten nearest cases.

Goals: whether a model's image embeddings still match the text embeddings of its backbone; chance is the share of the
category in the index. Non-goals: the quality of captions.

    hierderm compare fine_tuning -o runs/tuned
    hierderm index build runs/tuned/cases.csv --model hierderm:tiny -t runs/tuned/taxonomy.csv \\
        --splits train,validation -o runs/vanilla-index
    hierderm index build runs/tuned/cases.csv --model runs/tuned/models/hierarchical/model \\
        --splits train,validation -o runs/tuned-index
    python benchmarks/words.py runs/vanilla-index runs/tuned-index
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from hierderm.model.loading import load
from hierderm.search.case_index import CaseIndex

K = 10


def main() -> None:
    print("| index | precision@10 of category names | chance |\n|---|---|---|")
    for folder in map(Path, sys.argv[1:]):
        index = CaseIndex.open(folder)
        names = list(index.taxonomy.names(0))
        found = index.search(load(index.about.model).encode_text(names), k=K)
        categories = index.taxonomy.ancestors[index.gallery.fine_at(), 0]
        precision = [(categories[rows] == number).mean() for number, rows in enumerate(found.rows)]
        chance = [(categories == number).mean() for number in range(len(names))]
        print(f"| {folder} | {np.mean(precision):.3f} | {np.mean(chance):.3f} |")


if __name__ == "__main__":
    main()
