"""The connection pool of one worker process."""

import os
import sqlite3
import weakref
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import abc, generators
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.types.string import TextLoader
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.pool import PoolProxiedConnection, QueuePool
from typing_extensions import override

MAPPED_BYTES = 1 << 40
"""How much of a SQLite file is read through memory instead of call by call; SQLite itself stops at 2 GiB."""
GRACE_SECONDS = 1
"""How much longer than the server's own time-outs a client waits for the server to tell of them."""


class ImpatientConnection(psycopg.Connection[Any]):
    """A connection that a hung server (stopped, swapped out, cut off) holds up for `longest_wait_seconds` at most.

    statement_timeout is the server's, and a server that hangs does not look at it. The connection is closed then, and
    whether the server carries the statement out once it goes on is not known.
    """

    longest_wait_seconds: float | None = None
    prepares: bool = True
    """Whether statements may be prepared, by `lasting_cursor` alone: what psycopg prepares it drops with all others."""

    @cached_property
    def lasting_cursor(self) -> "LastingCursor":
        """The cursor of whoever holds this connection."""
        return LastingCursor(self)

    @override
    def wait(self, gen: abc.PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.longest_wait_seconds if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:  # the answer is still to come
                self.close()
            raise


class _Prepared(NamedTuple):
    """A statement that the server has prepared for one connection."""

    name: bytes
    reader: abc.Transformer
    """Makes Python's values of its columns."""

    def rows(self, result: PGresult) -> list[tuple[Any, ...]]:
        """Return the rows of a result; none of one that has none."""
        if result.status != ExecStatus.TUPLES_OK:
            return []
        self.reader.set_pgresult(result)
        return self.reader.load_rows(0, result.ntuples, tuple)


class NothingKept(Exception):
    """One of several statements was refused, which its cause tells; the transaction of all was undone."""

    def __init__(self, at: int) -> None:
        """`at` is the place of the one refused, or the number of all when their commit was."""
        super().__init__(at)
        self.at = at


ANSWERED = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.PIPELINE_SYNC)


def _fetched(pgconn: PGconn) -> abc.PQGen[list[PGresult]]:
    """Send what is queued, and return all results: one a statement, one if the commit is refused, the end's."""
    yield from generators.send(pgconn)
    results: list[PGresult] = []
    while not results or results[-1].status != ExecStatus.PIPELINE_SYNC:
        results += yield from generators.fetch_many(pgconn)
    return results


