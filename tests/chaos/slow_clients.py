"""Measures good requests while others trickle theirs, and while others bring tokens of keys that nobody knows.

It starts the service as it ships, without a proxy. The exit status is 1 when it does not hold: good requests fail, or
their p99 is over RATIO times that of the quiet run, or unknown keys cost more than a fetch per cool-down and worker.
"""

import argparse
import http.client
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from app.domain.values import IN_A_CALL
from app.emulator.tokens import app_only_claims
from tests.builders import AUDIENCE, READ_WRITE, Application, Clock, application, new_id
from tests.chaos.rig import Issuer, Sqlite
from tests.servers import ROOT, free_port, gunicorn
from tests.tokens import assemble

RATIO = 5
WORKERS, COOLDOWN_SECONDS = 2, 5
"""The cool-down is shorter than the default, so that there is more than one to count."""


class Figures(NamedTuple):
    """What the good requests of one run saw."""

    done: int
    failed: int
    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"{self.done:>9}{self.failed:>8}{self.p50_ms:>9.1f}{self.p99_ms:>9.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the service as it stands, and behind nginx where that is installed."""
    parser = argparse.ArgumentParser(prog="make slow-clients", description=__doc__)
    parser.add_argument("--slow", type=int, default=200, help="slow connections (half headers, half bodies)")
    parser.add_argument("--seconds", type=float, default=10, help="length of each measurement")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        database, issuer = Sqlite(folder), Issuer(stack)
        stack.callback(database.engine.dispose)
        app = application(Clock(datetime.now(UTC)), new_id(), READ_WRITE)
        server = stack.enter_context(
            gunicorn(
                PRESENCE_ENV="development",
                DATABASE_URL=database.url.render_as_string(hide_password=False),
                INSTANCE_PATH=str(folder),
                AUTH_JWKS_URI=issuer.uri,
                AUTH_JWKS_COOLDOWN=str(COOLDOWN_SECONDS),
                WEB_CONCURRENCY=str(WORKERS),
            )
        )
        port = int(server.base.rpartition(":")[2])
        holds = compare("the service alone", port, app, issuer, options.slow, options.seconds)
        if nginx := shutil.which("nginx"):
            proxy = stack.enter_context(proxied(nginx, folder, port))
            holds &= compare("behind deploy/nginx.conf", proxy, app, issuer, options.slow, options.seconds)
        else:
            print("nginx is not installed: the service was not measured behind it")
    return 0 if holds else 1


def compare(what: str, port: int, app: Application, issuer: Issuer, slow: int, seconds: float) -> bool:
    """Print three measurements beside each other; tell whether the service holds."""
    measure(port, app, 2)  # the first requests make connections and fetch keys
    print(f"{what:<38}{'requests':>9}{'failed':>8}{'p50 ms':>9}{'p99 ms':>9}", flush=True)
    quiet = show("  nobody else", measure(port, app, seconds))
    with slow_connections(port, app, slow) as still_open:
        beside_slow = show(f"  beside {slow} slow connections", measure(port, app, seconds))
        print(f"    {still_open()} of them were still open at the end")
    fetches = issuer.fetches
    with flood(port, app) as answered:
        beside_flood = show("  beside a flood of unknown key ids", measure(port, app, seconds))
    fetches = issuer.fetches - fetches
    print(
        f"    {answered.total()} of them, answered {dict(answered)}, cost {fetches} fetches of the keys:"
        f" {fetches * COOLDOWN_SECONDS / seconds / WORKERS:.1f} in a cool-down, by each of {WORKERS} workers"
    )
    print(
        f"  p99 beside slow connections is {beside_slow.p99_ms / quiet.p99_ms:.1f} times the quiet one (aim: {RATIO})"
    )
    print(f"  p99 beside unknown key ids is {beside_flood.p99_ms / quiet.p99_ms:.1f} times the quiet one\n")
    failed = quiet.failed + beside_slow.failed + beside_flood.failed
    return not failed and beside_slow.p99_ms <= RATIO * quiet.p99_ms and fetches <= most_fetches(seconds)


def most_fetches(seconds: float) -> float:
    """Return how often the workers may fetch: each after a cool-down, and once more at either end."""
    return WORKERS * (seconds / COOLDOWN_SECONDS + 2)


