"""PostgreSQL gives a statement up for the sake of others, by deadlock or serialization failure, and it is run again."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, Connection, Engine, event, text

from app.db.database import ATTEMPTS
from app.db.engine import make_engine
from app.db.store import PostgresStore, Store, StoreUnavailable, make_store
from app.domain.values import AWAY, IN_A_CALL, SessionKey
from app.factory import create_app
from config import Settings
from tests.builders import START, Clock, Graph, assert_error, new_id
from tests.servers import free_port
from tests.services.test_store import asking_at_once

HOUR = timedelta(hours=1)
PATIENCE = timedelta(seconds=60)
GATE, OURS, THEIRS = 1, 2, 3
"""Advisory locks; `OURS` is the one that our statement takes first, `THEIRS` the one that the other side holds."""

pytestmark = pytest.mark.parametrize("kind", ["postgresql"], indirect=True, scope="session")


@pytest.fixture
def key() -> SessionKey:
    return SessionKey(new_id(), new_id(), new_id())


@pytest.fixture
def others(database: URL) -> Iterator[Engine]:
    """Connections of somebody else."""
    engine = make_engine(database, pool=3, timeout=PATIENCE)
    yield engine
    engine.dispose()


@contextmanager
def store_with(database: URL, setting: str) -> Iterator[tuple[Store, list[str]]]:
    """A store whose connections have this setting of the server, and what it had to repeat."""
    engine = make_engine(database, pool=2, timeout=PATIENCE)

    @event.listens_for(engine, "connect")
    def configure(connection: psycopg.Connection[Any], _record: object) -> None:
        connection.execute(f"SET {setting}".encode())

    repeats: list[str] = []
    yield make_store(engine, repeats.append), repeats
    engine.dispose()


@contextmanager
def whenever_an_event_is_appended(engine: Engine, *does: str) -> Iterator[None]:
    with engine.connect() as connection:
        connection.exec_driver_sql(
            f"CREATE FUNCTION disturb() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {' '.join(does)} END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER disturb BEFORE INSERT ON presence_event FOR EACH ROW EXECUTE FUNCTION disturb()"
        )
        try:
            yield
        finally:
            connection.exec_driver_sql("DROP FUNCTION disturb CASCADE")


def waiting(connection: Connection) -> int:
    """How many wait for a lock in this database."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return int(connection.execute(text(query)).scalar_one())


def until(holds: Callable[[], bool], unless: Callable[[], bool]) -> None:
    while not holds():
        assert not unless()


def kinds(engine: Engine, key: SessionKey) -> list[str]:
    query = text("SELECT kind FROM presence_event WHERE user_id = :user ORDER BY id")
    with engine.connect() as connection:
        return list(connection.execute(query, {"user": key.user_id}).scalars())


def test_a_write_that_cannot_be_serialized_is_run_again(
    database: URL, others: Engine, key: SessionKey, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        store_with(database, "default_transaction_isolation = 'repeatable read'") as (store, repeats),
        ThreadPoolExecutor(1) as threads,
        others.connect() as other,
        others.connect() as watcher,
    ):
        store.set_session(key, IN_A_CALL, HOUR, START, new_id())
        assert repeats == []
        other.exec_driver_sql("BEGIN")
        other.execute(text("DELETE FROM presence_session WHERE user_id = :user"), {"user": key.user_id})
        clearing = threads.submit(store.end_session, key, START, new_id())
        until(lambda: waiting(watcher) == 1, unless=clearing.done)
        with caplog.at_level(logging.WARNING, "app.db"):
            other.exec_driver_sql("COMMIT")
            assert clearing.result() is None  # the second attempt finds nothing to end
        assert repeats == ["40001"]
        assert [vars(record)["sqlstate"] for record in caplog.records] == ["40001"]
    assert kinds(others, key) == ["set"]


def test_a_transaction_of_several_that_cannot_be_serialized_is_run_again_one_by_one(
    database: URL, others: Engine, key: SessionKey
) -> None:
    neighbour = key._replace(user_id=new_id())
    with (
        store_with(database, "default_transaction_isolation = 'repeatable read'") as (store, repeats),
        ThreadPoolExecutor(1) as threads,
        others.connect() as other,
        others.connect() as watcher,
    ):
        assert isinstance(store, PostgresStore)
        store.set_session(key, IN_A_CALL, HOUR, START, new_id())
        other.exec_driver_sql("BEGIN")
        other.execute(text("DELETE FROM presence_session WHERE user_id = :user"), {"user": key.user_id})
        clear = partial(store.end_session, key, START, new_id())
        show = partial(store.set_session, neighbour, AWAY, HOUR, START, new_id())

        def both() -> list[Any]:
            with asking_at_once(store._writers, [clear, show]) as asking:
                pass
            return [asked.result() for asked in asking]

        asked = threads.submit(both)
        until(lambda: waiting(watcher) == 1, unless=asked.done)
        other.exec_driver_sql("COMMIT")
        cleared, shown = asked.result()
        assert cleared is None  # the second attempt finds nothing to end
        assert [session.shown for session in shown] == [AWAY]
        assert repeats == ["40001"]
    assert (kinds(others, key), kinds(others, neighbour)) == (["set"], ["set"])


