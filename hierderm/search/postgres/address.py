"""Where a PostgreSQL server is, without what must not be seen: no message, log or header holds a password."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import psycopg
from pgvector.psycopg import register_vector
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from hierderm.errors import DatabaseError, OutputError

Connection = psycopg.Connection[tuple[Any, ...]]
HIDDEN = "***"
logger = logging.getLogger(__name__)
CONNECT_SECONDS = 10  # unless the address or the environment says otherwise
_FULL = "Free space there; a load goes on where it stopped when the same command is run again."
_WHAT_TO_DO: dict[type[psycopg.Error], str] = {
    errors.DiskFull: _FULL,
    errors.OutOfMemory: "Give the server more memory, or lower maintenance_work_mem.",
    errors.InsufficientPrivilege: "Use a role with the rights that docs/scale.md lists, or have them granted.",
    errors.LockNotAvailable: "Another process writes this index. Try again later.",
    errors.ReadOnlySqlTransaction: "Change the index with the role of the writer, on the primary server.",
    errors.ObjectNotInPrerequisiteState: "Set max_prepared_transactions to 10 on each server, and restart it.",
    errors.UndefinedTable: "The index has been replaced or deleted since it was opened. Open it again.",
}


@dataclass(frozen=True, repr=False)
class Address:
    """How to connect, as libpq reads it: 'postgresql://host/database', or '?service=NAME'.

    What it lacks comes from the environment (PGPASSFILE, PGUSER, ...), the service file and ~/.pgpass.
    """

    conninfo: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """DatabaseError where libpq can't read it; the message does not repeat it, for it may hold a password."""
        try:
            given = conninfo_to_dict(text)
        except psycopg.Error:
            raise DatabaseError(
                "the address must look like postgresql://user@host:5432/database or postgresql:///?service=NAME, with "
                "special signs as %XX; libpq can't read the one given."
            ) from None
        defaults: dict[str, Any] = {"application_name": "hierderm"}
        if "PGCONNECT_TIMEOUT" not in os.environ:
            defaults["connect_timeout"] = CONNECT_SECONDS
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
        """A text without the password, however it is written."""
        password = str(conninfo_to_dict(self.conninfo).get("password") or "")
        for secret in filter(None, {password, quote(password, safe="")}):
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
        if not advice and isinstance(error, psycopg.OperationalError):
            advice = "Check that the server runs and that the address and the role are right; then try again."
        if isinstance(error, errors.DiskFull):
            return OutputError(f"{self}: the server has no space left while {doing}: {reason}. {advice}")
        return DatabaseError(f"{self}: {doing} failed: {reason.rstrip('.')}. {advice}".rstrip())


def _tell(said: errors.Diagnostic) -> None:
    """What a server says on building a graph that its memory does not hold; else it says only what we asked for."""
    text = said.message_primary or ""
    if "maintenance_work_mem" in text:
        logger.warning("The server says: %s. Building takes longer: see docs/scale.md.", text)
