"""How fast, large and right each kind of index is, compared with usearch on the same vectors.

Goals: build seconds, bytes on disk, queries per second and recall@10 of CaseIndex as its users meet it: save and open,
then one query after another, and many at once. Non-goals: the fastest possible settings of either library; other
machines. Vectors are made up: clusters of a 64-dimensional latent space, laid into 512 dimensions with noise.

    python benchmarks/index.py --sizes 10000 100000 1000000 --out benchmarks/index.json

`pip install usearch` first for its rows. Threads: as many as the process may use, for every row.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hierderm.embeddings import EmbeddingTable
from hierderm.engines import BUILD_EFFORT, KINDS, LINKS
from hierderm.files import write_json
from hierderm.search.case_index import CaseIndex
from hierderm.taxonomy.tree import taxonomy_from_paths

DIM, LATENT, K, N_QUERIES = 512, 64, 10, 1000
TREE = taxonomy_from_paths([(f"C{k // 13}", f"F{k}") for k in range(211)], ("category", "condition"), id="made-up")
Vectors = Any


def made_up(n: int, seed: int) -> Vectors:
    """n unit vectors, shape (n, DIM), float32; every seed draws from the same clusters."""
    shape, rng = np.random.default_rng(0), np.random.default_rng(seed)
    centres = shape.normal(size=(max(20, 2000), LATENT)).astype(np.float32)
    lay = shape.normal(size=(LATENT, DIM)).astype(np.float32) / LATENT**0.5
    parts = []
    for start in range(0, n, 50_000):
        m = min(50_000, n - start)
        latent = centres[rng.integers(0, len(centres), m)] + 0.6 * rng.standard_normal((m, LATENT), dtype=np.float32)
        rows = latent @ lay + 0.1 * rng.standard_normal((m, DIM), dtype=np.float32)
        parts.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return np.concatenate(parts)


def table_of(vectors: Vectors) -> EmbeddingTable:
    n = len(vectors)
    ids = np.arange(n).astype(str)
    conditions = np.array(TREE.names())[np.arange(n) % TREE.size(-1)]
    return EmbeddingTable(vectors, pd.DataFrame({"image_id": ids, "case_id": ids, "condition": conditions}))


def exact_neighbours(vectors: Vectors, queries: Vectors) -> Vectors:
    """Rows of the K nearest, shape (n_queries, K)."""
    parts = []
    for start in range(0, len(queries), 50):
        similarity = queries[start : start + 50] @ vectors.T
        top = np.argpartition(-similarity, K, axis=1)[:, :K]
        parts.append(top)
    return np.concatenate(parts)


def recall(found: Vectors, exact: Vectors) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, exact, strict=True)]))


def of_kind(kind: str, vectors: Vectors, queries: Vectors, exact: Vectors, folder: Path) -> dict[str, Any]:
    table = table_of(vectors)
    start = time.perf_counter()
    index = CaseIndex.from_embeddings(table, TREE, kind=kind)  # type: ignore[arg-type]
    build = time.perf_counter() - start
    index.save(folder / kind)
    sizes = {path.name.split("-")[0]: path.stat().st_size for path in (folder / kind).glob("*-1.*")}
    effort = index.about.effort
    del index, table
    start = time.perf_counter()
    opened = CaseIndex.open(folder / kind)
    opening = time.perf_counter() - start
    opened.search(queries[:1])  # the first search makes the numbers of the table
    few = queries[: 20 if kind == "flat" and len(vectors) > 200_000 else 300]
    start = time.perf_counter()
    found = [opened.search(query, k=K).rows[0] for query in few]
    single = len(few) / (time.perf_counter() - start)
    start = time.perf_counter()
    together = opened.search(queries, k=K).rows
    batch = len(queries) / (time.perf_counter() - start)
    assert recall(np.array(found), together[: len(few)]) > 0.99
    return {
        "index": kind,
        "build_seconds": build,
        "open_seconds": opening,
        "structure_bytes": sizes.get("neighbours", 0),
        "folder_bytes": sum(sizes.values()),
        "queries_per_second": single,
        "queries_per_second_batch": batch,
        "recall_at_10": recall(together, exact),
        "effort": effort,
    }


def of_usearch(vectors: Vectors, queries: Vectors, exact: Vectors, folder: Path) -> dict[str, Any]:
    from usearch.index import Index

    effort = 88  # what CaseIndex asks a graph for, to have 88 candidates for 10 cases
    index = Index(
        ndim=DIM, metric="ip", dtype="f16", connectivity=LINKS, expansion_add=BUILD_EFFORT, expansion_search=effort
    )
    start = time.perf_counter()
    index.add(np.arange(len(vectors)), vectors)
    build = time.perf_counter() - start
    index.save(str(folder / "usearch"))
    start = time.perf_counter()
    for query in queries[:300]:
        index.search(query, K)
    single = 300 / (time.perf_counter() - start)
    start = time.perf_counter()
    found = index.search(queries, K).keys
    batch = len(queries) / (time.perf_counter() - start)
    size = (folder / "usearch").stat().st_size
    return {
        "index": "usearch (HNSW, f16)",
        "build_seconds": build,
        "open_seconds": None,
        "structure_bytes": size,
        "folder_bytes": size,
        "queries_per_second": single,
        "queries_per_second_batch": batch,
        "recall_at_10": recall(found, exact),
        "effort": effort,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--kinds", nargs="+", default=[*KINDS, "usearch"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/index.json"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(options.out.read_text()) if options.out.is_file() else []
    for n in options.sizes:
        vectors, queries = made_up(n, 1), made_up(N_QUERIES, 2)
        exact = exact_neighbours(vectors, queries)
        for kind in options.kinds:
            with tempfile.TemporaryDirectory() as folder:
                if kind == "usearch":
                    row = of_usearch(vectors, queries, exact, Path(folder))
                else:
                    row = of_kind(kind, vectors, queries, exact, Path(folder))
            rows = [old for old in rows if (old["n"], old["index"]) != (n, row["index"])] + [{"n": n, **row}]
            write_json(options.out, rows)
            print(json.dumps(rows[-1]))
    print(as_markdown(rows))


def as_markdown(rows: list[dict[str, Any]]) -> str:
    titles = ("vectors", "index", "build s", "structure MB", "folder MB", "open s", "queries/s", "at once", "recall@10")
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for row in sorted(rows, key=lambda row: (row["n"], "usearch" in row["index"])):
        opening = "" if row["open_seconds"] is None else f"{row['open_seconds']:.1f}"
        lines.append(
            f"| {row['n']:,} | {row['index']} | {row['build_seconds']:.1f} | {row['structure_bytes'] / 1e6:.0f} | "
            f"{row['folder_bytes'] / 1e6:.0f} | {opening} | {row['queries_per_second']:.0f} | "
            f"{row['queries_per_second_batch']:.0f} | {row['recall_at_10']:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