@contextmanager
def proxied(nginx: str, folder: Path, port: int) -> Iterator[int]:
    """Put nginx, as shipped, before the service; gives its port."""
    front = free_port()
    shipped = (ROOT / "deploy/nginx.conf").read_text()
    (folder / "site.conf").write_text(
        shipped.replace("listen 80;", f"listen 127.0.0.1:{front};").replace("8000", str(port))
    )
    configuration = folder / "nginx.conf"
    paths = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log stderr; events {{ worker_connections 1024; }}"
        f"http {{ access_log off; {paths} include {folder}/site.conf; }}"
    )
    folder.chmod(0o755)
    process = subprocess.Popen([nginx, "-e", "stderr", "-c", str(configuration)])
    try:
        yield front
    finally:
        process.terminate()
        process.wait(30)


def show(name: str, figures: Figures) -> Figures:
    """Print a line of the table."""
    print(f"{name:<38}{figures}", flush=True)
    return figures


def measure(port: int, app: Application, seconds: float) -> Figures:
    """Set presence, each request on a connection of its own, two at a time, with a little pause between."""
    took: list[float] = []
    failed: list[int] = []
    end = time.monotonic() + seconds

    def work() -> None:
        while time.monotonic() < end:
            began = time.perf_counter()
            status = send(http.client.HTTPConnection("127.0.0.1", port, timeout=30), app)
            took.append((time.perf_counter() - began) * 1000)
            if status != 200:
                failed.append(status)
            time.sleep(0.01)

    in_threads(2, work)
    took.sort()
    return Figures(len(took), len(failed), took[len(took) // 2], took[-(-len(took) * 99 // 100) - 1])


def send(connection: http.client.HTTPConnection, app: Application) -> int:
    """Set presence once and return the status; 0: there was no answer."""
    head, body = request(app)
    try:
        connection.connect()
        connection.sock.sendall(head + body)
        with http.client.HTTPResponse(connection.sock, method="POST") as response:
            response.begin()
            response.read()
            return response.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def request(app: Application) -> tuple[bytes, bytes]:
    """Return head and body of a setPresence for a new user."""
    body = json.dumps({"sessionId": app.app_id, **IN_A_CALL._asdict()}).encode()
    head = (
        f"POST /v1.0/users/{new_id()}/presence/setPresence HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Authorization: Bearer {app.token}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode(), body


def in_threads(count: int, work: Callable[[], None]) -> None:
    """Run `work` so many times at once, to the end."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def slow_connections(port: int, app: Application, count: int) -> Iterator[Callable[[], int]]:
    """Keep so many connections busy with a byte a second each; gives what counts those that are still open."""
    ended = threading.Event()
    head, body = request(app)
    trickling: dict[socket.socket, Iterator[int]] = {}
    for number in range(count):
        connection = socket.create_connection(("127.0.0.1", port))
        at_once = 20 if number % 2 else len(head)  # the rest of the headers, or the body, comes slowly
        connection.sendall((head + body)[:at_once])
        trickling[connection] = iter((head + body)[at_once:-1])
    gone: list[socket.socket] = []

    def trickle() -> None:
        while not ended.wait(1):
            for connection in trickling.keys() - set(gone):
                try:
                    connection.sendall(bytes([next(trickling[connection])]))
                except (OSError, StopIteration):
                    gone.append(connection)

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        yield lambda: count - len(gone)
    finally:
        ended.set()
        thread.join()
        for connection in trickling:
            connection.close()


@contextmanager
def flood(port: int, app: Application) -> Iterator[Counter[int]]:
    """Send tokens, each of another unknown key; gives the statuses that they got."""
    ended = threading.Event()
    statuses: Counter[int] = Counter()
    claims = app_only_claims(app.tenant_id, app.app_id, AUDIENCE, [READ_WRITE], datetime.now(UTC))

    def work() -> None:
        while not ended.wait(0.02):
            token = assemble({"typ": "JWT", "alg": "RS256", "kid": new_id()}, claims, lambda _data: bytes(256))
            stranger = Application(app.tenant_id, app.app_id, token)
            statuses[send(http.client.HTTPConnection("127.0.0.1", port, timeout=30), stranger)] += 1

    thread = threading.Thread(target=in_threads, args=(8, work))
    thread.start()
    try:
        yield statuses
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
