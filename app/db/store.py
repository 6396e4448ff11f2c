"""How presence is stored: one transaction a method, whichever the database."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

from psycopg.errors import DeadlockDetected, LockNotAvailable, QueryCanceled, SerializationFailure
from sqlalchemy import Dialect, Engine
from typing_extensions import override

from app.db import statements
from app.db.database import Database, StoreUnavailable
from app.db.engine import NothingKept
from app.db.prepared import Prepared, Row
from app.db.statements import Part
from app.db.turns import Line, Place, Turns
from app.domain.aggregate import FADE_STEP, IMMINENT, UserState, stands
from app.domain.values import (
    EventKind,
    Preferred,
    Session,
    SessionKey,
    Shown,
    StatusMessage,
    WorkLocation,
    WorkLocationType,
    shown_as,
)

__all__ = ["Event", "EventLog", "PostgresStore", "SqliteStore", "Store", "StoreUnavailable", "make_store"]


T = TypeVar("T")


class Event(NamedTuple):
    """What is recorded of a change. `session_id` is the application that acted, NIL when none did."""

    tenant_id: str
    user_id: str
    session_id: str
    kind: EventKind
    now: datetime
    request_id: str | None
    availability: str | None = None
    activity: str | None = None
    expires_at: datetime | None = None
    actor: str | None = None


class Store(Database, ABC):
    """The presence of all tenants' users, in one database."""

    def __init__(self, engine: Engine, repeated: Callable[[str], None] | None = None) -> None:
        super().__init__(engine, repeated)
        self._read_user = self._prepared(statements.READ_USER)
        self._read_users = self._prepared(statements.READ_USERS[self._dialect.name])
        self._list_users = self._prepared(statements.LIST_USERS)
        self._count_users = self._prepared(statements.COUNT_USERS)

    def read_user(self, tenant_id: str, user_id: str) -> UserState:
        """Return all that is known of a user."""
        return _user_state(self._run(self._read_user, {"tenant_id": tenant_id, "user_id": user_id}))

    def read_users(self, tenant_id: str, user_ids: Sequence[str]) -> dict[str, UserState]:
        """Return all that is known of each of some users, in one query; every id is in the result, in this order."""
        found: dict[str, list[Row]] = {user_id: [] for user_id in user_ids}
        for row in self._rows_of(tenant_id, user_ids):
            found[row[USER_AT]].append(row)
        return {user_id: _user_state(rows) for user_id, rows in found.items()}

    @abstractmethod
    def _rows_of(self, tenant_id: str, user_ids: Sequence[str]) -> Iterable[Row]:
        """Return the rows that reading each of some users by himself would bring, in any order."""

    def list_users(self, tenant_id: str, after: str, most: int) -> list[str]:
        """Return the ids, in order, of the next users after one of whom anything is known."""
        rows = self._run(self._list_users, {"tenant_id": tenant_id, "after": after, "most": most})
        return [user_id for (user_id,) in rows]

    def count_users(self, tenant_id: str, after: str) -> int:
        """Return how many there are."""
        ((count,),) = self._run(self._count_users, {"tenant_id": tenant_id, "after": after})
        return int(count)

    @abstractmethod
    def set_session(
        self, key: SessionKey, shown: Shown, lifetime: timedelta, now: datetime, request_id: str
    ) -> Sequence[Session]:
        """Create or replace a session and return the user's sessions; a keep-alive appends no event."""

    @abstractmethod
    def end_session(
        self, key: SessionKey, now: datetime, request_id: str | None, actor: str | None = None
    ) -> Sequence[Session] | None:
        """End a live session and return those that remain; None when there was none to end.

        `actor` is who does it in the application's place.
        """

    @abstractmethod
    def set_part(self, part: Part, values: Mapping[str, object], event: Event) -> None:
        """Set a part of what is said of a user. `values` has each of the part's columns."""

    @abstractmethod
    def clear_parts(self, parts: tuple[Part, ...], event: Event) -> None:
        """Clear parts of what is said of a user; when none of them is there, nothing changes or is recorded."""


