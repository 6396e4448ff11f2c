"""How a presence session is stored: one transaction a method, whichever the database."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from typing_extensions import override

from app.db import statements
from app.domain.aggregate import FADE_STEP, UserState, shown_at
from app.domain.values import EventKind, Session, SessionKey, Shown


class StoreUnavailable(Exception):
    """The database did not answer in time, or not at all. Whether a write was kept is not known."""


class Store(ABC):
    """The sessions and events of all tenants, in one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read_user(self, tenant_id: str, user_id: str) -> UserState:
        """Return all that is known of a user."""
        with self._connection() as connection:
            rows = connection.execute(statements.READ_USER, {"tenant_id": tenant_id, "user_id": user_id}).all()
        return UserState(_sessions(row[1:] for row in rows), rows[0].recorded_at)

    @abstractmethod
    def set_session(
        self, key: SessionKey, shown: Shown, lifetime: timedelta, now: datetime, request_id: str
    ) -> Sequence[Session]:
        """Create or replace a session and return the user's sessions; a keep-alive appends no event."""

    @abstractmethod
    def end_session(self, key: SessionKey, now: datetime, request_id: str) -> Sequence[Session] | None:
        """End a live session and return those that remain; None when there was none to end."""

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except (OperationalError, InterfaceError, PoolTimeoutError) as error:
            raise StoreUnavailable from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise StoreUnavailable from error
            raise


class PostgresStore(Store):
    """One statement a mutation, autocommitted: the row is the lock."""

    @override
    def set_session(
        self, key: SessionKey, shown: Shown, lifetime: timedelta, now: datetime, request_id: str
    ) -> Sequence[Session]:
        with self._connection() as connection:
            parameters = {
                **key._asdict(),
                **shown._asdict(),
                "now": now,
                "faded_if_set_by": now - FADE_STEP,
                "expires_at": now + lifetime,
                "request_id": request_id,
            }
            return _sessions(connection.execute(statements.SET_SESSION, parameters))

    @override
    def end_session(self, key: SessionKey, now: datetime, request_id: str) -> Sequence[Session] | None:
        with self._connection() as connection:
            parameters = {**key._asdict(), "now": now, "request_id": request_id}
            rows = connection.execute(statements.END_SESSION, parameters).all()
        return _sessions(rows) if rows else None


class SqliteStore(Store):
    """A few steps under the database's one write lock, taken at the start."""

    @override
    def set_session(
        self, key: SessionKey, shown: Shown, lifetime: timedelta, now: datetime, request_id: str
    ) -> Sequence[Session]:
        with self._write() as connection:
            found = _sessions(connection.execute(statements.READ_SESSION, key._asdict()))
            before = found[0] if found else None
            if before and before.expires_at <= now:
                self._record(connection, key, EventKind.EXPIRED, before, before.expires_at, request_id)
            stands = before and before.expires_at > now and before.shown == shown == shown_at(before, now)
            after = Session(key.session_id, shown, before.changed_at if before and stands else now, now, now + lifetime)
            connection.execute(statements.PUT_SESSION, {**key._asdict(), **_columns(after)})
            if not stands:
                self._record(connection, key, EventKind.SET, after, now, request_id)
            return [after, *_sessions(connection.execute(statements.READ_OTHER_SESSIONS, key._asdict()))]

    @override
    def end_session(self, key: SessionKey, now: datetime, request_id: str) -> Sequence[Session] | None:
        with self._write() as connection:
            ended = _sessions(connection.execute(statements.DELETE_LIVE_SESSION, {**key._asdict(), "now": now}))
            if not ended:
                return None
            self._record(connection, key, EventKind.CLEARED, ended[0], now, request_id)
            return _sessions(connection.execute(statements.READ_OTHER_SESSIONS, key._asdict()))

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._connection() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")

    def _record(
        self,
        connection: Connection,
        key: SessionKey,
        kind: EventKind,
        session: Session,
        moment: datetime,
        request_id: str,
    ) -> None:
        """Append an event at `moment`, or just after the user's newest event if that is later."""
        newest = connection.execute(statements.NEWEST, key._asdict()).scalar_one()
        event = {
            **key._asdict(),
            **session.shown._asdict(),
            "kind": kind,
            "at": max(moment, newest + timedelta(microseconds=1)) if newest else moment,
            "expires_at": session.expires_at,
            "request_id": request_id,
        }
        connection.execute(statements.INSERT_EVENT, event)


def make_store(engine: Engine) -> Store:
    """Return the store for the engine's kind of database."""
    return PostgresStore(engine) if engine.dialect.name == "postgresql" else SqliteStore(engine)


def _sessions(rows: Iterable[Sequence[Any]]) -> list[Session]:
    """Return the rows as sessions; a row of nulls, from an outer join, is none."""
    return [
        Session(session_id, Shown(availability, activity), changed_at, set_at, expires_at)
        for session_id, availability, activity, changed_at, set_at, expires_at in rows
        if session_id is not None
    ]


def _columns(session: Session) -> dict[str, object]:
    return {**session.shown._asdict(), **{n: getattr(session, n) for n in ("changed_at", "set_at", "expires_at")}}
