"""The view presence_explained gives the same reasons in SQL as `explain`, on the database's own clock."""

from collections.abc import Mapping
from datetime import datetime
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from app.domain.aggregate import UserState
from app.domain.explain import explain
from app.domain.values import (
    AVAILABLE,
    AWAY,
    IN_A_CALL,
    PREFERABLE,
    Preferred,
    Session,
)
from tests.builders import new_id
from tests.property.test_presence_now import (
    HOUR,
    MINUTE,
    MOMENT,
    NONE,
    SHOWABLE,
    Placed,
    Users,
    a_moment_that_stands,
    around,
    many_users,
    optional,
    prefer,
    write,
)

COLUMNS = (
    "user_id", "availability", "activity", "rule", "preference",
    "preferred_availability", "preferred_activity", "preferred_expires_at",
    "session_id", "set_availability", "set_activity", "shows_availability", "shows_activity", "live", "place",
    "changed_at", "set_at", "turns_at", "expires_at",
)  # fmt: skip
MOMENTS = {"preferred_expires_at", "changed_at", "set_at", "turns_at", "expires_at"}

Row = dict[str, Any]


def view(connection: Connection, tenant_id: str) -> list[Row]:
    query = text(f"SELECT {', '.join(COLUMNS)} FROM presence_explained WHERE tenant_id = :tenant_id")  # noqa: S608
    rows = [dict(row) for row in connection.execute(query, {"tenant_id": tenant_id}).mappings()]
    for row in rows:
        row.update({name: optional(row[name]) for name in MOMENTS})
        row.update({name: row[name] and str(row[name]) for name in ("user_id", "session_id")})
        row["live"] = None if row["live"] is None else bool(row["live"])
    return sorted(rows, key=_key)


def explained(users: Users, preferences: Mapping[str, Preferred], now: datetime) -> list[Row]:
    """What the view should say: a row for each session, or one for a user without any."""
    rows = []
    for user_id, sessions in users.items():
        preferred = preferences.get(user_id)
        said = explain(UserState(sessions, None, preferred), now)
        of_user = {
            "user_id": user_id,
            **said.presence.shown._asdict(),
            "rule": said.rule,
            "preference": said.preference,
            "preferred_availability": preferred and preferred.shown.availability,
            "preferred_activity": preferred and preferred.shown.activity,
            "preferred_expires_at": preferred and preferred.expires_at,
        }
        for place, each in enumerate(said.sessions, 1):
            session = each.session
            rows.append(
                {
                    **of_user,
                    "session_id": session.session_id,
                    "set_availability": session.shown.availability,
                    "set_activity": session.shown.activity,
                    "shows_availability": each.shows.availability,
                    "shows_activity": each.shows.activity,
                    "live": each.live,
                    "place": place if each.live else None,
                    "changed_at": session.changed_at,
                    "set_at": session.set_at,
                    "turns_at": each.ahead[0].at if each.ahead else None,
                    "expires_at": session.expires_at,
                }
            )
        if not sessions:
            rows.append({**dict.fromkeys(COLUMNS), **of_user})
    return sorted(rows, key=_key)


def _key(row: Row) -> tuple[str, str]:
    return row["user_id"], row["session_id"] or ""


@given(
    many_users,
    st.lists(st.tuples(st.sampled_from(PREFERABLE), st.sampled_from([-MOMENT, NONE, MOMENT, HOUR])), max_size=8),
    st.integers(0, 2),
)
@settings(max_examples=100)
def test_for_every_session_the_view_says_what_explain_says(
    engine: Engine, users: dict[str, list[Placed]], said: list[Any], absent: int
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
        everybody = {**rows, **{user_id: list[Session]() for user_id in silent if user_id in preferences}}
        assert view(connection, tenant_id) == explained(everybody, preferences, now)


@pytest.mark.parametrize("older", [0, 1, 2])
def test_of_every_pair_of_sessions_the_view_names_the_same_rule(engine: Engine, older: int) -> None:
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
        found = view(connection, tenant_id)
        assert found == explained(rows, {}, now)
    assert {row["rule"] for row in found} == {"mostSignificant", "smallerId" if older == 2 else "setLast"}


def test_a_turn_is_told_to_the_microsecond(engine: Engine) -> None:
    tenant_id, alice = new_id(), new_id()
    placed = [
        Placed(new_id(), AVAILABLE, HOUR, MINUTE, HOUR),
        Placed(new_id(), AVAILABLE, HOUR, 6 * MINUTE, HOUR),
        Placed(new_id(), AVAILABLE, HOUR, MINUTE, 4 * MINUTE),
        Placed(new_id(), AVAILABLE, HOUR, 6 * MINUTE, 4 * MINUTE),
        Placed(new_id(), AWAY, HOUR, MINUTE, HOUR),
        Placed(new_id(), IN_A_CALL, HOUR, MINUTE, NONE),
    ]
    with a_moment_that_stands(engine) as (connection, now):
        for second, microsecond in ((59, 999_999), (0, 1)):
            sessions = [
                session._replace(set_at=session.set_at.replace(second=second, microsecond=microsecond))
                for session in around({alice: placed}, now)[alice]
            ]
            rows = {(user := new_id()): sessions}
            write(connection, tenant_id, rows)
            assert [row for row in view(connection, tenant_id) if row["user_id"] == user] == explained(rows, {}, now)