class EventLog:
    """Appends events where a statement cannot do it by itself: on SQLite, whose text of a moment adds up to nothing."""

    def __init__(self, dialect: Dialect) -> None:
        self._newest = Prepared(statements.NEWEST, dialect)
        self._insert = Prepared(statements.INSERT_EVENT, dialect)
        self._insert_as = Prepared(statements.INSERT_EVENT_AS, dialect)

    def record(self, cursor: Any, event: Event) -> None:
        """Append an event at its `now`, or just after the user's newest event if that is later."""
        ((newest,),) = self._newest.run(cursor, event._asdict())
        self.append(cursor, event, newest)

    def append(self, cursor: Any, event: Event, newest: datetime | None) -> datetime:
        """Append an event likewise, the newest one being known, and return its moment."""
        at = max(event.now, newest + timedelta(microseconds=1)) if newest else event.now
        insert = self._insert if event.actor is None else self._insert_as
        insert.run(cursor, {**event._asdict(), "at": at})
        return at


class _Asked(Place[list[Row]]):
    """A statement that waits to be run."""

    def __init__(self, statement: Prepared, parameters: Mapping[str, Any]) -> None:
        super().__init__(partial(statement.run, parameters=parameters), _nobody_came_back())
        self.statement, self.parameters = statement, parameters

    def rows_locked(self) -> list[str]:
        """Return the key, or the beginning of the keys, of the rows that it may lock."""
        return [self.parameters[name] for name in ("tenant_id", "user_id", "session_id") if name in self.parameters]


LINE_PATIENCE_SECONDS = 0.1
"""How long a statement waits for those before it to come back, before it goes to PostgreSQL by itself."""


class PostgresStore(Store):
    """One statement a mutation, and a transaction of those that come at the same time: the row is the lock."""

    def __init__(self, engine: Engine, repeated: Callable[[str], None] | None = None) -> None:
        super().__init__(engine, repeated)
        self._readers, self._writers = Line(LINE_PATIENCE_SECONDS), Line(LINE_PATIENCE_SECONDS)
        self._set_session = self._prepared(statements.SET_SESSION)
        self._end_session = self._prepared(statements.END_SESSION)
        self._end_session_as = self._prepared(statements.END_SESSION_AS)
        self._set_part = {part: self._prepared(it) for part, it in statements.SET_PART.items()}
        self._clear_parts = {parts: self._prepared(it) for parts, it in statements.CLEAR_PARTS.items()}

    @override
    def read_user(self, tenant_id: str, user_id: str) -> UserState:
        named = {"tenant_id": tenant_id, "user_id": user_id}
        return _user_state(self._run_together(self._readers, self._read_user, named))

    @override
    def _rows_of(self, tenant_id: str, user_ids: Sequence[str]) -> Iterable[Row]:
        return self._run(self._read_users, {"tenant_id": tenant_id, "user_ids": f"{{{','.join(user_ids)}}}"})

    @override
    def set_session(
        self, key: SessionKey, shown: Shown, lifetime: timedelta, now: datetime, request_id: str
    ) -> Sequence[Session]:
        parameters = {
            **key._asdict(),
            **shown._asdict(),
            "now": now,
            "faded_if_set_by": now - FADE_STEP,
            "expires_at": now + lifetime,
            "request_id": request_id,
        }
        return _sessions(self._run_together(self._writers, self._set_session, parameters))

    @override
    def end_session(
        self, key: SessionKey, now: datetime, request_id: str | None, actor: str | None = None
    ) -> Sequence[Session] | None:
        statement = self._end_session if actor is None else self._end_session_as
        parameters = {**key._asdict(), "now": now, "request_id": request_id, "actor": actor}
        rows = self._run_together(self._writers, statement, parameters)
        return _sessions(rows) if rows else None

    @override
    def set_part(self, part: Part, values: Mapping[str, object], event: Event) -> None:
        self._run(self._set_part[part], {**event._asdict(), **values})

    @override
    def clear_parts(self, parts: tuple[Part, ...], event: Event) -> None:
        self._run(self._clear_parts[parts], _of_user(event))

    def _run_together(self, line: Line, statement: Prepared, parameters: Mapping[str, Any]) -> list[Row]:
        """Run a statement on PostgreSQL as `_run` does, with those that others of this line want run at the time.

        They go in one round trip and one transaction. When the server refuses one, each is run again by itself, but
        for one that has waited in vain.
        """
        if not self._engine.get_execution_options()["prepares"]:
            return self._run(statement, parameters)
        place = _Asked(statement, parameters)
        try:
            leads = line.enter(place)
        except TimeoutError:  # whoever is out has met a lock, or a server that hangs
            return self._run(statement, parameters)
        if leads:
            try:
                self._ask([place, *cast("list[_Asked]", line.company())])
            finally:
                line.leave()
        if place.error:
            raise place.error
        return self._run(statement, parameters) if place.result is None else place.result

    def _ask(self, places: Sequence["_Asked"]) -> None:
        if len(places) == 1:
            places[0].error = None
            places[0].result = self._run(places[0].statement, places[0].parameters)
            return
        places = sorted(places, key=_Asked.rows_locked)  # who locks in one order never waits in a circle
        try:
            with self._cursor() as cursor:
                results = cursor.rows_of_all([(it.statement.sql, it.statement.values(it.parameters)) for it in places])
        except StoreUnavailable as error:
            for place in places:
                place.error = error
        except NothingKept as refused:
            if isinstance(refused.__cause__, DeadlockDetected | SerializationFailure):
                self._note(refused)
            for at, place in enumerate(places):
                waited = at == refused.at and isinstance(refused.__cause__, LockNotAvailable | QueryCanceled)
                place.error = StoreUnavailable() if waited else None  # it has waited as long as it may
                if place.error:
                    place.error.__cause__ = refused.__cause__
        else:
            for place, rows in zip(places, results, strict=True):
                place.result, place.error = place.statement.all_converted(rows), None


