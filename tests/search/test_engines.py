"""FAISS and torch in one process: neither crashes, hangs or takes more threads than the process may."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from hierderm.engines import Engine, Kind, import_faiss
from hierderm.search.case_index import CaseIndex
from tests.search.toy import DIM, TREE, random_table

SCRIPT = """
import os, threading
{first}
{second}
import numpy as np
import torch
from hierderm.engines import Engine, import_faiss
assert import_faiss().omp_get_max_threads() == int(os.environ["OMP_NUM_THREADS"])
vectors = np.random.default_rng(0).normal(size=(1500, 32)).astype(np.float32)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
layer = torch.nn.Linear(32, 32)
def work():
    for kind in ("hnsw", "ivf"):
        engine = Engine.build(kind, vectors)
        for _ in range(3):
            layer(torch.from_numpy(vectors)).square().mean().backward()
            assert [len(rows) for rows in engine.propose(vectors[:50], 10)] == [10] * 50
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join(timeout=100)
assert not any(thread.is_alive() for thread in threads)
print("fine", len(os.listdir("/proc/self/task")))
"""


@pytest.mark.parametrize("first", ["faiss", "torch"])
def test_faiss_and_torch_in_one_process(first: str) -> None:
    second = "torch" if first == "faiss" else "faiss"
    if first == "torch":
        second = "faiss.contrib.torch_utils"  # replaces methods of faiss; pytorch-metric-learning loads it
    script = SCRIPT.format(first=f"import {first}", second=f"import {second}")
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=240,
        env={"OMP_NUM_THREADS": "2", "PATH": "/usr/bin:/bin", "OPENBLAS_NUM_THREADS": "2"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    word, n_threads = done.stdout.split()
    # Pools live on after their work: torch's, FAISS's for each of the three callers, and a few helpers; not 2 x cores
    # for each of every library.
    assert word == "fine" and int(n_threads) <= 32


def test_exact_search_is_that_of_faiss() -> None:
    gallery, queries = random_table(500), random_table(30, seed=4).embeddings
    frame = gallery.frame.assign(case_id=gallery.frame["image_id"])  # a case an image, as FAISS knows no cases
    index = CaseIndex.from_embeddings(type(gallery)(gallery.embeddings, frame, gallery.provenance), TREE)
    exact = import_faiss().IndexFlatIP(DIM)
    exact.add(gallery.embeddings)
    similarity, rows = exact.search(queries, 10)
    found = index.search(queries, k=10)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.similarity, similarity, atol=1e-6)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
@pytest.mark.parametrize("share", [0.5, 0.1, 0.03])
def test_a_filter_that_leaves_few_does_not_cost_recall(kind: Kind, share: float) -> None:
    """FAISS looks at as many nodes or lists with a selector as without: of these, few would pass."""
    vectors, queries = random_table(4000).embeddings, random_table(50, seed=1).embeddings
    engine = Engine.build(kind, vectors)
    engine.effort = 64 if kind == "hnsw" else 8
    allowed = np.random.default_rng(2).random(4000) < share
    proposed = engine.propose(queries, 20, allowed)
    assert allowed[proposed[proposed >= 0]].all()
    similarity = np.where(allowed, queries @ vectors.T, -2)
    exact = np.argsort(-similarity, axis=1)[:, :10]
    assert np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(proposed, exact, strict=True)]) > 0.98


def test_removed_rows_are_not_proposed() -> None:
    vectors = random_table(300).embeddings
    engine = Engine.build("hnsw", vectors)
    kept = np.arange(300) % 3 > 0
    engine.keep(kept)
    assert engine.removed == 100
    proposed = engine.propose(vectors[:20], 200)
    assert (proposed.max(axis=1) < 200).all() and (proposed >= 0).sum(axis=1).min() > 150
    found = vectors[kept][np.where(proposed[1] >= 0, proposed[1], 0)] @ vectors[1]
    assert found.max() == pytest.approx(1, abs=1e-5)  # rows are numbered anew
