"""The connection pool of one worker process."""

import os
import sqlite3
import weakref
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.types.string import TextLoader
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.pool import PoolProxiedConnection, QueuePool
from typing_extensions import override

GRACE_SECONDS = 1
"""How much longer than the server's own time-outs a client waits for the server to tell of them."""


class ImpatientConnection(psycopg.Connection[Any]):
    """A connection that a hung server (stopped, swapped out, cut off) holds up for `longest_wait_seconds` at most.

    statement_timeout is the server's, and a server that hangs does not look at it. The connection is closed then, and
    whether the server carries the statement out once it goes on is not known.
    """

    longest_wait_seconds: float | None = None

    @override
    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.longest_wait_seconds if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:  # the answer is still to come
                self.close()
            raise


def make_engine(
    url: URL,
    *,
    pool: int,
    timeout: timedelta,
    sqlite_synchronous: str = "FULL",
    waited: Callable[[], None] | None = None,
) -> Engine:
    """Return an engine whose every wait (for a connection, a lock, a statement) ends after `timeout`, or soon after.

    Each statement commits by itself unless it stands between a BEGIN and a COMMIT of our own. A process forked from
    this one starts with an empty pool and leaves the parent's connections alone. `waited` is called by whoever finds
    all connections in use.
    """
    seconds = timeout.total_seconds()
    if url.get_backend_name() == "sqlite":
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        connect_args: dict[str, Any] = {"timeout": seconds}
    else:
        milliseconds = round(seconds * 1000)
        connect_args = {
            "connect_timeout": max(2, round(seconds / 2)),  # half for a connection to be free, half to make one
            "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds} -c timezone=UTC",
        }
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        poolclass=_watched(waited) if waited else QueuePool,
        pool_size=pool,
        max_overflow=0,
        pool_timeout=seconds / 2,
        pool_reset_on_return=None,  # nothing is left open: whoever says BEGIN says COMMIT or ROLLBACK
        connect_args=connect_args,
    )
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def prepare(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {sqlite_synchronous}")

    else:

        @event.listens_for(engine, "do_connect")
        def connect(_dialect: object, _record: object, args: Any, options: Any) -> ImpatientConnection:
            connection = ImpatientConnection.connect(*args, **options)
            connection.longest_wait_seconds = seconds + GRACE_SECONDS
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