class SqliteStore(Store):
    """A few steps under the database's one write lock, which those who write at the same time take together."""

    _turns: Turns

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._put_session = self._prepared(statements.PUT_SESSION)
        self._delete_session = self._prepared(statements.DELETE_SESSION)
        self._events = EventLog(self._dialect)
        self._put_part = {part: self._prepared(it) for part, it in statements.PUT_PART.items()}
        self._drop_parts = {parts: self._prepared(it) for parts, it in statements.DROP_PARTS.items()}

    @override
    def _rows_of(self, tenant_id: str, user_ids: Sequence[str]) -> Iterable[Row]:
        ((rows,),) = self._run(self._read_users, {"tenant_id": tenant_id, "user_ids": json.dumps(user_ids)})
        return map(self._read_user.converted, json.loads(rows))

    @override
    def set_session(
        self, key: SessionKey, shown: Shown, lifetime: timedelta, now: datetime, request_id: str
    ) -> Sequence[Session]:
        def work(cursor: Any) -> Sequence[Session]:
            before, others, newest = self._look(cursor, key)
            changed_at = before.changed_at if before and stands(before, shown, now) else now
            after = Session(key.session_id, shown, changed_at, now, now + lifetime)
            self._put_session.run(cursor, {**key._asdict(), **_columns(after)})
            if before and before.expires_at <= now:
                expired = _session_event(key, EventKind.EXPIRED, before, before.expires_at, request_id)
                newest = self._events.append(cursor, expired, newest)
            if not (before and stands(before, shown, now + IMMINENT)):
                self._events.append(cursor, _session_event(key, EventKind.SET, after, now, request_id), newest)
            return [after, *others]

        return self._write_together(work)

    @override
    def end_session(
        self, key: SessionKey, now: datetime, request_id: str | None, actor: str | None = None
    ) -> Sequence[Session] | None:
        def work(cursor: Any) -> Sequence[Session] | None:
            ended, others, newest = self._look(cursor, key)
            if ended is None or ended.expires_at <= now:
                return None
            self._delete_session.run(cursor, key._asdict())
            event = _session_event(key, EventKind.CLEARED, ended, now, request_id)
            self._events.append(cursor, event._replace(actor=actor), newest)
            return others

        return self._write_together(work)

    @override
    def set_part(self, part: Part, values: Mapping[str, object], event: Event) -> None:
        def work(cursor: Any) -> None:
            self._put_part[part].run(cursor, {**event._asdict(), **values})
            self._events.record(cursor, event)

        self._write_together(work)

    @override
    def clear_parts(self, parts: tuple[Part, ...], event: Event) -> None:
        def work(cursor: Any) -> None:
            if self._drop_parts[parts].run(cursor, _of_user(event)):
                self._events.record(cursor, event)

        self._write_together(work)

    def _write_together(self, work: Callable[[Any], T]) -> T:
        """Run `work` on a cursor in one transaction with what others want written at the time.

        They share one commit, and so one wait for the disk. When one of them fails, each is run again by itself: so
        `work` keeps what it does nowhere but in the database.

        Raises:
            StoreUnavailable: the lock did not come in time, or the disk failed.
        """
        place = Place(work, _nobody_came_back())
        try:
            if self._turns.begin(place):
                try:
                    self._serve([place, *self._turns.line.company()])
                finally:
                    self._turns.end()
        except OSError as error:
            raise StoreUnavailable from error
        if place.error:
            raise place.error
        return cast("T", place.result)

    def _serve(self, places: Sequence[Place[Any]]) -> None:
        try:
            with self._transaction() as cursor:
                results = [place.work(cursor) for place in places if place.work]
        except StoreUnavailable as error:
            for place in places:
                place.error = error
        except Exception as error:
            if len(places) > 1:
                for place in places:
                    self._serve([place])
            else:
                places[0].error = error
        else:
            for place, result in zip(places, results, strict=True):
                place.result, place.error = result, None

    def _look(self, cursor: Any, key: SessionKey) -> tuple[Session | None, list[Session], datetime | None]:
        """Return the session, live or not, the user's others, and when the newest event about the user was recorded."""
        state = _user_state(self._read_user.run(cursor, key._asdict()))
        session = next((session for session in state.sessions if session.session_id == key.session_id), None)
        return session, [other for other in state.sessions if other is not session], state.recorded_at


