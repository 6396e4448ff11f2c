"""A PostgreSQL that neither answers nor goes away holds nobody up for longer than was agreed."""

import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, Engine, event, text
from sqlalchemy.exc import OperationalError

from app.db.engine import make_engine
from app.db.store import StoreUnavailable, make_store
from tests.builders import new_id

SHORT = timedelta(milliseconds=100)


@pytest.fixture
def patient_server(postgres: URL) -> Iterator[Engine]:
    """An engine on a PostgreSQL that ends nothing by itself: only we can end a wait."""
    engine = make_engine(postgres, pool=1, timeout=SHORT)

    @event.listens_for(engine, "connect")
    def wait_for_ever(connection: psycopg.Connection[Any], _record: object) -> None:
        connection.execute("SET statement_timeout = 0; SET lock_timeout = 0")

    yield engine
    engine.dispose()


def backend(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_a_statement_that_is_never_answered_ends_with_its_connection(patient_server: Engine) -> None:
    hung = backend(patient_server)
    with patient_server.connect() as connection, pytest.raises(OperationalError, match="timeout") as ended:
        connection.execute(text("SELECT pg_sleep(60)"))
    assert ended.value.connection_invalidated
    assert backend(patient_server) != hung


def test_a_statement_that_fails_keeps_its_connection(patient_server: Engine) -> None:
    one = backend(patient_server)
    with patient_server.connect() as connection, pytest.raises(OperationalError, match="statement timeout"):
        connection.execute(text("SET statement_timeout = 1; SELECT pg_sleep(60)"))
    assert backend(patient_server) == one


def test_a_server_that_never_lets_anybody_in_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = URL.create("postgresql+psycopg", "somebody", host="127.0.0.1", port=silent.getsockname()[1])
        engine = make_engine(url, pool=1, timeout=SHORT)
        with pytest.raises(StoreUnavailable):
            make_store(engine).read_user(new_id(), new_id())
        engine.dispose()
