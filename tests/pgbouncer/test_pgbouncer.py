"""The service behind PgBouncer in transaction mode. `make test-pgbouncer` runs these; `make test` leaves them out."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from alembic import command
from flask import Flask
from sqlalchemy import URL, create_engine, text

from app.domain.values import AVAILABLE, IN_A_CALL, OFFLINE, PRESENTING
from app.factory import create_app
from config import Settings
from tests.builders import Clock, Graph, new_id
from tests.conftest import alembic_config
from tests.servers import free_port

SERVERS, CALLERS, ROUNDS = 2, 16, 20
"""PgBouncer's connections to PostgreSQL; ours to PgBouncer; how often each caller goes through all it does."""
CONFIG = """
[databases]
* = host={socket} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {servers}
ignore_startup_parameters = extra_float_digits,options
logfile = {folder}/log
"""


@pytest.fixture(scope="module")
def bouncer(postgres: URL) -> Iterator[URL]:
    """A database behind PgBouncer. What its role is set to stands in for the options that PgBouncer leaves out."""
    name, port = f"bounced_{new_id()}", free_port()
    admin = create_engine(postgres, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
        connection.execute(text(f"ALTER DATABASE \"{name}\" SET statement_timeout = '5s'"))
    admin.dispose()
    command.upgrade(alembic_config(postgres.set(database=name)), "head")
    socket = Path(str(postgres.query["host"]))
    with TemporaryDirectory() as folder:
        (config := Path(folder, "pgbouncer.ini")).write_text(
            CONFIG.format(socket=socket, port=port, servers=SERVERS, folder=folder)
        )
        owner = socket.owner() if os.geteuid() == 0 else None  # PgBouncer refuses to run as root
        if owner:
            shutil.chown(folder, owner)
        with subprocess.Popen(["pgbouncer", "-q", str(config)], user=owner) as server:
            url = URL.create("postgresql+psycopg", "postgres", host="127.0.0.1", port=port, database=name)
            while not answers(url):
                assert server.poll() is None, Path(folder, "log").read_text()
            yield url
            server.terminate()


def answers(url: URL) -> bool:
    try:
        psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture
def service(bouncer: URL, jwks_file: Path) -> Iterator[Flask]:
    settings = Settings(
        presence_env="development",
        database_url=bouncer,
        database_pool=CALLERS,
        database_prepare=False,
        auth_jwks_uri=str(jwks_file),
    )
    app = create_app(settings, Clock())
    yield app
    app.extensions["engine"].dispose()


def test_many_connections_share_two_and_each_caller_sees_what_it_did(service: Flask) -> None:
    def work(_number: int) -> None:
        graph, alice = Graph(service.test_client(), Clock()), new_id()
        bot = graph.app()
        for shown in (IN_A_CALL, PRESENTING, AVAILABLE) * ROUNDS:
            assert graph.shows(alice, bot, shown).status_code == 200
            assert graph.presence_of(alice, bot) == shown
        assert graph.clears(alice, bot).status_code == 200
        assert graph.clears(alice, bot).status_code == 404
        assert graph.presence_of(alice, bot) == OFFLINE

    with ThreadPoolExecutor(CALLERS) as threads:
        assert list(threads.map(work, range(CALLERS))) == [None] * CALLERS


def test_what_its_database_is_set_to_holds(service: Flask) -> None:
    with service.extensions["engine"].connect() as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar_one() == "5s"
