"""The view presence_now gives the same answer in SQL as `aggregate`, on the database's own clock."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, insert, text

from app.db.models import PresenceSession, PresenceUser
from app.domain.aggregate import UserState, aggregate, presence_of
from app.domain.values import (
    AVAILABLE,
    AWAY,
    IN_A_CALL,
    IN_A_CONFERENCE_CALL,
    OFFLINE,
    PREFERABLE,
    SETTABLE,
    Preferred,
    Session,
    Shown,
)
from tests.builders import new_id

NONE = timedelta(0)
MOMENT = timedelta(milliseconds=1)
"""The finest step of SQLite's clock."""
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DATABASE_NOW = {"sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f000+00:00', 'now')", "postgresql": "SELECT now()"}

Users = dict[str, list[Session]]


class Row(NamedTuple):
    """A row of the view, but for the tenant."""

    user_id: str
    availability: str
    activity: str
    session_id: str | None
    live_sessions: int
    changed_at: datetime | None
    expires_at: datetime | None


def moment(value: Any) -> datetime:
    return (value if isinstance(value, datetime) else datetime.fromisoformat(value)).astimezone(UTC)


def database_now(connection: Connection) -> datetime:
    return moment(connection.execute(text(DATABASE_NOW[connection.dialect.name])).scalar_one())


