"""The service as it is run: migrated by Alembic, served by gunicorn, ended by a signal."""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import URL

from app.domain.values import DASHED_GUID, derived_user_id
from app.factory import create_app
from config import Settings
from tests.builders import AUDIENCE as GRAPH
from tests.builders import new_id
from tests.ha.cluster import until
from tests.ha.drill import restart
from tests.ha.load import ACKNOWLEDGED, Load
from tests.servers import ROOT, Server, gunicorn, peers, run, shipped_settings, suspend

TENANT, AUDIENCE = "8fe37d9e-6d4d-4a0c-b4e8-9fb5a6d7e2a1", "api://presence"


def example(lines: list[str]) -> list[str]:
    """The lines that the server prints for pasting."""
    return [line for line in lines if line.startswith(("TOKEN=", "curl "))]


def test_the_four_printed_lines_work_as_printed_at_all_three_mounts(make_database: Callable[[], URL]) -> None:
    url = make_database().render_as_string(hide_password=False)
    migrated = run("alembic", "upgrade", "head", DATABASE_URL=url)
    assert migrated.returncode == 0, migrated.stderr
    with gunicorn(PRESENCE_ENV="development", DATABASE_URL=url) as server:
        lines = example(server.printed)
        assert len(lines) == 4
        for mount in ("/beta", "/v1.0", ""):
            script = "\n".join(line.replace("/beta", mount) for line in lines)
            done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=True)
            statuses, read = done.stdout.split("\n")[:2], done.stdout.split("\n")[2]
            assert statuses == ["200", "200"], done.stdout
            body = json.loads(read)
            assert (body["availability"], body["activity"]) == ("Offline", "Offline")
            assert body["@odata.context"].startswith(f"{server.base}{mount}/$metadata#users(")


def test_the_readmes_lines_sign_a_user_in_as_printed(tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text().partition("### Tokens of a user")[2]
    lines = section.partition("```sh\n")[2].partition("```")[0]
    url = f"sqlite:///{tmp_path}/presence.sqlite3"
    assert run("alembic", "upgrade", "head", DATABASE_URL=url).returncode == 0
    with gunicorn(PRESENCE_ENV="development", DATABASE_URL=url) as server:
        script = lines.replace("http://127.0.0.1:8000", server.base)
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    tenant = DASHED_GUID.findall("".join(server.printed))[0]  # where the printed example is, too
    assert json.loads(done.stdout)["id"] == derived_user_id(tenant, "alice@contoso.com")
    assert tenant in section


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "AUTH_TENANTS"),
        ({"AUTH_TENANTS": TENANT}, "AUTH_AUDIENCES"),
        ({"AUTH_AUDIENCES": AUDIENCE}, "AUTH_TENANTS"),
        ({"AUTH_TENANTS": ",", "AUTH_AUDIENCES": AUDIENCE}, "AUTH_TENANTS"),
        ({"AUTH_TENANTS": "contoso", "AUTH_AUDIENCES": AUDIENCE}, "AUTH_TENANTS"),
        ({"PRESENCE_ENV": "staging"}, "PRESENCE_ENV"),
        ({"PRESENCE_ENV": "development", "PORT": "http"}, "PORT"),
        ({"PRESENCE_ENV": "development", "DATABASE_URL": "mysql://host/db"}, "DATABASE_URL"),
    ],
)
def test_gunicorn_itself_ends_with_one_line_that_names_the_variable(given: dict[str, str], named: str) -> None:
    ended = run("gunicorn", "-c", "gunicorn.conf.py", "wsgi:app", **given)
    assert ended.returncode not in {0, None}
    said = (ended.stdout + ended.stderr).strip()
    assert named in said
    assert len(said.splitlines()) == 1, said


def test_production_serves_its_routes_and_no_issuer(make_database: Callable[[], URL]) -> None:
    settings = Settings(
        presence_env="production", database_url=make_database(), auth_tenants=(TENANT,), auth_audiences=(AUDIENCE,)
    )
    app = create_app(settings)
    client = app.test_client()
    opened = ("v2.0/.well-known/openid-configuration", "discovery/v2.0/keys", "discovery/keys")
    for path in (*opened, "oauth2/v2.0/authorize", "oauth2/v2.0/logout"):
        assert client.get(f"/{TENANT}/{path}").status_code == 404
    for path in ("oauth2/v2.0/token", "oauth2/token", "oauth2/v2.0/authorize"):
        assert client.post(f"/{TENANT}/{path}").status_code == 404
    assert client.get(f"/v1.0/users/{new_id()}/presence").status_code == 401
    not_ready = client.get("/readyz")
    assert (not_ready.status_code, not_ready.get_json()["error"]["code"]) == (503, "ServiceUnavailable")
    assert int(not_ready.headers["Retry-After"]) > 0
    assert client.get("/healthz").status_code == 200
    app.extensions["engine"].dispose()


