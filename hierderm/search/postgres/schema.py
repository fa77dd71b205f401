"""The tables: models, and the cases, images and vectors of each model in partitions of their own.

Vectors lie apart from the case table, for changing a row that a graph is built on takes long. A model is one set of
weights, preprocessing, taxonomy and split with all its images, filled beside the one that is searched; which one is
searched changes in one commit.
"""

from __future__ import annotations

from typing import Literal

from psycopg import sql
from psycopg.sql import SQL, Composed, Identifier

from hierderm.errors import DatabaseError
from hierderm.search.postgres.address import Connection

SCHEMA, VERSION = "hierderm", 1
PARTS = ("cases", "images", "vectors", "halves")  # tables with a partition for each model
Precision = Literal["single", "half"]
WRITER = 7_430_117  # of the advisory lock that a writer holds
LINKS, BUILD_EFFORT = 16, 100  # of an HNSW graph: neighbours a node (twice as many below), candidates while building

_TABLES = """
create table {schema}.version (version int not null);
create table {schema}.models (
    model int primary key,
    server int not null,
    n_servers int not null,
    key text not null,
    state text not null check (state in ('loading', 'current', 'replaced')),
    generation text not null default '',
    source text not null default '',
    precision text not null,
    dim int not null,
    has_looks boolean not null,
    taxonomy text not null,
    columns jsonb not null,
    provenance jsonb not null,
    about jsonb not null,
    calibration jsonb,
    n_images bigint not null default 0,
    n_cases bigint not null default 0,
    next_image bigint not null default 0,
    next_case bigint not null default 0
);
create unique index on {schema}.models (state) where state <> 'replaced';
create table {schema}.cases (model int, "case" bigint, case_id text not null, primary key (model, "case"))
    partition by list (model);
create table {schema}.images (
    model int, image bigint, "case" bigint not null, image_id text not null, image_path text not null,
    cells jsonb not null, look bytea, primary key (model, image)
) partition by list (model);
create table {schema}.vectors (
    model int, image bigint, "case" bigint not null, node int not null, vector vector not null,
    primary key (model, image)
) partition by list (model);
create table {schema}.halves (
    model int, image bigint, "case" bigint not null, node int not null, vector halfvec not null,
    primary key (model, image)
) partition by list (model);
create unique index on {schema}.cases (model, case_id);
create unique index on {schema}.images (model, image_id);
create index on {schema}.images (model, "case");
create index on {schema}.vectors (model, "case");
create index on {schema}.halves (model, "case");
"""


def table(name: str) -> Composed:
    """One of our tables, by name, for a statement."""
    return SQL("{}").format(Identifier(SCHEMA, name))


def partition(name: str, model: int) -> Composed:
    """The partition of a table that a model has."""
    return table(f"{name}_{model}")


CURRENT = SQL("select generation from {} where state = 'current'").format(table("models"))


def there(connection: Connection) -> bool:
    """Whether the database has our schema with its tables, of this version: DatabaseError where of another."""
    if connection.execute("select to_regclass(%s)", (f"{SCHEMA}.version",)).fetchone() == (None,):
        return False
    versions = [row[0] for row in connection.execute(SQL("select version from {}").format(table("version")))]
    if versions != [VERSION]:
        raise DatabaseError(
            f"the schema '{SCHEMA}' must be of version {VERSION}, got {versions}: another hierderm made it. Use "
            "that one, or drop the schema and build the index again."
        )
    return True


def generation(connection: Connection) -> str:
    """That of the index which the database has; '' where it has none."""
    found = connection.execute(CURRENT).fetchall() if there(connection) else []
    return str(found[0][0]) if found else ""


def create(connection: Connection) -> None:
    """Make what is not there yet: the extension, the schema and its tables."""
    if connection.execute("select 1 from pg_extension where extname = 'vector'").fetchone() is None:
        connection.execute("create extension vector")
    if not there(connection):
        if connection.execute("select to_regnamespace(%s)", (SCHEMA,)).fetchone() == (None,):
            connection.execute(SQL("create schema {}").format(Identifier(SCHEMA)))
        connection.execute(SQL(_TABLES).format(schema=Identifier(SCHEMA)))
        connection.execute(SQL("insert into {} values (%s)").format(table("version")), (VERSION,))


def add_partitions(model: int, dim: int, precision: Precision) -> list[Composed]:
    """A place for the cases, images and vectors of a new model."""
    names, vectors = ("cases", "images", vectors_table(precision)), partition(vectors_table(precision), model)
    inline = dim * (2 if precision == "half" else 4) < 8000  # a page holds it, and need not look elsewhere
    made = SQL("create table {} partition of {} for values in ({})")
    return [
        *(made.format(partition(name, model), table(name), sql.Literal(model)) for name in names),
        SQL("alter table {} add check (vector_dims(vector) = {})").format(vectors, sql.Literal(dim)),
        SQL("alter table {} alter vector set storage {}").format(vectors, SQL("plain" if inline else "external")),
    ]


def index_partitions(model: int, dim: int, precision: Precision, *, graph: bool) -> list[Composed]:
    """The structures that a search uses, made once the rows are there: of filters, and where wanted an HNSW graph."""
    vectors = partition(vectors_table(precision), model)
    wanted = {
        f"cells_{model}": SQL("{} using gin (cells jsonb_path_ops)").format(partition("images", model)),
        f"nodes_{model}": SQL("{} (node)").format(vectors),
    }
    if graph:
        hnsw = SQL("{} using hnsw ((vector::halfvec({})) halfvec_ip_ops) with (m = {}, ef_construction = {})")
        wanted[f"graph_{model}"] = hnsw.format(vectors, *map(sql.Literal, (dim, LINKS, BUILD_EFFORT)))
    made = SQL("create index if not exists {} on {}")
    return [
        *([] if graph else [SQL("drop index if exists {}").format(Identifier(SCHEMA, f"graph_{model}"))]),
        *(made.format(Identifier(name), what) for name, what in wanted.items()),
        *(SQL("analyze {}").format(partition(n, model)) for n in ("cases", "images", vectors_table(precision))),
    ]


def give_up_after(model: int, next_image: int, next_case: int, precision: Precision) -> list[Composed]:
    """Rows that one server has of a part of a load that another has not."""
    later = SQL("delete from {} where image >= {}")
    return [
        *(later.format(partition(n, model), sql.Literal(next_image)) for n in ("images", vectors_table(precision))),
        SQL('delete from {} where "case" >= {}').format(partition("cases", model), sql.Literal(next_case)),
    ]


def drop_model(model: int) -> list[Composed]:
    """A model with all that it has."""
    return [
        *(SQL("drop table if exists {}").format(partition(name, model)) for name in PARTS),
        SQL("delete from {} where model = {}").format(table("models"), sql.Literal(model)),
    ]


def vectors_table(precision: Precision) -> str:
    """Where vectors of a precision are."""
    return "halves" if precision == "half" else "vectors"
