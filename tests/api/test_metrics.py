"""What Prometheus reads: right over all workers, and nothing of any caller in it."""

import fcntl
import json
import os
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import psutil
import pytest
from alembic import command
from flask import Flask
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import URL, Engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.db.counting import SessionCount
from app.db.database import StoreUnavailable
from app.db.engine import make_engine
from app.db.store import make_store
from app.domain.values import AVAILABLE, IN_A_CALL, PRESENTING, SessionKey
from app.factory import create_app
from app.web.metrics import Metrics
from config import Settings
from tests.builders import AUDIENCE, START, new_id
from tests.conftest import alembic_config
from tests.servers import free_port, gunicorn, run, suspend

TENANT = "8fe37d9e-6d4d-4a0c-b4e8-9fb5a6d7e2a1"
READ = "/v1.0/users/<user_id>/presence"
REQUESTS = "presence_http_request_duration_seconds_count"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    """The sum over the series of this name that have these labels."""
    return sum(number for (named, of), number in found.items() if named == name and of >= labels.items())


def asked(method: str, url: str, headers: Mapping[str, str] | None = None, data: str | None = None) -> tuple[int, str]:
    """Return status and body of one request, on a connection of its own, so that any worker may get it."""
    body = data.encode() if data else None
    request = urllib.request.Request(url, body, dict(headers or {}), method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def test_two_workers_add_up_also_when_they_are_killed_and_name_nobody(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/presence.sqlite3"
    assert run("alembic", "upgrade", "head", DATABASE_URL=url).returncode == 0
    port = free_port()
    environment = {
        "PRESENCE_ENV": "development",
        "DATABASE_URL": url,
        "DATABASE_POOL": "3",
        "INSTANCE_PATH": str(tmp_path),
        "METRICS_PORT": str(port),
        "METRICS_COUNT_EVERY": "0.001",
        "TMPDIR": str(tmp_path),
    }

    def scraped() -> tuple[Samples, str]:
        status, text = asked("GET", f"http://127.0.0.1:{port}/metrics")
        assert status == 200
        return samples(text), text

    with gunicorn(**environment) as server:
        server.wait_for("Booting worker")
        workers = [int(line.rpartition(" ")[2]) for line in server.printed if "Booting worker" in line]
        app_id, users = new_id(), [new_id() for _ in range(5)]
        form = f"client_id={app_id}&client_secret=any&grant_type=client_credentials&scope={AUDIENCE}/.default"
        token = json.loads(asked("POST", f"{server.base}/{TENANT}/oauth2/v2.0/token", data=form)[1])["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        for pid in workers:
            stopped = suspend(pid)  # the other one gets all of these
            for user in users:
                presence = f"{server.base}/v1.0/users/{user}/presence"
                busy = f'{{"sessionId": "{app_id}", "availability": "Busy", "activity": "InACall"}}'
                assert asked("POST", f"{presence}/setPresence", headers, busy)[0] == 200
                assert asked("GET", presence, headers)[0] == 200
                assert asked("GET", f"{server.base}/{user}/{new_id()}")[0] == 404
                assert asked("BREW", presence)[0] == 405
            stopped.resume()
        assert asked("GET", f"{server.base}/metrics")[0] == 404

        before, text = scraped()
        assert value(before, REQUESTS, route=READ, method="GET", status="200") == 10
        assert value(before, REQUESTS, route="unmatched", method="GET", status="404") == 10 + 1
        assert value(before, REQUESTS, route="unmatched", method="other", status="405") == 10
        assert value(before, REQUESTS) == 1 + 4 * 10 + 1
        assert value(before, "presence_token_lookups_total", result="miss") == 2  # each has verified the token
        assert value(before, "presence_token_lookups_total", result="hit") == 2 * 10 - 2
        assert value(before, "presence_jwks_fetches_total", result="ok") == 2
        assert value(before, "presence_db_pool_size") == 2 * 3
        assert value(before, "presence_db_pool_in_use") <= 1  # the scrape's own, which counts the sessions
        assert value(before, "presence_sessions", availability="Busy") == value(before, "presence_sessions") == 5
        for private in (*users, app_id, TENANT, token, "BREW", url):
            assert private not in text

        killed = [psutil.Process(pid) for pid in workers]
        for worker in killed:
            worker.kill()
        assert psutil.wait_procs(killed, timeout=30)[1] == []  # until then they accept connections, and reset them
        after, _ = scraped()  # it waits for a worker that is up
        assert value(after, REQUESTS) == value(before, REQUESTS)
        assert value(after, "presence_db_pool_size") in {3, 2 * 3}  # of those that live
        assert asked("GET", f"{server.base}/v1.0/users/{users[0]}/presence", headers)[0] == 200
        old = psutil.Process(server.process.pid).children()
        server.process.send_signal(signal.SIGHUP)
        assert psutil.wait_procs(old, timeout=30)[1] == []
        assert value(scraped()[0], REQUESTS) == value(before, REQUESTS) + 1
    assert not list(tmp_path.glob("graph-presence-metrics-*"))


def test_a_port_that_is_taken_ends_gunicorn_with_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run("gunicorn", "-c", "gunicorn.conf.py", "wsgi:app", PRESENCE_ENV="development", METRICS_PORT=port)
    assert ended.returncode not in {0, None}
    said = (ended.stdout + ended.stderr).strip()
    assert "METRICS_PORT" in said.splitlines()[-1], said
    assert "Traceback" not in said


@pytest.fixture
def engine(make_database: Callable[[], URL]) -> Iterator[Engine]:
    """A migrated database of its own, since all tenants are counted."""
    url = make_database()
    command.upgrade(alembic_config(url), "head")
    made = make_engine(url, pool=1, timeout=timedelta(seconds=5))
    yield made
    made.dispose()


def test_sessions_are_counted_by_what_they_show_now(engine: Engine) -> None:
    store, count = make_store(engine), SessionCount(engine, timedelta(seconds=5))
    for shown, lifetime in ((AVAILABLE, 60), (AVAILABLE, 5), (IN_A_CALL, 60), (IN_A_CALL, 60), (PRESENTING, 5)):
        store.set_session(SessionKey(new_id(), new_id(), new_id()), shown, timedelta(minutes=lifetime), START, new_id())
    just, in_time = timedelta(microseconds=1), timedelta(minutes=5)
    assert count.by_availability(START) == {"Available": 2, "Away": 0, "Busy": 2, "DoNotDisturb": 1}
    assert count.by_availability(START + in_time - just) == {"Available": 2, "Away": 0, "Busy": 2, "DoNotDisturb": 1}
    assert count.by_availability(START + in_time) == {"Available": 1, "Away": 0, "Busy": 2, "DoNotDisturb": 0}
    assert count.by_availability(START + 2 * in_time - just)["Available"] == 1
    assert count.by_availability(START + 2 * in_time) == {"Available": 0, "Away": 1, "Busy": 2, "DoNotDisturb": 0}


def test_a_count_on_sqlite_ends_in_time_and_leaves_the_connection_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = URL.create("sqlite+pysqlite", database=str(tmp_path / "presence.sqlite3"))
    command.upgrade(alembic_config(url), "head")
    engine = make_engine(url, pool=1, timeout=timedelta(seconds=5))
    monkeypatch.setattr("app.db.counting.STEPS_BETWEEN_LOOKS", 1)
    with pytest.raises(StoreUnavailable):
        SessionCount(engine, timedelta(0)).by_availability(START)
    monkeypatch.setattr("app.db.counting._after", lambda _: None)
    assert sum(SessionCount(engine, timedelta(0)).by_availability(START).values()) == 0
    engine.dispose()


def test_a_scrape_counts_no_sooner_than_it_is_due_also_when_the_last_count_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counts: list[dict[str, int] | None] = [{"Busy": 1}, None, {"Busy": 3}]

    def count() -> dict[str, int]:
        if (counted := counts.pop(0)) is None:
            raise StoreUnavailable
        return counted

    metrics = Metrics(timedelta(seconds=60))
    metrics.mount(Flask("test"), connections_in_use=int, count_sessions=count)

    def told() -> float:
        metrics.count(tmp_path)
        return value(samples(generate_latest(metrics.registry).decode()), "presence_sessions", availability="Busy")

    def minute_passes() -> None:
        seen = (tmp_path / "counted").stat().st_mtime
        os.utime(tmp_path / "counted", (seen - 60, seen - 60))

    assert (told(), told(), len(counts)) == (1, 1, 2)
    minute_passes()
    assert (told(), told(), len(counts)) == (1, 1, 1)
    assert [record.message for record in caplog.records] == ["sessions not counted"]
    minute_passes()
    with (tmp_path / "counted").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert (told(), len(counts)) == (1, 1)  # another worker is at it
    assert (told(), len(counts)) == (3, 0)


def test_who_finds_all_connections_in_use_is_counted(engine: Engine) -> None:
    waits: list[None] = []
    watched = make_engine(engine.url, pool=2, timeout=timedelta(milliseconds=20), waited=lambda: waits.append(None))
    with watched.connect():
        watched.connect().close()
        assert waits == []
        with watched.connect(), pytest.raises(PoolTimeoutError):
            watched.raw_connection()
    assert waits == [None]
    watched.dispose()
    watched.connect().close()
    assert waits == [None]
    watched.dispose()


def test_connections_in_use_are_sampled() -> None:
    metrics = Metrics(timedelta(seconds=60))
    metrics.mount(Flask("test"), connections_in_use=iter([3, 1]).__next__, count_sessions=dict)
    for in_use in (3, 1):
        metrics.sample()
        assert value(samples(generate_latest(metrics.registry).decode()), "presence_db_pool_in_use") == in_use


def test_what_causes_a_503_is_told(make_database: Callable[[], URL]) -> None:
    app = create_app(Settings(presence_env="development", database_url=make_database(), metrics_port=1))
    assert app.test_client().get("/readyz").status_code == 503
    found = samples(generate_latest(app.extensions["metrics"].registry).decode())
    assert value(found, "presence_unavailable_total", cause="NotReady") == 1
    assert value(found, REQUESTS, route="/readyz", method="GET", status="503") == 1
    app.extensions["engine"].dispose()


def test_nothing_is_measured_unless_it_is_asked_for(flask_app: Flask) -> None:
    assert "metrics" not in flask_app.extensions


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # which look() ends it by
def test_who_answers_scrapes_samples_the_connections_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.metrics.SAMPLE_SECONDS", 0.01)
    sampled = threading.Event()

    def look() -> NoReturn:
        sampled.set()
        raise SystemExit  # ends the thread

    metrics = Metrics(timedelta(seconds=60))
    metrics.mount(Flask("test"), connections_in_use=look, count_sessions=dict)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        metrics.serve(listener, tmp_path)
        assert sampled.wait(10)
        for thread in threading.enumerate():
            if thread.name == "metrics":
                thread.join(10)
