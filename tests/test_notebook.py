"""What a notebook shows of the public objects: their line, and the first rows of their table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hierderm import evaluate
from hierderm.config.settings import EvaluationConfig
from hierderm.data.table import CaseTable
from hierderm.embeddings import unit_length
from hierderm.notebook import with_table
from hierderm.search.case_index import CaseIndex
from hierderm.taxonomy.tree import taxonomy_from_paths


class Thing:
    def __repr__(self) -> str:
        return "Thing(<1>)"


def test_the_first_rows_and_how_many_more() -> None:
    shown = with_table(Thing(), pd.DataFrame({"a": [0.12345, np.nan, *range(10)], "b": ["<b>"] * 12}))
    assert shown.startswith("<p>Thing(&lt;1&gt;)</p><table")
    assert "<td>0.123</td>" in shown and "<td>–</td>" in shown and "&lt;b&gt;" in shown and "<b>" not in shown
    assert shown.count("<tr>") == 10 and shown.endswith("<p>2 more rows</p>")


def test_tables_trees_hits_and_evaluations(toy: CaseTable) -> None:
    vectors = unit_length(np.random.default_rng(0).normal(size=(len(toy), 8))).astype(np.float32)
    assert "CaseTable(" in toy._repr_html_() and "<th>condition</th>" in toy._repr_html_()
    tree = taxonomy_from_paths([("A & B", "a")], ("category", "condition"), id="t")
    assert "<pre>A &amp; B\n  a</pre></details>" in tree._repr_html_()
    index = CaseIndex.build(toy, None, embeddings=vectors)
    assert "<th>similarity</th>" in index.search(vectors[:1], k=3)._repr_html_()
    config = EvaluationConfig(bootstrap_rounds=5, tasks=("retrieval",))
    shown = evaluate(vectors, toy.frame.assign(split="test"), toy.taxonomy, config=config)._repr_html_()
    assert "<td>map_at_r</td>" in shown and "<td>mrr</td>" not in shown  # the headlines
