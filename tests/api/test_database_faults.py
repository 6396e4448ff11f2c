"""Whatever the database fails with, the caller is told to try again, and what was refused has not happened."""

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from flask import Flask
from sqlalchemy import URL, Engine, func, select

from app.db.engine import make_engine
from app.db.models import PresenceEvent
from app.domain.values import AWAY, IN_A_CALL
from app.factory import create_app
from config import Settings
from tests.builders import Application, Clock, Graph, assert_error, assert_ok
from tests.conftest import alembic_config

Fault = Callable[[Engine], AbstractContextManager[None]]

FAIL = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = '{}'; END $$;
CREATE TRIGGER fail BEFORE INSERT ON presence_event EXECUTE FUNCTION fail();
"""


@pytest.fixture(scope="module")
def flask_app(make_database: Callable[[], URL], jwks_file: Path, session_clock: Clock) -> Iterator[Flask]:
    """An application with one database connection, little patience, and a database that a test may harm."""
    url = make_database()
    command.upgrade(alembic_config(url), "head")
    app = create_app(
        Settings(
            presence_env="development",
            database_url=url,
            database_pool=1,
            database_timeout=timedelta(milliseconds=50),
            auth_jwks_uri=str(jwks_file),
        ),
        session_clock,
    )
    yield app
    app.extensions["engine"].dispose()


@contextmanager
def locked(engine: Engine) -> Iterator[None]:
    """Somebody else holds the lock that a write needs."""
    other = make_engine(engine.url, pool=1, timeout=timedelta(seconds=5))
    lock = "BEGIN IMMEDIATE" if engine.dialect.name == "sqlite" else "BEGIN; LOCK TABLE presence_session"
    with other.connect() as connection:
        connection.exec_driver_sql(lock)
        yield
        connection.exec_driver_sql("ROLLBACK")
    other.dispose()


@contextmanager
def exhausted(engine: Engine) -> Iterator[None]:
    """Every connection that this worker may have is in use."""
    with engine.connect():
        yield


@contextmanager
def full(engine: Engine) -> Iterator[None]:
    """SQLite's disk takes no more, which is noticed at COMMIT."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def damaged(engine: Engine) -> Iterator[None]:
    """The page of the file where SQLite's table of sessions begins holds nothing but zeros."""
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
        root = "SELECT rootpage FROM sqlite_master WHERE name = 'presence_session'"
        place = (connection.exec_driver_sql(root).scalar_one() - 1) * size
    with Path(str(engine.url.database)).open("r+b", buffering=0) as file:

        def replace(page: bytes) -> bytes:
            file.seek(place)
            before = file.read(size)
            file.seek(place)
            file.write(page)
            return before

        whole = replace(bytes(size))
        try:
            yield
        finally:
            replace(whole)


def failing(code: str) -> Fault:
    """PostgreSQL will not append an event, for the reason that this SQLSTATE names."""

    @contextmanager
    def fault(engine: Engine) -> Iterator[None]:
        admin = make_engine(engine.url, pool=1, timeout=timedelta(seconds=5))
        with admin.connect() as connection:
            connection.exec_driver_sql(FAIL.format(code))
            try:
                yield
            finally:
                connection.exec_driver_sql("DROP FUNCTION fail CASCADE")
        admin.dispose()

    return fault


def refuses_and_recovers(graph: Graph, engine: Engine, user: str, app: Application, fault: Fault) -> None:
    def events() -> int:
        with engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(PresenceEvent)).scalar_one()

    assert_ok(graph.shows(user, app, IN_A_CALL))
    before = events()
    with fault(engine):
        for refused in (graph.shows(user, app, AWAY), graph.clears(user, app)):
            assert_error(refused, 503, "ServiceUnavailable", "did not answer in time")
            assert int(refused.headers["Retry-After"]) > 0
    assert (events(), graph.presence_of(user, app)) == (before, IN_A_CALL)
    assert_ok(graph.clears(user, app))


@pytest.mark.parametrize("fault", [locked, exhausted])
def test_a_database_that_is_busy(graph: Graph, engine: Engine, alice: str, bot: Application, fault: Fault) -> None:
    refuses_and_recovers(graph, engine, alice, bot, fault)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("fault", [full, damaged])
def test_a_disk_that_fails(graph: Graph, engine: Engine, alice: str, bot: Application, fault: Fault) -> None:
    refuses_and_recovers(graph, engine, alice, bot, fault)


def test_a_batch_waits_for_the_database_once(
    graph: Graph, engine: Engine, alice: str, bot: Application, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"sessionId": bot.app_id, **IN_A_CALL._asdict()}
    headers = {"Content-Type": "application/json"}
    part = {"method": "POST", "url": f"/users/{alice}/presence/setPresence", "headers": headers, "body": body}
    made = [
        {**part, "id": "before", "url": "/users/x/presence/setPresence"},
        {**part, "id": "met"},
        {**part, "id": "after"},
        {**part, "id": "after that", "dependsOn": ["before"]},
        {**part, "id": "no url", "url": "//evil.example/"},
        {"id": "read", "method": "GET", "url": f"/users/{alice}/presence"},
    ]
    with locked(engine):
        parts = graph.post(bot, "/$batch", {"requests": made}).get_json()["responses"]
        assert [part["status"] for part in parts] == [400, 503, 503, 424, 400, 503]
        assert all(int(part["headers"]["Retry-After"]) > 0 for part in parts if part["status"] == 503)
    causes = [vars(record)["cause"] for record in caplog.records if record.message == "request refused"]
    assert ["earlier" in cause for cause in causes] == [False, True, True]
    again = graph.post(bot, "/$batch", {"requests": made[1:3]}).get_json()["responses"]
    assert [part["status"] for part in again] == [200, 200]


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "code",
    [
        pytest.param("08000", id="connection"),
        pytest.param("08006", id="connection broken"),
        pytest.param("25P03", id="idle in a transaction"),
        pytest.param("25P04", id="transaction timeout"),
        pytest.param("40001", id="serialization failure"),
        pytest.param("40003", id="nobody knows whether it happened"),
        pytest.param("40P01", id="deadlock"),
        pytest.param("53000", id="resources"),
        pytest.param("53100", id="disk full"),
        pytest.param("53200", id="out of memory"),
        pytest.param("53300", id="too many connections"),
        pytest.param("53400", id="configured limit"),
        pytest.param("55P03", id="lock not available"),
        pytest.param("57014", id="statement timeout"),
        pytest.param("57P01", id="server stopped"),
        pytest.param("57P02", id="server crashed"),
        pytest.param("57P03", id="server starting"),
        pytest.param("57P05", id="idle session"),
        pytest.param("58000", id="system"),
        pytest.param("58030", id="disk broken"),
        pytest.param("58P01", id="file missing"),
        pytest.param("XX000", id="internal"),
        pytest.param("XX001", id="data corrupted"),
        pytest.param("25006", id="a standby after a failover"),
    ],
)
def test_a_server_that_gives_up(graph: Graph, engine: Engine, alice: str, bot: Application, code: str) -> None:
    refuses_and_recovers(graph, engine, alice, bot, failing(code))
