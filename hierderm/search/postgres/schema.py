"""The tables: models, and the cases, images and vectors of each model in partitions of their own.

Vectors lie apart from the case table, for changing a row that a graph is built on takes long. A model is one set of
weights, preprocessing, taxonomy and split with all its images, filled beside the one that is searched; which one is
searched changes in one commit.
"""

from __future__ import annotations

from typing import Literal

from hierderm.errors import DatabaseError
from hierderm.search.postgres.address import Connection

SCHEMA, VERSION = "hierderm", 1
MODELS = f"{SCHEMA}.models"
CURRENT = f"select generation from {MODELS} where state = 'current'"
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


def there(connection: Connection) -> bool:
    """Whether the database has our schema with its tables, of this version: DatabaseError where of another."""
    if connection.execute("select to_regclass(%s)", (f"{SCHEMA}.version",)).fetchone() == (None,):
        return False
    versions = [row[0] for row in connection.execute(f"select version from {SCHEMA}.version")]
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
            connection.execute(f"create schema {SCHEMA}")
        connection.execute(_TABLES.format(schema=SCHEMA))
        connection.execute(f"insert into {SCHEMA}.version values (%s)", (VERSION,))


def add_partitions(model: int, dim: int, precision: Precision) -> list[str]:
    """A place for the cases, images and vectors of a new model."""
    vectors = vectors_table(precision)
    inline = dim * (2 if precision == "half" else 4) < 8000  # a page holds it, and need not look elsewhere
    return [
        *(
            f"create table {SCHEMA}.{name}_{model} partition of {SCHEMA}.{name} for values in ({model})"
            for name in ("cases", "images", vectors)
        ),
        f"alter table {SCHEMA}.{vectors}_{model} add check (vector_dims(vector) = {dim})",
        f"alter table {SCHEMA}.{vectors}_{model} alter vector set storage {'plain' if inline else 'external'}",
    ]


def index_partitions(model: int, dim: int, precision: Precision, *, graph: bool) -> list[str]:
    """The structures that a search uses, made once the rows are there: of filters, and where wanted an HNSW graph."""
    vectors, made = f"{SCHEMA}.{vectors_table(precision)}_{model}", "create index if not exists"
    how = f"((vector::halfvec({dim})) halfvec_ip_ops) with (m = {LINKS}, ef_construction = {BUILD_EFFORT})"
    hnsw = f"{made} graph_{model} on {vectors} using hnsw {how}"
    return [
        f"{made} cells_{model} on {SCHEMA}.images_{model} using gin (cells jsonb_path_ops)",
        f"{made} nodes_{model} on {vectors} (node)",
        hnsw if graph else f"drop index if exists {SCHEMA}.graph_{model}",
        *(f"analyze {part}" for part in (f"{SCHEMA}.cases_{model}", f"{SCHEMA}.images_{model}", vectors)),
    ]


def give_up_after(model: int, next_image: int, next_case: int, precision: Precision) -> list[str]:
    """Rows that one server has of a part of a load that another has not."""
    return [
        *(
            f"delete from {SCHEMA}.{name}_{model} where image >= {next_image}"
            for name in ("images", vectors_table(precision))
        ),
        f'delete from {SCHEMA}.cases_{model} where "case" >= {next_case}',
    ]


def drop_model(model: int) -> list[str]:
    """A model with all that it has."""
    return [
        *(f"drop table if exists {SCHEMA}.{name}_{model}" for name in PARTS),
        f"delete from {MODELS} where model = {model}",
    ]


def vectors_table(precision: Precision) -> str:
    """Where vectors of a precision are."""
    return "halves" if precision == "half" else "vectors"