def make_store(engine: Engine, repeated: Callable[[str], None] | None = None) -> Store:
    """Return the store for the engine's kind of database; what is `repeated` says app.db.database."""
    return PostgresStore(engine, repeated) if engine.dialect.name == "postgresql" else SqliteStore(engine)


def _nobody_came_back() -> StoreUnavailable:
    return StoreUnavailable("whoever went to the database for others did not come back")


def _session_event(key: SessionKey, kind: EventKind, session: Session, now: datetime, request_id: str | None) -> Event:
    return Event(*key, kind, now, request_id, *session.shown, session.expires_at)


def _of_user(event: Event) -> dict[str, object]:
    return {**event._asdict(), "of_tenant_id": event.tenant_id, "of_user_id": event.user_id}


def _user_state(rows: Sequence[Row]) -> UserState:
    """Return one user's rows of a read as what they say: each has a session, and from USER_AT on all are the same."""
    (
        _, recorded_at, availability, activity, preferred_until, message, published_at, message_until,
        manual, manual_place, manual_until, automatic, automatic_place, automatic_until,
    ) = rows[0][USER_AT:]  # fmt: skip
    return UserState(
        _sessions(rows),
        recorded_at,
        Preferred(shown_as(availability, activity), preferred_until) if availability else None,
        StatusMessage(message, published_at, message_until) if message else None,
        WorkLocation(WorkLocationType(manual), manual_place, manual_until) if manual else None,
        WorkLocation(WorkLocationType(automatic), automatic_place, automatic_until) if automatic else None,
    )


USER_AT = len(statements.STATE)


def _sessions(rows: Iterable[Row]) -> list[Session]:
    """Return the rows, which begin with STATE, as sessions; nulls there, from an outer join, are none."""
    return [Session(row[0], shown_as(row[1], row[2]), row[3], row[4], row[5]) for row in rows if row[0] is not None]


def _columns(session: Session) -> dict[str, object]:
    return {**session.shown._asdict(), **{n: getattr(session, n) for n in ("changed_at", "set_at", "expires_at")}}