class LastingCursor(psycopg.RawCursor[tuple[Any, ...]]):
    """A cursor that is as old as its connection, and runs the statements that it knows without getting ready again.

    psycopg's own `execute` looks up anew how to prepare a statement and how to read its columns: half of what a small
    one costs in Python (docs/decisions/0017-less-on-the-hot-path.md).
    """

    MOST_PREPARED = 100
    """As many as psycopg prepares by itself."""

    def __init__(self, connection: ImpatientConnection) -> None:
        super().__init__(connection)
        self._impatient = connection
        self._writer: abc.Transformer = Transformer(connection)
        self._known: dict[tuple[str, tuple[int, ...]], _Prepared] = {}

    def rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Execute a statement with parameters `$1`, `$2`, … and return its rows; none of one that returns none."""
        written = self._writer.dump_sequence(values, [PyFormat.TEXT] * len(values))
        key = sql, self._writer.types or ()
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= self.MOST_PREPARED or not self._impatient.prepares:
                return self._run_once(sql, values)
            known = self._prepare(*key)
        self._impatient.pgconn.send_query_prepared(known.name, written, self._writer.formats)
        return known.rows(self._result())

    def rows_of_all(self, asked: Sequence[tuple[str, Sequence[Any]]]) -> list[list[tuple[Any, ...]]]:
        """Execute several such statements in one transaction and one round trip, and return the rows of each.

        Raises:
            NothingKept: the server refused one of them, and so undid all.
            psycopg.OperationalError: the connection is lost, and whether they were kept is not known.
        """
        ready = []
        for sql, values in asked:
            written = self._writer.dump_sequence(values, [PyFormat.TEXT] * len(values))
            key = sql, self._writer.types or ()
            ready.append((self._known.get(key) or self._prepare(*key), written, self._writer.formats))
        connection, pgconn = self._impatient, self._impatient.pgconn
        try:
            pgconn.enter_pipeline_mode()
            for known, written, formats in ready:
                pgconn.send_query_prepared(known.name, written, formats)
            pgconn.pipeline_sync()
            results = connection.wait(_fetched(pgconn))
            pgconn.exit_pipeline_mode()
        except BaseException:
            connection.close()  # what is still to come would be taken for the answer to what is asked next
            raise
        for at, result in enumerate(results):
            if result.status not in ANSWERED:
                raise NothingKept(at) from error_from_result(result)
        return [known.rows(result) for (known, _, _), result in zip(ready, results[:-1], strict=True)]

    def _prepare(self, sql: str, types: tuple[int, ...]) -> _Prepared:
        name = f"known_{len(self._known)}".encode()
        self._impatient.pgconn.send_prepare(name, sql.encode(), types)
        self._result()
        known = self._known[sql, types] = _Prepared(name, Transformer(self._impatient))
        return known

    def _result(self) -> PGresult:
        """Wait for the result of what was sent, and raise what psycopg would if it is an error."""
        results: list[PGresult] = self._impatient.wait(generators.execute(self._impatient.pgconn))
        for result in results:  # a second one says that the commit was refused
            if result.status not in ANSWERED:
                raise error_from_result(result)
        return results[0]

    def _run_once(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        self.execute(sql.encode(), values)
        return self.fetchall() if self.description else []

    @override
    def close(self) -> None:
        """Stay: whoever is lent the connection next goes on with it."""


def make_engine(
    url: URL,
    *,
    pool: int,
    timeout: timedelta,
    prepare: bool = True,
    sqlite_synchronous: str = "FULL",
    waited: Callable[[], None] | None = None,
) -> Engine:
    """Return an engine whose every wait (for a connection, a lock, a statement) ends after `timeout`, or soon after.

    Each statement commits by itself unless it stands between a BEGIN and a COMMIT of our own. A process forked from
    this one starts with an empty pool and leaves the parent's connections alone. Without `prepare` PostgreSQL keeps no
    statement for the next time, as a pooler may let another server have that. `waited` is called by whoever finds
    all connections in use. What the URL says of `options` and `connect_timeout` holds, but for the time-outs and UTC.
    """
    seconds, asked = timeout.total_seconds(), url.normalized_query
    if url.get_backend_name() == "sqlite":
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        connect_args: dict[str, Any] = {"timeout": seconds}
    else:
        milliseconds = round(seconds * 1000)
        ours = f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds} -c timezone=UTC"
        connect_args = {"options": " ".join((*asked.get("options", ()), ours))}
        if "connect_timeout" not in asked:
            connect_args["connect_timeout"] = max(2, round(seconds / 2))  # half is for a connection to be free
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        poolclass=_watched(waited) if waited else QueuePool,
        pool_size=pool,
        max_overflow=0,
        pool_use_lifo=True,  # the last one back is the warmest, in the database as well
        pool_timeout=seconds / 2,
        execution_options={"prepares": prepare},
        pool_reset_on_return=None,  # nothing is left open: whoever says BEGIN says COMMIT or ROLLBACK
        connect_args=connect_args,
    )
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def configure(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")
            connection.execute(f"PRAGMA synchronous = {sqlite_synchronous}")

    else:

        @event.listens_for(engine, "do_connect")
        def connect(_dialect: object, _record: object, args: Any, options: Any) -> ImpatientConnection:
            connection = ImpatientConnection.connect(*args, **options)
            connection.longest_wait_seconds = seconds + GRACE_SECONDS
            connection.prepares, connection.prepare_threshold = prepare, None
            connection.adapters.register_loader("uuid", TextLoader)
            return connection

    _leave_to_parent(engine)
    return engine


def _watched(waited: Callable[[], None]) -> type[QueuePool]:
    class WatchedPool(QueuePool):
        @override
        def connect(self) -> PoolProxiedConnection:
            if not self.checkedin() and self.checkedout() >= self.size():
                waited()
            return super().connect()

    return WatchedPool


def _leave_to_parent(engine: Engine) -> None:
    """Give a forked process an empty pool; the weak reference lets the engine go when its owner does."""
    known = weakref.ref(engine)

    def forget_connections() -> None:
        inherited = known()
        if inherited is not None:
            inherited.dispose(close=False)

    os.register_at_fork(after_in_child=forget_connections)
