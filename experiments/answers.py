# The question: what tells best whether an answer of an index is right: the votes of the nearest cases, the votes by
# their worth (docs/search.md), or the probabilities of the model's classifier?
# Command: hierderm compare experiments/photographs.toml --out runs/photographs --data.cases .. --data.taxonomy ..
#          python experiments/answers.py runs/photographs --model hierarchical
# In each fold of the first division, all is learnt from one image of each validation case, by the rule that index,
# page and report share, and applied to one image of each test case. 1 minute. Results: experiments/README.md.

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hierderm import columns as c
from hierderm.data.checks import read_cases
from hierderm.embeddings import EmbeddingTable
from hierderm.evaluation.metrics.calibration import aurc, scaled, temperature
from hierderm.evaluation.metrics.selective import AnswerRule
from hierderm.model.loading import load
from hierderm.search.answer import calibrate, vote
from hierderm.search.case_index import CaseIndex
from hierderm.taxonomy.file import read_taxonomy
from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.features import FeatureStore
from hierderm.types import FloatArray, IntArray

WANTED = (0.8, 0.7, 0.6, 0.5)
Scored = tuple[FloatArray, FloatArray]  # of the validation and of the test queries, shape (n_queries, n_fine)


def scores_of(embedded: EmbeddingTable, tree: Taxonomy) -> tuple[dict[str, Scored], list[IntArray]]:
    """By what could tell: the scores of the conditions; and the true conditions of both."""
    splits = embedded.frame[c.SPLIT].to_numpy()
    index = CaseIndex.from_embeddings(embedded.select(splits != c.TEST), tree)
    parts = [
        embedded.select((splits == part) & ~embedded.frame[c.CASE_ID].duplicated()) for part in (c.VALIDATION, c.TEST)
    ]
    hits = [index.search(part.embeddings, leave_out=list(part.case_ids)) for part in parts]
    fine = [tree.encode(part.frame[c.CONDITION]) for part in parts]
    learnt = calibrate(hits[0], fine[0])
    found = {
        "votes": [vote(some, learnt.temperature) for some in hits],
        "votes by their worth": [learnt.shares(some) for some in hits],
    }
    given = [part.probabilities for part in parts]
    if given[0] is not None and given[1] is not None:
        heat = temperature(given[0], fine[0])
        found["class probabilities"] = [scaled(one, heat) for one in given if one is not None]
    return {name: (validation, test) for name, (validation, test) in found.items()}, fine


def counts(scored: Scored, fine: list[IntArray], tree: Taxonomy, wanted: float) -> list[float]:
    """At each level, coarse first: shares of validation answered, of test answered rightly, and of test answered."""
    rule, n = AnswerRule.learn(scored[0], fine[0], tree, wanted), len(fine[1])
    found = rule.apply(scored[1], tree)
    at = [(found.level == level, found.node == tree.to_level(fine[1], level)) for level in (0, tree.fine_level)]
    answered = [rule.levels[level].answered / len(fine[0]) for level in (0, tree.fine_level)]
    return [*answered, *(float((passed & right).sum()) / n for passed, right in at), *(float(p.mean()) for p, _ in at)]


def areas(scores: FloatArray, fine: IntArray, tree: Taxonomy) -> list[float]:
    """Area under risk-coverage, coarse and fine."""
    levels = [(tree.sum_up(scores, level), tree.to_level(fine, level)) for level in (0, tree.fine_level)]
    return [float(aurc(given.max(axis=1), (given.argmax(axis=1) == truth).astype(float))) for given, truth in levels]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="of `hierderm compare experiments/photographs.toml`")
    parser.add_argument("--model", default="hierarchical")
    options = parser.parse_args(arguments)
    store, rows = FeatureStore(options.folder / "features"), dict[str, list[list[float]]]()
    for folder in sorted(options.folder.glob("fold-?")):
        table = read_cases(folder / "cases.csv", read_taxonomy(folder / "taxonomy.csv"), decode=False)
        embedded, tree = store.embed(load(folder / "models" / options.model / "model"), table), table.taxonomy
        by_name, fine = scores_of(embedded, tree)
        for name, scored in by_name.items():
            values = areas(scored[1], fine[1], tree)
            for wanted in WANTED:
                values += counts(scored, fine, tree, wanted)
            rows.setdefault(name, []).append(values)
    titles = [f"{wanted:.0%}: validation, test (right)" for wanted in WANTED]
    print(f"| answers by | AURC | {' | '.join(titles)} |\n{'|---' * (2 + len(WANTED))}|")
    for name, found in rows.items():
        mean = np.mean(found, axis=0)
        cells = [f"{mean[0]:.3f} / {mean[1]:.3f}"]
        for start in range(2, len(mean), 6):
            coarse, fine_, right, fine_right, on_test, fine_on_test = mean[start : start + 6]
            share = [f"{r / n:.0%}" if n else "-" for r, n in ((right, on_test), (fine_right, fine_on_test))]
            cells.append(f"{coarse:.0%} / {fine_:.0%}, {on_test:.0%} / {fine_on_test:.0%} ({share[0]} / {share[1]})")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
