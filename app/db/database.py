"""A database as the stores use it: cursors of the pool, and what goes wrong with them said in one way."""

import logging
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, cast

from psycopg.errors import DeadlockDetected, ReadOnlySqlTransaction, SerializationFailure
from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from app.db.engine import ImpatientConnection
from app.db.prepared import Prepared, Row
from app.db.turns import Turns

log = logging.getLogger(__name__)

ATTEMPTS = 5
"""How often a statement is run at most, when each time it is given up for the sake of others."""
FIRST_PAUSE_SECONDS = 0.002
"""The longest pause before the second attempt; it doubles with each."""


class StoreUnavailable(Exception):
    """The database did not answer in time, or not at all. Whether a write was kept is not known."""


class Conflict(StoreUnavailable):
    """PostgreSQL gave a transaction up for the sake of others (SQLSTATE 40001 or 40P01). Nothing of it was kept."""


class Database:
    """Lends cursors and runs statements; what it stores, its subclasses know."""

    def __init__(self, engine: Engine, repeated: Callable[[str], None] | None = None) -> None:
        """`repeated` is called with the SQLSTATE whenever a statement has to be run again."""
        self._engine = engine
        self._dialect = engine.dialect
        self._driver = engine.dialect.loaded_dbapi
        self._patience_seconds = cast("QueuePool", engine.pool).timeout()
        self._turns: Turns | None = None
        if self._dialect.name == "sqlite":
            self._turns = Turns(Path(f"{engine.url.database}-turn"), self._patience_seconds)
        self._repeated = repeated

    def _prepared(self, statement: Any) -> Prepared:
        return Prepared(statement, self._dialect)

    def _run(self, statement: Prepared, parameters: Mapping[str, Any]) -> list[Row]:
        """Run a statement that is a transaction by itself, and again after a conflict: ATTEMPTS times at most, in time.

        Raises:
            StoreUnavailable: the database does not answer, or not in time, or there was a conflict each time.
        """
        deadline, attempt = monotonic() + self._patience_seconds, 1
        while True:
            try:
                with self._cursor() as cursor:
                    return statement.run(cursor, parameters)
            except Conflict as conflict:
                if attempt == ATTEMPTS or monotonic() > deadline:
                    raise
                self._note(conflict)
            sleep(random.uniform(0, FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)))  # noqa: S311  # a pause may be guessed
            attempt += 1

    def _note(self, conflict: Exception) -> None:
        """Tell that something is run again, for the conflict's cause."""
        sqlstate = str(getattr(conflict.__cause__, "sqlstate", None))
        log.warning("statement repeated", extra={"sqlstate": sqlstate})
        if self._repeated:
            self._repeated(sqlstate)

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        """Lend a cursor on a connection of the pool, which commits each statement by itself.

        Raises:
            StoreUnavailable: the database does not answer, or not in time.
        """
        try:
            connection = self._engine.raw_connection()
        except (PoolTimeoutError, OperationalError, InterfaceError, self._driver.Error) as error:
            raise StoreUnavailable from error
        try:
            cursor = self._open(connection)
            yield cursor
            cursor.close()
        except self._driver.Error as error:
            if isinstance(error, DeadlockDetected | SerializationFailure):
                raise Conflict from error
            demoted = isinstance(error, ReadOnlySqlTransaction)
            if demoted or self._dialect.is_disconnect(error, connection.dbapi_connection, None):
                connection.invalidate(error)
                self._engine.dispose()  # the others in the pool have lost their server, too
                raise StoreUnavailable from error
            driver = self._driver
            unspecific = type(error) is driver.DatabaseError  # SQLite says so of a file that is damaged
            if unspecific or isinstance(error, driver.OperationalError | driver.InterfaceError | driver.InternalError):
                raise StoreUnavailable from error
            raise
        finally:
            connection.close()

    @contextmanager
    def _write(self) -> Iterator[Any]:
        """Lend a cursor in one transaction, and commit it. On SQLite it holds the write lock from the start.

        Raises:
            StoreUnavailable: the database does not answer, or not in time; the lock may not have come in time.
        """
        with self._turn(), self._transaction() as cursor:  # a turn first: who waits takes no reader's connection
            yield cursor

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE" if self._turns else "BEGIN")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                cursor.connection.rollback()
                raise

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._turns is None:
            yield
            return
        try:
            self._turns.begin()
        except OSError as error:
            raise StoreUnavailable from error
        try:
            yield
        finally:
            self._turns.end()

    def _open(self, connection: PoolProxiedConnection) -> Any:
        if self._dialect.name == "postgresql":
            return cast("ImpatientConnection", connection.driver_connection).lasting_cursor
        return connection.cursor()