def test_two_workers_share_the_clock_and_the_faults_and_can_lose_an_answer(
    make_database: Callable[[], URL], tmp_path: Path
) -> None:
    url = make_database().render_as_string(hide_password=False)
    run("alembic", "upgrade", "head", DATABASE_URL=url)
    environment = {"PRESENCE_ENV": "development", "DATABASE_URL": url, "INSTANCE_PATH": str(tmp_path)}
    with gunicorn(**environment) as server, ThreadPoolExecutor(8) as pool:
        asked(server, "POST", "/emulator/clock", {"now": "2026-03-02T08:00:00Z", "frozen": True})
        for moment in ("2026-03-02T08:05:00+00:00", "2026-03-02T08:10:00+00:00"):
            asked(server, "POST", "/emulator/clock", {"advance": "PT5M"})
            clocks = [pool.submit(asked, server, "GET", "/emulator/clock") for _ in range(32)]
            assert {clock.result()["now"] for clock in clocks} == {moment}
        asked(server, "POST", "/emulator/faults", {"path": "*/token", "loseAnswer": True})
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            asked(server, "POST", f"/{TENANT}/oauth2/v2.0/token", {})
        assert asked(server, "GET", "/emulator/faults") == {"value": []}


def test_no_two_workers_ever_show_different_times(tmp_path: Path) -> None:
    started = datetime(2026, 3, 2, 8, tzinfo=UTC)
    environment = {"PRESENCE_ENV": "development", "INSTANCE_PATH": str(tmp_path), "WEB_CONCURRENCY": "2"}
    url = f"sqlite:///{tmp_path}/presence.sqlite3"
    with gunicorn(**environment, DATABASE_URL=url) as server, ThreadPoolExecutor(2) as pool:
        asked(server, "POST", "/emulator/clock", {"now": started.isoformat(), "frozen": True})
        moves = {"asked": 0, "done": 0}

        def read(worker: http.client.HTTPConnection) -> list[tuple[int, float, int]]:
            """Tell how many moves were done before each answer, how many it shows, and how many were asked for then."""
            seen = []
            for _ in range(10_000):
                if (done := moves["done"]) == 50:
                    break
                now = datetime.fromisoformat(answered(worker, "GET", "/emulator/clock")["now"])
                seen.append((done, (now - started) / timedelta(minutes=1), moves["asked"]))
            return seen

        workers = server.each_worker(2)
        readings = [pool.submit(read, worker) for worker in workers]
        for _ in range(50):
            moves["asked"] += 1
            asked(server, "POST", "/emulator/clock", {"advance": "PT1M"})
            moves["done"] += 1
        for reading in readings:
            seen = reading.result()
            assert len({shown for _, shown, _ in seen}) > 10
            assert all(done <= shown <= asked_for for done, shown, asked_for in seen), seen
        for worker in workers:
            worker.close()


def asked(server: Server, method: str, path: str, body: object = None) -> Any:
    """Return what one request, on a connection of its own, is answered."""
    connection = connected(server)
    answer = answered(connection, method, path, body)
    connection.close()
    return answer


def connected(server: Server) -> http.client.HTTPConnection:
    """Return a connection on which nothing is asked yet."""
    connection = http.client.HTTPConnection(server.base.removeprefix("http://"), timeout=30)
    connection.connect()
    return connection


