"""The servers of an index, and a transaction on all of them.

A gallery on several servers has each case whole on one of them, by a hash of its id. A statement is asked of all at
once, and what they give is put together here: that is the same for one server and for many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, LifoQueue
from typing import Any, TypeVar
from weakref import finalize

import psycopg

from hierderm.errors import DatabaseError
from hierderm.search.postgres.address import Address, Connection
from hierderm.search.postgres.schema import MODELS, generation

PREPARED = "hierderm-"  # begins the name of a prepared transaction, which ends with the generation
TRIES, PAUSE = 100, 0.05  # to find all servers at one generation, seconds between two
Rows = list[tuple[Any, ...]]
Found = TypeVar("Found")


@dataclass
class Session:
    """A transaction on each server that answers, in their order; `missing`: those that do not."""

    addresses: list[Address]
    connections: list[Connection]
    pool: ThreadPoolExecutor
    missing: tuple[str, ...] = ()

    def rows(self, statement: str, values: Any = None) -> Rows:
        """What all servers give, those of the first before those of the second."""
        if len(self.connections) == 1:
            return self.on(0, statement, values)
        return [row for found in self.pool.map(lambda n: self.on(n, statement, values), self.numbers) for row in found]

    def on(self, server: int, statement: str, values: Any = None) -> Rows:
        """What one server gives."""
        with self.addresses[server].faults("the query"):
            cursor = self.connections[server].execute(statement, values, binary=True)
            return cursor.fetchall() if cursor.description else []

    def run(self, statements: Iterable[str]) -> None:
        """Run statements, one after the other, on all servers."""
        for statement in statements:
            self.rows(statement)

    @property
    def numbers(self) -> range:
        return range(len(self.connections))

    def each(self, act: Callable[[Connection], Found], doing: str) -> list[Found]:
        """What an act gives on each server, one after the other."""
        found = []
        for address, connection in zip(self.addresses, self.connections, strict=True):
            with address.faults(doing):
                found.append(act(connection))
        return found

    def commit(self, generation: str = "") -> None:
        """Commit on all servers, or with a generation on all or none: see `recover`."""
        if generation and len(self.connections) > 1:
            name = PREPARED + generation  # of hexadecimal digits
            self.rows(f"prepare transaction '{name}'")
            self.each(lambda connection: _outside(connection, f"commit prepared '{name}'"), "committing")
        self.each(Connection.commit, "committing")

    def recover(self) -> None:
        """End what a killed writer prepared: commit it where a server has committed it, else give it up."""
        ours = "select gid from pg_prepared_xacts where database = current_database() and starts_with(gid, %s)"
        known = f"select generation from {MODELS}"
        for name in sorted({row[0] for row in self.rows(ours, (PREPARED,))}):
            done = name.removeprefix(PREPARED) in {row[0] for row in self.rows(known)}
            end = f"{'commit' if done else 'rollback'} prepared '{name}'"

            def act(connection: Connection, name: str = name, end: str = end) -> None:
                if (name,) in connection.execute(ours, (PREPARED,)).fetchall():
                    _outside(connection, end)

            self.each(act, "committing")
        self.commit()

    def close(self) -> None:
        """Give up what is not committed."""
        for connection in self.connections:
            connection.close()


class Servers:
    """Where an index is, and connections to read it through.

    Args:
        addresses: Of the servers, in the order in which the index was built on them.
        partial: Search those that answer where one is down; else that is an error.
    """

    def __init__(self, addresses: Sequence[Address], *, partial: bool = False) -> None:
        self.addresses, self.partial = list(addresses), partial
        self._pool = ThreadPoolExecutor(max(8, 4 * len(self.addresses)), thread_name_prefix="hierderm-postgres")
        self._idle: list[LifoQueue[Connection]] = [LifoQueue() for _ in addresses]
        finalize(self, _close_all, self._idle, self._pool)

    def __str__(self) -> str:
        return " ".join(map(str, self.addresses))

    def __len__(self) -> int:
        return len(self.addresses)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that sees one moment of all servers."""
        session, used = self._at_one_generation()
        try:
            yield session
        except BaseException:
            session.close()
            raise
        for number, connection in zip(used, session.connections, strict=True):
            try:
                connection.rollback()
                self._idle[number].put(connection)
            except psycopg.Error:  # lost after all was read
                connection.close()

    def writing(self) -> Session:
        """A transaction on all servers, to be committed and closed."""
        session = Session(self.addresses, [], self._pool)
        try:
            for address in self.addresses:
                session.connections.append(address.connect(writes=True))
        except BaseException:
            session.close()
            raise
        return session

    def _at_one_generation(self) -> tuple[Session, list[int]]:
        """A session, and the numbers of its servers; a change is on one server a moment before it is on the next."""
        for _ in range(TRIES):
            found = list(self._pool.map(self._usable, range(len(self)))) if len(self) > 1 else [self._usable(0)]
            used = [number for number, one in enumerate(found) if not isinstance(one, DatabaseError)]
            missing = tuple(str(self.addresses[number]) for number in range(len(self)) if number not in used)
            connections = [one for one in found if not isinstance(one, DatabaseError)]
            session = Session([self.addresses[number] for number in used], connections, self._pool, missing)
            faults = [one for one in found if isinstance(one, DatabaseError)]
            if faults and (not self.partial or not connections):
                session.close()
                raise faults[0]
            try:
                if len(connections) == 1 or len(set(session.each(generation, "opening the index"))) == 1:
                    return session, used
            except BaseException:
                session.close()
                raise
            session.close()
            time.sleep(PAUSE)
        raise DatabaseError(
            f"{self}: the servers are at different generations. A writer was killed: end its change by the next one, "
            "such as `hierderm index remove ... --prove`, or restore all servers from one backup."
        )

    def _usable(self, number: int) -> Connection | DatabaseError:
        """A connection that works, for a server that was restarted has closed its own; or why there is none."""
        while True:
            try:
                connection = self._idle[number].get_nowait()
            except Empty:
                try:
                    return self.addresses[number].connect()
                except DatabaseError as error:
                    return error
            try:
                connection.execute("select 1")
            except psycopg.Error:
                connection.close()
            else:
                return connection


def _outside(connection: Connection, statement: str) -> None:
    """Run a statement outside of the transaction of a connection, which is ended."""
    connection.commit()
    connection.autocommit = True
    connection.execute(statement)
    connection.autocommit = False


def _close_all(idle: Sequence[LifoQueue[Connection]], pool: ThreadPoolExecutor) -> None:
    pool.shutdown(wait=False)
    for queue in idle:
        while not queue.empty():
            queue.get().close()
