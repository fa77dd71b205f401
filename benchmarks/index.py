"""How fast, large and right each kind of index is, compared with usearch on the same vectors.

Goals: build seconds, bytes on disk, queries per second and recall@10 of CaseIndex as its users meet it: save and open,
then one query after another, and many at once; a query with a filter; `hierderm evaluate` of many embeddings through an
index. Non-goals: the fastest possible settings of either library; other machines. Vectors are made up: clusters of a
64-dimensional latent space, laid into 512 dimensions with noise; with filters and for the evaluation 211 conditions, in
cases of three images.

    python benchmarks/index.py --sizes 10000 100000 1000000
    python benchmarks/index.py --sizes 1000000 --filters --kinds flat ivf
    python benchmarks/index.py --sizes 1000000 --evaluate

`pip install usearch` first for its rows. Threads: as many as the process may use, for every row.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hierderm.config.settings import EvaluationConfig
from hierderm.embeddings import EmbeddingTable
from hierderm.engines import BUILD_EFFORT, KINDS, LINKS
from hierderm.evaluation.evaluation import evaluate
from hierderm.files import write_json
from hierderm.search.case_index import CaseIndex
from hierderm.search.evaluation import evaluate_index
from hierderm.taxonomy.file import write_taxonomy
from hierderm.taxonomy.tree import taxonomy_from_paths

DIM, LATENT, K, N_QUERIES, IMAGES = 512, 64, 10, 1000, 3
IDENTITY = ("n", "index", "filter", "dim", "evaluate")  # of a row of the file
SHARES = {"1 %": ("of_100", "7"), "10 %": ("of_10", "7"), "50 %": ("of_2", "1")}  # the filters: column and value
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
    sizes = {path.name.split("-")[0]: path.stat().st_size for path in (folder / kind).glob("*-*.*")}
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


def cases_of(n: int, seed: int = 1, dim: int = DIM) -> EmbeddingTable:
    """n images, three a case of one of 211 conditions, with the columns of the filters."""
    shape, rng = np.random.default_rng(0), np.random.default_rng(seed)
    centres = shape.standard_normal((TREE.size(-1), LATENT), dtype=np.float32)
    lay = shape.standard_normal((LATENT, dim), dtype=np.float32) / np.float32(LATENT**0.5)
    fine = rng.integers(0, TREE.size(-1), -(-n // IMAGES)).repeat(IMAGES)[:n]
    vectors, case = np.empty((n, dim), dtype=np.float32), np.arange(n) // IMAGES
    for start in range(0, n, 16_666 * IMAGES):
        some = slice(start, start + 16_666 * IMAGES)
        of_cases = 1.2 * rng.standard_normal((-(-len(fine[some]) // IMAGES), LATENT), dtype=np.float32)
        latent = centres[fine[some]] + of_cases.repeat(IMAGES, axis=0)[: len(fine[some])]
        latent += 0.5 * rng.standard_normal(latent.shape, dtype=np.float32)
        rows = latent @ lay + 0.1 * rng.standard_normal((len(latent), dim), dtype=np.float32)
        vectors[some] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    columns = {f"of_{share}": (case * 7919 % share).astype(str) for share in (100, 10, 2)}
    frame = {"case_id": case.astype(str), "condition": np.array(TREE.names())[fine], **columns}
    return EmbeddingTable(vectors, pd.DataFrame({"image_id": np.arange(n).astype(str), **frame}))


def filter_rows(index: CaseIndex, exact: CaseIndex, queries: Vectors) -> list[dict[str, Any]]:
    """Milliseconds of a query with each filter, and its recall@10 against `exact`."""
    rows = []
    for share, (column, value) in SHARES.items():
        where = {column: [value]}
        index.search(queries[0], k=K, where=where)  # the first search sorts the column
        seconds, found = [], []
        for query in queries:
            start = time.perf_counter()
            found.append(index.search(query, k=K, where=where).rows[0])
            seconds.append(time.perf_counter() - start)
        right = exact.search(queries, k=K, where=where).rows
        row = {"index": index.about.kind, "filter": share, "n": len(index), "dim": index.vectors.shape[1]}
        rows.append({**row, "milliseconds": 1e3 * float(np.median(seconds)), "recall_at_10": recall(found, right)})
    return rows


def evaluation_row(n: int) -> dict[str, Any]:
    """`hierderm evaluate` of n embeddings with its default tasks: seconds, highest memory, and what it found."""
    with tempfile.TemporaryDirectory() as name:
        folder, table = Path(name), cases_of(n)
        np.save(folder / "x.npy", table.embeddings)
        table.frame[["case_id", "condition"]].to_csv(folder / "cases.csv", index=False)
        write_taxonomy(TREE, folder / "tree.csv")
        del table
        command = [sys.executable, "-m", "hierderm", "evaluate", "x.npy", "--cases", "cases.csv", "-t", "tree.csv"]
        start = time.perf_counter()
        subprocess.run([*command, "-o", "out.json"], cwd=folder, check=True)
        seconds = time.perf_counter() - start
        content = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    shown = {f"{m['level']} {m['name']}": m["value"] for m in content["metrics"] if re.search("map|true_", m["name"])}
    found = content["details"].get("retrieval_index", {})  # of a large n
    return {"evaluate": n, "seconds": seconds, "peak_gb": peak, **found, **shown}


def rows() -> dict[str, Callable[[], object]]:
    """For `benchmarks/guard.py`: searches with and without filters, and both evaluations through an index."""
    small, large = cases_of(10_000, dim=768), cases_of(100_000)
    flat, many = (CaseIndex.from_embeddings(table, TREE, kind="flat") for table in (small, large))
    few = EmbeddingTable(large.embeddings[:30_000], large.frame[:30_000])
    graph = CaseIndex.from_embeddings(few, TREE, kind="hnsw")
    config = EvaluationConfig(index_kind="ivf", bootstrap_rounds=100, groups=False)
    where = {share: {column: [value]} for share, (column, value) in SHARES.items()}

    def searches(index: CaseIndex, n: int, share: str = "") -> Callable[[], object]:
        return lambda: [index.search(index.vectors[7 * row], k=K, where=where.get(share)) for row in range(n)]

    return {
        "300 queries of 10,000 x 768": searches(flat, 300),
        "1,000 queries of 10,000 x 768 with a filter of 10 %": searches(flat, 1000, "10 %"),
        "500 queries of 100,000 x 512 with a filter of 1 %": searches(many, 500, "1 %"),
        "500 queries of a graph of 30,000 x 512": searches(graph, 500),
        "500 queries of a graph of 30,000 x 512 with a filter of 50 %": searches(graph, 500, "50 %"),
        "an index as it is served, 10,000 cases": lambda: evaluate_index(graph, config=config),
        "the first neighbours of 30,000 x 512 through an index": lambda: evaluate(
            few, few.frame, TREE, tasks=["retrieval_index"], config=config
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--kinds", nargs="+", default=[*KINDS, "usearch"])
    parser.add_argument("--filters", action="store_true", help="queries with filters instead")
    parser.add_argument("--evaluate", action="store_true", help="`hierderm evaluate` instead")
    parser.add_argument("--dim", type=int, default=DIM, help="with --filters")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/index.json"))
    options = parser.parse_args()
    found: list[dict[str, Any]] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else []
    for n in options.sizes:
        for row in _measured(n, options):
            found = [old for old in found if any(old.get(key) != row.get(key) for key in IDENTITY)] + [row]
            write_json(options.out, found)
            print(json.dumps(row), flush=True)
    print(as_markdown([row for row in found if "build_seconds" in row]))


def _measured(n: int, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if options.evaluate:
        yield evaluation_row(n)
    elif options.filters:
        table = cases_of(n, dim=options.dim)
        queries = cases_of(300, seed=2, dim=options.dim).embeddings[::IMAGES]
        exact = CaseIndex.from_embeddings(table, TREE, kind="flat")
        for kind in (kind for kind in options.kinds if kind in KINDS):
            index = exact if kind == "flat" else CaseIndex.from_embeddings(table, TREE, kind=kind)
            yield from filter_rows(index, exact, queries)
    else:
        vectors, queries = made_up(n, 1), made_up(N_QUERIES, 2)
        exact = exact_neighbours(vectors, queries)
        for kind in options.kinds:
            with tempfile.TemporaryDirectory() as folder:
                measure = of_usearch if kind == "usearch" else partial(of_kind, kind)
                yield {"n": n, **measure(vectors, queries, exact, Path(folder))}


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