@contextmanager
def a_moment_that_stands(engine: Engine) -> Iterator[tuple[Connection, datetime]]:
    """Stop the database's clock, and forget at the end what was written meanwhile."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":  # now() is when the transaction began
            with connection.execution_options(isolation_level="READ COMMITTED").begin() as transaction:
                yield connection, database_now(connection)
                transaction.rollback()
            return
        raw: Any = connection.connection.driver_connection
        now, clock = database_now(connection), sqlite3.connect(":memory:")

        def stopped(form: str, *when: str) -> str:
            said = [now.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] if word == "now" else word for word in when]
            return str(clock.execute(f"SELECT strftime(?{', ?' * len(said)})", (form, *said)).fetchone()[0])

        raw.create_function("strftime", -1, stopped)
        connection.exec_driver_sql("BEGIN")
        try:
            yield connection, now
        finally:
            connection.exec_driver_sql("ROLLBACK")
            connection.invalidate()  # the function stays with the connection
            clock.close()


def write(connection: Connection, tenant_id: str, users: Users) -> None:
    rows = [
        {
            "tenant_id": tenant_id,
            "user_id": user_id,
            "session_id": session.session_id,
            **session.shown._asdict(),
            "changed_at": session.changed_at,
            "set_at": session.set_at,
            "expires_at": session.expires_at,
        }
        for user_id, sessions in users.items()
        for session in sessions
    ]
    if rows:
        connection.execute(insert(PresenceSession), rows)


def prefer(connection: Connection, tenant_id: str, preferences: Mapping[str, Preferred]) -> None:
    rows = [
        {
            "tenant_id": tenant_id,
            "user_id": user_id,
            "preferred_availability": preferred.shown.availability,
            "preferred_activity": preferred.shown.activity,
            "preferred_expires_at": preferred.expires_at,
        }
        for user_id, preferred in preferences.items()
    ]
    if rows:
        connection.execute(insert(PresenceUser), rows)


def view(connection: Connection, tenant_id: str) -> set[Row]:
    found = connection.execute(
        text(f"SELECT {', '.join(Row._fields)} FROM presence_now WHERE tenant_id = :tenant_id"),  # noqa: S608
        {"tenant_id": tenant_id},
    )
    return {
        Row(str(user), availability, activity, str(session) if session else None, live, *map(optional, moments))
        for user, availability, activity, session, live, *moments in found
    }


def optional(value: Any) -> datetime | None:
    return None if value is None else moment(value)


def aggregated(users: Users, now: datetime) -> set[Row]:
    """What the view should say. The winner is the live session that stands before every other one."""
    rows = set()
    for user_id, sessions in users.items():
        live = [session for session in sessions if session.expires_at > now]
        winner = next((session for session in live if all(wins(session, other, now) for other in live)), None)
        shown = aggregate(sessions, now)
        if winner is None:
            assert shown == OFFLINE
            rows.add(Row(user_id, *shown, None, 0, None, None))
        else:
            assert shown == aggregate([winner], now)
            rows.add(Row(user_id, *shown, winner.session_id, len(live), winner.changed_at, winner.expires_at))
    return rows


def preferring(rows: set[Row], preferences: Mapping[str, Preferred], now: datetime) -> set[Row]:
    """What the view should say of users whose sessions say `rows`, and who prefer something."""
    return {
        row._replace(availability=preferred.shown.availability, activity=preferred.shown.activity)
        if (preferred := preferences.get(row.user_id)) and preferred.expires_at > now and row.live_sessions
        else row
        for row in rows
    }


def wins(session: Session, other: Session, now: datetime) -> bool:
    """Whether a session stands before another one. Of two that show the same, `aggregate` cannot tell which does."""
    alone, against = aggregate([session], now), aggregate([other], now)
    if alone != against:
        return aggregate([session, other], now) == alone
    return (other.changed_at, session.session_id) <= (session.changed_at, other.session_id)


class Placed(NamedTuple):
    """A session, placed around a moment that is not known yet."""

    session_id: str
    shown: Shown
    changed: timedelta
    idle: timedelta
    left: timedelta

    def around(self, now: datetime) -> Session:
        return Session(self.session_id, self.shown, now - self.changed, now - self.idle, now + self.left)


def around(users: dict[str, list[Placed]], now: datetime) -> Users:
    return {user_id: [placed.around(now) for placed in sessions] for user_id, sessions in users.items()}


def steps(*edges: timedelta) -> st.SearchStrategy[timedelta]:
    return st.builds(lambda edge, by: edge + by * MOMENT, st.sampled_from(edges), st.integers(-1, 1))


many_users = st.dictionaries(
    st.uuids().map(str),
    st.lists(
        st.builds(
            Placed,
            st.uuids().map(str),
            st.sampled_from(SETTABLE),
            changed=st.sampled_from([NONE, MINUTE, 10 * MINUTE, HOUR]),
            idle=steps(NONE, MINUTE, 5 * MINUTE, 10 * MINUTE, HOUR, -MINUTE),
            left=steps(NONE, MINUTE, HOUR, -MINUTE),
        ).filter(lambda placed: placed.left + placed.idle > NONE),
        min_size=1,
        max_size=5,
        unique_by=lambda placed: placed.session_id,
    ),
    max_size=6,
)


@given(many_users)
@settings(max_examples=100)
def test_for_every_user_the_view_says_what_aggregate_says(engine: Engine, users: dict[str, list[Placed]]) -> None:
    tenant_id = new_id()
    with a_moment_that_stands(engine) as (connection, now):
        rows = around(users, now)
        write(connection, tenant_id, rows)
        assert view(connection, tenant_id) == aggregated(rows, now)


@given(
    many_users,
    st.lists(
        st.tuples(st.sampled_from(PREFERABLE), st.sampled_from([-MOMENT, NONE, MOMENT, HOUR])), min_size=1, max_size=8
    ),
    st.integers(0, 2),
)
@settings(max_examples=100)
def test_a_preference_shows_in_the_view_while_it_and_a_session_live(
    engine: Engine, users: dict[str, list[Placed]], said: list[tuple[Shown, timedelta]], absent: int
) -> None:
    tenant_id = new_id()
    silent = [new_id() for _ in range(absent)]
    with a_moment_that_stands(engine) as (connection, now):
        rows = around(users, now)
        preferences = {
            user_id: Preferred(shown, now + left)
            for user_id, (shown, left) in zip([*silent, *rows], said, strict=False)
        }
        write(connection, tenant_id, rows)
        prefer(connection, tenant_id, preferences)
        without_session = {user_id: list[Session]() for user_id in silent if user_id in preferences}
        expected = preferring(aggregated({**rows, **without_session}, now), preferences, now)
        assert view(connection, tenant_id) == expected
        for user_id, sessions in rows.items():
            (row,) = (row for row in expected if row.user_id == user_id)
            state = UserState(sessions, None, preferences.get(user_id))
            assert presence_of(state, now).shown == (row.availability, row.activity)


SHOWABLE = [(shown, idle) for shown in SETTABLE for idle in (MINUTE, 6 * MINUTE, 11 * MINUTE)]


@pytest.mark.parametrize("older", [0, 1])
def test_of_every_pair_of_sessions_the_view_lets_the_same_one_win(engine: Engine, older: int) -> None:
    tenant_id = new_id()
    users = {
        new_id(): [
            Placed(new_id(), shown, (2 if place == older else 1) * HOUR, idle, HOUR)
            for place, (shown, idle) in enumerate(pair)
        ]
        for pair in combinations(SHOWABLE, 2)
    }
    with a_moment_that_stands(engine) as (connection, now):
        rows = around(users, now)
        write(connection, tenant_id, rows)
        assert view(connection, tenant_id) == aggregated(rows, now)


@pytest.mark.parametrize("smaller", [IN_A_CALL, IN_A_CONFERENCE_CALL])
def test_of_two_busy_sessions_of_one_moment_the_view_takes_the_smaller_id(engine: Engine, smaller: Shown) -> None:
    tenant_id, alice = new_id(), new_id()
    larger = IN_A_CALL if smaller == IN_A_CONFERENCE_CALL else IN_A_CONFERENCE_CALL
    ids = sorted([new_id(), new_id()])
    pair = [Placed(ids[0], smaller, HOUR, MINUTE, HOUR), Placed(ids[1], larger, HOUR, NONE, HOUR)]
    with a_moment_that_stands(engine) as (connection, now):
        write(connection, tenant_id, around({alice: pair}, now))
        assert [(row.activity, row.session_id) for row in view(connection, tenant_id)] == [(smaller.activity, ids[0])]


def test_the_view_follows_the_databases_running_clock(engine: Engine) -> None:
    tenant_id = new_id()
    margin = MINUTE  # from every edge: the clock runs while the rows are written and read
    shows: Sequence[tuple[Shown, timedelta, timedelta, str]] = [
        (AVAILABLE, NONE, margin, "Available/Available"),
        (AVAILABLE, 5 * MINUTE - margin, margin, "Available/Available"),
        (AVAILABLE, 5 * MINUTE + margin, margin, "Available/AvailableInactive"),
        (AVAILABLE, 10 * MINUTE - margin, margin, "Available/AvailableInactive"),
        (AVAILABLE, 10 * MINUTE + margin, margin, "Away/Away"),
        (AVAILABLE, -margin, 2 * margin, "Available/Available"),
        (AWAY, HOUR, margin, "Away/Away"),
        (IN_A_CALL, HOUR, margin, "Busy/InACall"),
        (IN_A_CALL, HOUR, -margin, "Offline/Offline"),
    ]
    users = {new_id(): case for case in shows}
    with engine.connect() as connection:
        now = database_now(connection)
        placed = {user: [Placed(new_id(), shown, idle, idle, left)] for user, (shown, idle, left, _) in users.items()}
        write(connection, tenant_id, around(placed, now))
        seen = {row.user_id: f"{row.availability}/{row.activity}" for row in view(connection, tenant_id)}
    assert seen == {user: expected for user, (_, _, _, expected) in users.items()}
