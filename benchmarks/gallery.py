"""An index in PostgreSQL beside the same index in memory: load, size, queries, filters, recall.

Goals: images a second through COPY, seconds of the HNSW graph, bytes an image of table and graph, and milliseconds of a
query for ten cases with its recall@10, exact and through the graph, without a filter and with filters of 1, 10 and
50 %, in memory and in PostgreSQL in one run. Non-goals: other machines, networks, many clients. Vectors are made up as
in `benchmarks/index.py`, in cases of three images; the server is the one of the tests, on this machine.

    python benchmarks/gallery.py --n 100000
    python benchmarks/gallery.py --n 1000000 --folder /tmp/million --until load   # in pieces: then the same with
    python benchmarks/gallery.py --n 1000000 --folder /tmp/million --until graph  # --until graph, which goes on
    python benchmarks/gallery.py --n 1000000 --folder /tmp/million                # and without, which measures queries

With --folder the server's data stay there, and a load that was broken off goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.index import DIM, IMAGES, SHARES, TREE, K, cases_of, recall
from benchmarks.machine import machine, peak_mb
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import DatabaseError
from hierderm.files import write_json
from hierderm.search.case_index import About, CaseIndex
from hierderm.search.postgres.loading import Source
from hierderm.search.postgres.place import PostgresPlace
from hierderm.search.postgres.schema import index_partitions
from tests.postgres import serving_postgres

SETTINGS = (
    "fsync = on\nshared_buffers = 1GB\nmaintenance_work_mem = 2GB\nmax_parallel_maintenance_workers = 2\n"
    "max_wal_size = 8GB\n"
)
GRAPH_QUERIES, EXACT_SECONDS = 100, 20  # queries through a graph; seconds that are given to exact ones
_SIZES = """
select sum(pg_table_size(c.oid)) filter (where c.relname like 'vectors%%' and c.relkind = 'r'),
       sum(pg_table_size(c.oid)) filter (where c.relname similar to '(images|cases)%%' and c.relkind = 'r'),
       sum(pg_relation_size(c.oid)) filter (where c.relname like 'graph%%'),
       sum(pg_relation_size(c.oid)) filter (where c.relkind = 'i' and c.relname not like 'graph%%')
from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'hierderm'
"""


def queries_of(index: CaseIndex, exact: CaseIndex, queries: Any, name: str) -> list[dict[str, Any]]:
    """Median milliseconds of a query with each filter, and its recall@10 against `exact`, which is in memory."""
    rows = []
    for share, where in {
        "none": None,
        **{share: {column: [value]} for share, (column, value) in SHARES.items()},
    }.items():
        index.search(queries[:1], k=K, where=where)  # the first one reads what the others share
        seconds, found = list[float](), list[Any]()
        for query in queries:
            start = time.perf_counter()
            found.append(index.search(query, k=K, where=where).rows[0])
            seconds.append(time.perf_counter() - start)
            if not index.gallery.approximate and sum(seconds) > EXACT_SECONDS:
                break
        true = exact.search(queries[: len(found)], k=K, where=where).rows
        short = int(sum((rows < 0).any() for rows in found))
        row = {"index": name, "filter": share, "queries": len(found), "milliseconds": 1e3 * float(np.median(seconds))}
        rows.append({**row, "recall_at_10": recall(found, true), "short": short})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def in_postgres(table: EmbeddingTable, until: str, folder: Path | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What loading and its sizes come to, and the queries, where these are asked for."""
    with serving_postgres(folder, SETTINGS) as server:
        address = server.new_database() if folder is None else server.address()
        place, about, found = PostgresPlace(address), About("hnsw"), dict[str, Any]()
        try:
            index = place.opened()
        except DatabaseError:
            found = load(place, table, about, until)
            if until != "queries":
                return found, []
            index = place.opened()
        vectors, rows, graph, others = server.run(address, _SIZES)[0]
        sizes = {"vectors": vectors, "rows": rows, "graph": graph, "other_structures": others}
        found |= {f"bytes_an_image_{name}": round(int(size or 0) / len(table), 1) for name, size in sizes.items()}
        found |= {"effort": index.about.effort, "recall_at_10": index.about.recall_at_10}
        exact = CaseIndex.from_embeddings(table, TREE, kind="flat")
        queries = cases_of(3 * GRAPH_QUERIES, seed=2).embeddings[::IMAGES]
        measured = queries_of(exact, exact, queries, "memory, exact")
        measured += queries_of(index, exact, queries, "PostgreSQL, HNSW")
        flat = CaseIndex(index.gallery.exact(), index.provenance, index.about)
        return found, measured + queries_of(flat, exact, queries, "PostgreSQL, exact")


class Ended(Exception):
    """The piece that was asked for is done."""


def load(place: PostgresPlace, table: EmbeddingTable, about: About, until: str) -> dict[str, Any]:
    """Load the table, build the graph and tune it, or go on with that; how long each took."""
    start, found, begun = time.perf_counter(), dict[str, Any](), list[float]()

    def loaded(*given: Any, **options: Any) -> Any:
        begun.append(time.perf_counter())
        if until != "graph":  # else they were loaded before
            found["images_a_second_loaded"] = round(len(table) / (begun[0] - start))
        print(json.dumps(found), flush=True)
        if until == "load":
            raise Ended
        return index_partitions(*given, **options)

    piece = patch("hierderm.search.postgres.place.index_partitions", loaded)
    with suppress(Ended), piece, place.building(Source.of_table(table), TREE, about) as index:
        found["seconds_of_graph_and_recall"] = round(time.perf_counter() - begun[0], 1)
        print(json.dumps(found), flush=True)
        assert len(index) == len(table)
    return found


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """A line an index, a column a filter: milliseconds of a query, and its recall@10."""
    filters = list(dict.fromkeys(row["filter"] for row in rows))
    lines = ["| index | " + " | ".join("no filter" if name == "none" else name for name in filters) + " |"]
    lines.append("|---" * (1 + len(filters)) + "|")
    for name in dict.fromkeys(row["index"] for row in rows):
        cells = [f"{row['milliseconds']:.1f} ms, {row['recall_at_10']:.3f}" for row in rows if row["index"] == name]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--until", choices=("load", "graph", "queries"), default="queries")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/gallery.json"))
    options = parser.parse_args()
    table = cases_of(options.n)
    table = EmbeddingTable(table.embeddings, table.frame.assign(image_path=table.frame["image_id"] + ".png"))
    found, rows = in_postgres(table, options.until, options.folder)
    known = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    row = known.get(str(options.n), {}) | {"dim": DIM, **found}
    known[str(options.n)] = row | ({"queries": rows} if rows else {})
    write_json(options.out, {**known, "machine": machine(), "peak_mb": peak_mb()})
    print(json.dumps(found))
    print(as_markdown(rows) if rows else "")


if __name__ == "__main__":
    main()
