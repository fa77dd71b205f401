"""Threads that share one index: searches side by side, and cases that come and go meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import numpy as np
import pytest

from hierderm.engines import KINDS, Kind
from hierderm.search.case_index import CaseIndex
from hierderm.search.shared_lock import SharedLock
from tests.search.toy import TREE, random_table


@pytest.mark.parametrize("kind", KINDS)
def test_each_thread_gets_its_own_hits(kind: Kind) -> None:
    table = random_table(400)
    index = CaseIndex.from_embeddings(table, TREE, kind=kind)
    options = [{}, {"aggregation": "mean"}, {"within": "C1"}, {"per_condition": 1}]

    def ask(row: int) -> list[tuple[str, float]]:
        found = index.search(table.embeddings[[row]], k=5, **options[row % 4])  # type: ignore[arg-type]
        return [(hit.case_id, round(hit.similarity, 5)) for hit in found.to_list()[0]]

    alone = [ask(row) for row in range(80)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(80))) == alone
    assert len({str(hits) for hits in alone}) > 40


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_a_search_never_sees_half_a_change(kind: Kind) -> None:
    """Each hit names the case whose vector it was compared with, while other cases come and go."""
    table, visitors = random_table(200), random_table(100, seed=1, start=1000)
    index = CaseIndex.from_embeddings(table, TREE, kind=kind)
    own = {str(case): vector for case, vector in zip(table.case_ids[::2], table.embeddings[::2], strict=True)}
    own |= {str(case): vector for case, vector in zip(visitors.case_ids[::2], visitors.embeddings[::2], strict=True)}
    done = Event()

    def change() -> None:
        for _ in range(15):
            index.add(visitors)
            index.remove(sorted(set(visitors.case_ids)))
        done.set()

    def ask(row: int) -> int:
        n_asked = 0
        while not done.is_set() or not n_asked:
            hit = index.search(table.embeddings[[2 * row]], k=1).to_list()[0][0]
            assert hit.similarity == pytest.approx(1, abs=1e-5)
            np.testing.assert_allclose(own[hit.case_id], table.embeddings[2 * row], atol=1e-5)
            n_asked += 1
        return n_asked

    thread = Thread(target=change)
    thread.start()
    with ThreadPoolExecutor(4) as pool:
        assert min(pool.map(ask, range(4))) > 0
    thread.join()
    assert len(index) == len(table)


def test_a_thread_may_read_within_its_own_reading_and_writing() -> None:
    lock = SharedLock()
    with lock.writing(), lock.reading(), lock.reading():
        pass
    with lock.reading(), lock.reading():
        pass