def test_a_write_that_a_deadlock_ends_is_run_again(database: URL, others: Engine, key: SessionKey) -> None:
    locks = [f"PERFORM pg_advisory_xact_lock({number});" for number in (OURS, GATE, THEIRS)]
    with (
        store_with(database, "deadlock_timeout = '10ms'") as (store, repeats),
        whenever_an_event_is_appended(others, *locks, "RETURN NEW;"),
        ThreadPoolExecutor(2) as threads,
        others.connect() as other,
        others.connect() as watcher,
    ):
        watcher.exec_driver_sql(f"SELECT pg_advisory_lock({GATE})")
        other.exec_driver_sql(f"SET deadlock_timeout = '60s'; BEGIN; SELECT pg_advisory_xact_lock({THEIRS})")
        setting = threads.submit(store.set_session, key, IN_A_CALL, HOUR, START, new_id())
        until(lambda: waiting(watcher) == 1, unless=setting.done)
        theirs = threads.submit(other.exec_driver_sql, f"SELECT pg_advisory_xact_lock({OURS})")
        until(lambda: waiting(watcher) == 2, unless=theirs.done)
        watcher.exec_driver_sql(f"SELECT pg_advisory_unlock({GATE})")  # ours goes on to THEIRS, and the circle closes
        theirs.result()
        other.exec_driver_sql("COMMIT")
        assert [session.shown for session in setting.result()] == [IN_A_CALL]
        assert repeats == ["40P01"]
    assert kinds(others, key) == ["set"]


@pytest.mark.parametrize(("sqlstate", "repeated"), [("40001", ["40001"] * ATTEMPTS), ("53100", [])])
def test_a_commit_that_is_refused_is_so_for_the_one_who_is_to_blame(
    database: URL, others: Engine, key: SessionKey, sqlstate: str, repeated: list[str]
) -> None:
    innocent = key._replace(user_id=new_id())
    blamed = f"IF NEW.user_id = '{key.user_id}' THEN RAISE 'no' USING ERRCODE = '{sqlstate}'; END IF; RETURN NULL;"
    with (
        store_with(database, "timezone = 'UTC'") as (store, repeats),
        others.connect() as connection,
        whenever_an_event_is_appended(others, blamed),
    ):
        connection.exec_driver_sql("DROP TRIGGER disturb ON presence_event")
        connection.exec_driver_sql(
            "CREATE CONSTRAINT TRIGGER disturb AFTER INSERT ON presence_event DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION disturb()"
        )
        assert isinstance(store, PostgresStore)
        works = [partial(store.set_session, each, AWAY, HOUR, START, new_id()) for each in (key, innocent)]
        with asking_at_once(store._writers, works) as (refused, kept):
            pass
        assert isinstance(refused.exception(), StoreUnavailable)
        assert [session.shown for session in kept.result()] == [AWAY]
        assert repeats == repeated
    assert (kinds(others, key), kinds(others, innocent)) == ([], ["set"])


def test_nothing_is_run_again_once_time_is_up(
    database: URL, others: Engine, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        store_with(database, "timezone = 'UTC'") as (store, repeats),
        whenever_an_event_is_appended(others, "RAISE 'again' USING ERRCODE = '40001';"),
    ):
        moments = iter([0.0, PATIENCE.total_seconds()])
        monkeypatch.setattr("app.db.database.monotonic", lambda: next(moments))
        with pytest.raises(StoreUnavailable):
            store.set_session(key, AWAY, HOUR, START, new_id())
        assert repeats == []


def test_what_fails_each_time_is_given_up(database: URL, others: Engine, key: SessionKey) -> None:
    with (
        store_with(database, "timezone = 'UTC'") as (store, repeats),
        whenever_an_event_is_appended(others, "RAISE 'again' USING ERRCODE = '40001';"),
    ):
        with pytest.raises(StoreUnavailable):
            store.set_session(key, AWAY, HOUR, START, new_id())
        assert repeats == ["40001"] * (ATTEMPTS - 1)
    assert kinds(others, key) == []


def test_repeats_are_counted_for_prometheus(database: URL, others: Engine, jwks_file: Path, key: SessionKey) -> None:
    settings = Settings(
        presence_env="development", database_url=database, auth_jwks_uri=str(jwks_file), metrics_port=free_port()
    )
    app = create_app(settings, Clock())
    graph = Graph(app.test_client(), Clock())
    with whenever_an_event_is_appended(others, "RAISE 'again' USING ERRCODE = '40001';"):
        assert_error(graph.shows(key.user_id, graph.app(), AWAY), 503, "ServiceUnavailable")
    counted = app.extensions["metrics"].registry.get_sample_value("presence_db_repeats_total", {"sqlstate": "40001"})
    assert counted == ATTEMPTS - 1
    app.extensions["engine"].dispose()
