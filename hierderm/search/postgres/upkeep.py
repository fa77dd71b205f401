"""Whether the tables agree with each other, and whether removed cases are gone from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hierderm.embeddings import UNIT_TOLERANCE
from hierderm.errors import DatabaseError
from hierderm.search.postgres.gallery import PostgresGallery
from hierderm.search.postgres.schema import MODELS, SCHEMA, vectors_table
from hierderm.search.postgres.servers import Session

_LACKS = "select count(*) from {} a where not exists (select from {} b where "
_SAME = {"images": "b.image = a.image)", "cases": 'b."case" = a."case")'}
_PAIRS = (("images", "vectors", "images"), ("vectors", "images", "images"), ("vectors", "cases", "cases"),
          ("images", "cases", "cases"), ("cases", "images", "cases"))  # fmt: skip
_DEAD = "select n_dead_tup from pg_stat_user_tables where relid = %(name)s::regclass"
_WRONG = {
    "vectors under no node of the tree": "a.node not between 0 and %(last)s",
    "vectors of another length than the index has": "vector_dims(a.vector) <> %(dim)s",
    "vectors that are not of unit length": "abs(1 + (a.vector::vector <#> a.vector::vector)) > %(tolerance)s",
}


def check(session: Session, gallery: PostgresGallery) -> str:
    """Compare the tables of the model that is searched; DatabaseError with all that does not fit."""
    stored, faults = gallery.stored, list[str]()
    parts = {"images": "images", "cases": "cases", "vectors": vectors_table(stored.precision)}
    names = {name: f"{SCHEMA}.{part}_{stored.model}" for name, part in parts.items()}
    values = {"last": gallery.taxonomy.size(-1) - 1, "tolerance": 2 * UNIT_TOLERANCE, "dim": stored.dim}
    for one, other, by in _PAIRS:
        if n := _count(session, (_LACKS + _SAME[by]).format(names[one], names[other]), values):
            faults.append(f"{n} of the {one} have nothing in {other}")
    for what, condition in _WRONG.items():
        if n := _count(session, f"select count(*) from {names['vectors']} a where {condition}", values):
            faults.append(f"{n} {what}")
    counts = {}
    for name, place in names.items():
        counts[name] = _count(session, f"select count(*) from {place}")
    said = {"images": stored.n_images, "cases": stored.n_cases, "vectors": stored.n_images}
    faults += [f"{counts[name]} {name} instead of {n}" for name, n in said.items() if counts[name] != n]
    if faults:
        raise DatabaseError(f"{gallery.servers}: the tables do not agree: {', '.join(faults)}. Build the index again.")
    return "tables: " + ", ".join(f"{n} {name}" for name, n in counts.items()) + ", each with the others"


def forget(session: Session, case_ids: Sequence[str]) -> list[str]:
    """Vacuum every partition, and look for the cases in each; DatabaseError where something of them is left.

    `session`: of the writer. Removed rows stay on their pages until a vacuum, which waits for older transactions.
    """
    session.commit()
    for connection in session.connections:
        connection.autocommit = True
    lines = []
    for model, precision in sorted(set(session.rows(f"select distinct model, precision from {MODELS}"))):
        parts = ("cases", "images", vectors_table(precision))
        for name in parts:
            session.rows(f"vacuum (index_cleanup on, analyze) {SCHEMA}.{name}_{model}")
            if dead := _count(session, _DEAD, {"name": f"{SCHEMA}.{name}_{model}"}):
                raise DatabaseError(
                    f"{dead} removed row(s) of {SCHEMA}.{name}_{model} can't be given up while an older transaction is "
                    "open (see pg_stat_activity.backend_xmin). End it and ask for the proof again."
                )
        cases = f"{SCHEMA}.cases_{model}"
        theirs = f"select count(*) from {cases} where case_id = any(%(ids)s)"
        left = {"cases": _count(session, theirs, {"ids": list(case_ids)})}
        for name in parts[1:]:
            orphans = f'{SCHEMA}.{name}_{model} r where not exists (select from {cases} k where k."case" = r."case")'
            left[name] = _count(session, f"select count(*) from {orphans}")
        if any(left.values()):
            raise DatabaseError(f"model {model} still has rows of removed cases: {left}. Remove them again.")
        lines.append(f"tables of model {model}: none of the cases, no image or vector without its case, no dead row")
    return lines


def _count(session: Session, statement: str, values: dict[str, Any] | None = None) -> int:
    """A number, summed up over all servers."""
    return sum(int(row[0]) for row in session.rows(statement, values))