def answered(connection: http.client.HTTPConnection, method: str, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
    answer = connection.getresponse().read()
    return json.loads(answer) if answer else None


def test_a_worker_that_dies_is_replaced_and_the_port_stays(make_database: Callable[[], URL]) -> None:
    url = make_database().render_as_string(hide_password=False)
    with gunicorn(PRESENCE_ENV="development", DATABASE_URL=url, WEB_CONCURRENCY="1") as server:
        pid = int(server.printed[-1].rpartition(" ")[2])
        os.kill(pid, signal.SIGKILL)
        server.wait_for("Booting worker")
        with urllib.request.urlopen(f"{server.base}/healthz", timeout=30) as answer:  # noqa: S310
            assert answer.status == 200
            assert answer.headers["Server"] == "gunicorn"  # and no version
    assert server.process.returncode == 0


def test_gunicorns_own_guards_stand() -> None:
    settings = {name: setting.get() for name, setting in shipped_settings().settings.items()}
    open_doors = (
        *("permit_obsolete_folding", "strip_header_spaces", "casefold_http_method"),
        *("permit_unconventional_http_method", "permit_unconventional_http_version", "proxy_protocol"),
    )
    assert not any(settings[name] not in {False, "off"} for name in open_doors)
    assert (settings["header_map"], settings["forwarder_headers"]) == ("drop", [])
    assert (settings["http_protocols"], settings["http2_cleartext"]) == (["h1"], "off")
    assert settings["control_socket_disable"]
    assert settings["accesslog"] is None


def test_a_client_that_falls_silent_in_its_request_is_let_go(make_database: Callable[[], URL]) -> None:
    url = make_database().render_as_string(hide_password=False)
    half_head = f"POST /{TENANT}/oauth2/v2.0/token HTTP/1.1\r\nHost: here\r\n"
    half_body = f"{half_head}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 99\r\n\r\nclient_id="
    with gunicorn(PRESENCE_ENV="development", DATABASE_URL=url, CLIENT_TIMEOUT="0.1") as server:
        port = int(server.base.rpartition(":")[2])
        for half, answered in ((half_head, b""), (half_body, b"HTTP/1.1 400 ")):
            with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
                client.sendall(half.encode())
                assert client.recv(len(answered) or 1) == answered
    assert not any("Traceback" in line for line in server.printed)


def test_connections_that_come_at_once_are_shared_evenly_and_none_waits_for_a_stopped_worker(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/presence.sqlite3"
    with gunicorn(PRESENCE_ENV="development", DATABASE_URL=url, WEB_CONCURRENCY="2") as server:
        workers = server.each_worker(2)
        held = [connected(server) for _ in range(20)]
        for connection in held:  # what waits in the queue is a connection, too
            answered(connection, "GET", "/healthz")
        pids = [child.pid for child in server.children()]
        shares = [len(peers(psutil.Process(pid))) for pid in pids]
        assert sum(shares) == 22
        assert abs(shares[0] - shares[1]) <= 2, shares
        for connection in held:
            connection.close()
        stopped = suspend(pids[0])
        try:
            held = [connected(server) for _ in range(5)]
            for connection in held:
                answered(connection, "GET", "/healthz")
        finally:
            stopped.resume()
        for connection in (*held, *workers):
            connection.close()


def test_workers_are_replaced_under_load_and_every_request_is_answered(tmp_path: Path, jwks_file: Path) -> None:
    url = f"sqlite:///{tmp_path}/presence.sqlite3"
    assert run("alembic", "upgrade", "head", DATABASE_URL=url).returncode == 0
    settings = {"AUTH_TENANTS": TENANT, "AUTH_AUDIENCES": GRAPH, "AUTH_JWKS_URI": str(jwks_file)}
    with gunicorn(DATABASE_URL=url, **settings) as server, Load(server.base, TENANT) as load:
        until("a write is acknowledged", lambda: load.has_written_since(0), 60)
        restart(server)
        replaced_at = time.monotonic()
        until("the new workers write", lambda: load.has_written_since(replaced_at), 60)
    assert {attempt.outcome for attempt in load.attempts} == {ACKNOWLEDGED}


def test_gunicorn_itself_imports_no_code_that_a_hup_should_load_anew() -> None:
    program = "import runpy, sys; runpy.run_path('gunicorn.conf.py')['on_starting'](None); print(*sys.modules)"
    done = run("python", "-c", program, PRESENCE_ENV="development")
    modules = set(done.stdout.split())
    assert {"flask", "sqlalchemy.orm", "config"} <= modules, done.stderr
    ours = {name for name in modules if name.split(".")[0] in {"app", "wsgi"}}
    assert ours == {"app", "app.domain", "app.domain.durations", "app.domain.values"}, "config needs these alone"
