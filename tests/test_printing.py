"""What users hold in their hands prints in a line or two."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hierderm.config.loading import with_overrides
from hierderm.config.settings import Config
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable, unit_length
from hierderm.experiment.run import train
from hierderm.search.case_index import CaseIndex
from hierderm.search.finder import CaseFinder


def test_public_objects_print_shortly(toy: CaseTable, toy_config: Config, tmp_path: Path) -> None:
    vectors = unit_length(np.random.default_rng(0).normal(size=(len(toy), 8)))
    index = CaseIndex.build(toy, None, embeddings=vectors)
    found = CaseFinder(index).search_vectors(vectors[:1])
    run = train(with_overrides(toy_config, {"training.method": "vanilla"}), toy, tmp_path)
    texts = [
        repr(one) for one in (toy.taxonomy, toy, EmbeddingTable(vectors, toy.frame), index, found.found, found, run)
    ]
    assert [text.split("(")[0] for text in texts] == [
        "Taxonomy", "CaseTable", "EmbeddingTable", "CaseIndex", "SearchResult", "FinderResult", "Run",
    ]  # fmt: skip
    assert max(map(len, texts)) < 300
    assert f"{len(toy)} images of 48 cases" in texts[1] and texts[1].endswith(f"{texts[0]})")
    assert "to_pandas()" in texts[4]
    assert f"{len(toy)} embeddings of length 8" in texts[2] and "kind flat, calibrated" in texts[3]
