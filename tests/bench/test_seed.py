"""What `make seed-users` leaves is what the service could have left itself."""

import runpy
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from sqlalchemy import URL, Engine, func, select, text

from app.db.engine import make_engine
from app.db.models import DirectoryUser, PresenceEvent, PresenceSession
from app.domain.values import EventKind
from tests.builders import new_id
from tests.conftest import alembic_config
from tests.services.test_concurrency import events, replay, sessions

USERS = 90


@pytest.fixture
def empty(make_database: Callable[[], URL]) -> URL:
    url = make_database()
    command.upgrade(alembic_config(url), "head")
    return url


def seed(url: URL, *arguments: str) -> str:
    """Seed as the command does; return what it refused with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
        patch.setattr(sys, "argv", ["seed", *arguments])
        try:
            runpy.run_module("bench.seed", run_name="__main__")
        except SystemExit as refused:
            return str(refused.code)
    return ""


def count(engine: Engine, table: type) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_seeded_users_have_live_sessions_that_their_history_leads_to(empty: URL) -> None:
    tenants = sorted(new_id() for _ in range(2))
    assert seed(empty, str(USERS), *(f"--tenant={tenant}" for tenant in tenants)) == ""
    engine = make_engine(empty, pool=1, timeout=timedelta(seconds=30))
    for tenant in tenants:
        told = [event for event in events(engine, tenant) if event[0] in {EventKind.SET, EventKind.CLEARED}]
        assert replay(told) == sessions(engine, tenant)
    assert (count(engine, PresenceSession), count(engine, DirectoryUser)) == (2 * USERS, USERS)
    with engine.connect() as connection:
        ends = connection.execute(select(func.min(PresenceSession.expires_at))).scalar_one()
        backwards = connection.execute(
            text(
                "SELECT count(*) FROM presence_event a JOIN presence_event b"
                " ON a.tenant_id = b.tenant_id AND a.user_id = b.user_id AND a.id < b.id AND a.at >= b.at"
            )
        ).scalar_one()
        kinds = set(connection.scalars(select(PresenceEvent.kind)))
        seen = connection.execute(text("SELECT DISTINCT tenant_id FROM presence_now WHERE live_sessions > 0"))
        assert sorted(map(str, seen.scalars())) == tenants
    assert ends > datetime.now(UTC)
    assert backwards == 0
    assert kinds >= {EventKind.PREFERRED_SET, EventKind.MESSAGE_SET, EventKind.LOCATION_SET}
    engine.dispose()


def test_a_database_that_holds_something_is_left_alone_unless_told(empty: URL) -> None:
    assert seed(empty, "3") == ""
    assert "not empty" in seed(empty, "3")
    assert seed(empty, "3", "--first", "3") == ""
    engine = make_engine(empty, pool=1, timeout=timedelta(seconds=30))
    assert count(engine, DirectoryUser) == 6
    engine.dispose()


def test_a_database_that_is_not_migrated_is_named(make_database: Callable[[], URL]) -> None:
    assert "alembic upgrade head" in seed(make_database(), "3")
