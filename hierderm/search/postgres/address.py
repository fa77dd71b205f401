"""Where a PostgreSQL server is, without what must not be seen: no message, log or header holds a password."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import psycopg
from pgvector.psycopg import register_vector
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import set_json_loads

from hierderm.errors import DatabaseError, OutputError
from hierderm.search.postgres.cells import read_json

Connection = psycopg.Connection[tuple[Any, ...]]
HIDDEN, SCHEMES = "***", ("postgresql://", "postgres://")
logger = logging.getLogger(__name__)
CONNECT_SECONDS = 10  # unless the address or the environment says otherwise
_DEFAULTS: dict[str, Any] = {  # a server that has vanished from the network is given up after a minute
    "application_name": "hierderm", "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3,
}  # fmt: skip
_FULL = "Free space there; a load goes on where it stopped when the same command is run again."
_OF_THE_REQUEST = (errors.ProgramLimitExceeded, errors.QueryCanceled)  # which the server refused, well as it runs
_WHAT_TO_DO: dict[type[psycopg.Error], str] = {
    errors.DiskFull: _FULL,
    errors.OutOfMemory: "Give the server more memory, or lower maintenance_work_mem.",
    errors.InsufficientPrivilege: "Use a role with the rights that docs/scale.md lists, or have them granted.",
    errors.LockNotAvailable: "Another process writes this index. Try again later.",
    errors.ReadOnlySqlTransaction: "Change the index with the role of the writer, on the primary server.",
    errors.ObjectNotInPrerequisiteState: "Set max_prepared_transactions to 10 on each server, and restart it.",
    errors.UndefinedTable: "The index has been replaced or deleted since it was opened. Open it again.",
}


class LockedError(DatabaseError):
    """Another process holds what is wanted, longer than we wait."""


@dataclass(frozen=True, repr=False)
class Address:
    """How to connect, as libpq reads it: 'postgresql://host/database', or '?service=NAME'.

    What it lacks comes from the environment (PGPASSFILE, PGUSER, ...), the service file and ~/.pgpass.
    """

    conninfo: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """DatabaseError where libpq can't read it; the message does not repeat it, for it may hold a password."""
        given: dict[str, Any] = {}
        if text.startswith(SCHEMES):
            with suppress(psycopg.Error):
                given = conninfo_to_dict(text)
        if not given or "://" in str(given.get("dbname", "")):  # two addresses without a space between them
            raise DatabaseError(
                "the address must look like postgresql://user@host:5432/database or postgresql:///?service=NAME, with "
                "special signs as %XX, and several with spaces between them; libpq can't read the one given."
            )
        defaults = _DEFAULTS if "PGCONNECT_TIMEOUT" in os.environ else _DEFAULTS | {"connect_timeout": CONNECT_SECONDS}
        return cls(make_conninfo(**{**defaults, **given}))

    def __str__(self) -> str:
        """Host, port and database, or the service."""
        known = conninfo_to_dict(self.conninfo)
        if known.get("service"):
            return f"postgresql:///?service={known['service']}"
        port = f":{known['port']}" if known.get("port") else ""
        return f"postgresql://{known.get('host', '')}{port}/{known.get('dbname', '')}"

    __repr__ = __str__

    def hide(self, text: str) -> str:
        """A text without the passwords, however they are written."""
        known = conninfo_to_dict(self.conninfo)
        secrets = {str(value or "") for value in (known.get("password"), known.get("sslpassword"))}
        secrets.add(os.environ.get("PGPASSWORD", ""))
        for secret in filter(None, secrets | {quote(secret, safe="") for secret in secrets}):
            text = text.replace(secret, HIDDEN)
        return text

    def connect(self, *, writes: bool = False) -> Connection:
        """A connection in which nothing is committed by itself; one that does not write can't."""
        with self.faults("connecting"):
            connection = psycopg.connect(self.conninfo, prepare_threshold=None)
            try:
                connection.add_notice_handler(_tell)
                connection.read_only = not writes
                connection.isolation_level = None if writes else psycopg.IsolationLevel.REPEATABLE_READ
                register_vector(connection)
                set_json_loads(read_json, connection)
                connection.commit()
            except BaseException:
                connection.close()
                raise
        return connection

    @contextmanager
    def faults(self, doing: str) -> Iterator[None]:
        """What the server refuses while `doing` something, as an error of ours, without the password."""
        try:
            yield
        except psycopg.Error as error:
            raise self._in_words(error, doing) from None  # whose text may hold the password

    def _in_words(self, error: psycopg.Error, doing: str) -> Exception:
        reason = self.hide(" ".join(str(error).split()))[:400]
        advice = next((text for kind, text in _WHAT_TO_DO.items() if isinstance(error, kind)), "")
        if isinstance(error, psycopg.ProgrammingError) and "vector type not found" in reason:
            advice = "Install pgvector on the server and run: CREATE EXTENSION vector;"
        if not advice and isinstance(error, psycopg.OperationalError) and not isinstance(error, _OF_THE_REQUEST):
            advice = "Check that the server runs and that the address and the role are right; then try again."
        if isinstance(error, errors.DiskFull):
            return OutputError(f"{self}: {doing} failed, for the server has no space left: {reason}. {advice}")
        kind = LockedError if isinstance(error, errors.LockNotAvailable) else DatabaseError
        return kind(f"{self}: {doing} failed: {reason}{'' if reason[-1:] in '.?!' else '.'} {advice}".rstrip())


def _tell(said: errors.Diagnostic) -> None:
    """What a server says on building a graph that its memory does not hold; else it says only what we asked for."""
    text = said.message_primary or ""
    if "maintenance_work_mem" in text:
        logger.warning("The server says: %s. Building takes longer: see docs/scale.md.", text)
