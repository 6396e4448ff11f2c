"""The emulator as a test sees it: a server process, and its controls."""

import http.client
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

SERVER = Path(__file__).parent / "server"
CHECKOUT = Path(__file__).resolve().parents[3]
START_SECONDS = 60
SETTINGS = (
    *("ADMIN_", "AUTH_", "CLIENT_TIMEOUT", "CORS_", "DATABASE_", "GUNICORN_", "HOST", "INSTANCE_PATH", "LOG_LEVEL"),
    *("METRICS", "OTEL_", "PORT", "PRESENCE_ENV", "RATE_LIMIT", "SQLITE_", "TLS_", "WEB_", "FORWARDED_ALLOW_IPS"),
)
"""How the names of the server's settings begin. Those in a test run's environment are meant for something else."""
LOG_LINES = 15
TENANT = "8fe37d9e-6d4d-4a0c-b4e8-9fb5a6d7e2a1"


class CannotStart(Exception):
    """The server did not come up; the message has its last log lines."""


@dataclass(frozen=True)
class Hint:
    """Something that real Graph would have ignored or refused without a word."""

    id: str
    text: str
    request_id: str


class PresenceEmulator:
    """A Graph presence API on 127.0.0.1, with its own tokens, clock, data and faults."""

    def __init__(self, root_url: str) -> None:
        self.root_url = root_url
        """Without a slash at the end; the token endpoint's and the controls' URLs start with it."""
        self.base_url = f"{root_url}/v1.0"
        """What a Graph client calls its base URL."""
        self.tenant_id = TENANT

    # Tokens

    def token_url(self, tenant_id: str | None = None) -> str:
        """Return the token endpoint (OAuth 2.0, client_credentials among others)."""
        return f"{self.root_url}/{tenant_id or self.tenant_id}/oauth2/v2.0/token"

    def token(self, app_id: str, *roles: str, tenant_id: str | None = None) -> str:
        """Return an application's access token; without roles it has Presence.ReadWrite.All."""
        form = {"client_id": app_id, "client_secret": "any", "grant_type": "client_credentials"}
        form["scope"] = "https://graph.microsoft.com/.default"
        if roles:
            form["roles"] = " ".join(roles)
        return self._token(form, tenant_id)

    def user_token(self, app_id: str, user: str, *scopes: str, tenant_id: str | None = None) -> str:
        """Return a signed-in user's access token; `user` is an id or a user principal name."""
        scope = " ".join(scopes) or "https://graph.microsoft.com/.default"
        form = {"client_id": app_id, "grant_type": "password", "username": user, "password": "any", "scope": scope}
        return self._token(form, tenant_id)

    # Time

    def now(self) -> datetime:
        """Return the server's time."""
        return datetime.fromisoformat(self._ask("GET", "/emulator/clock")["now"])

    def advance(self, **by: float) -> datetime:
        """Move the clock by a timedelta's arguments, back if negative, and return the time then."""
        length = timedelta(**by)
        sign = "-" if length < timedelta(0) else ""
        moved = self._ask("POST", "/emulator/clock", {"advance": f"{sign}PT{abs(length).total_seconds():f}S"})
        return datetime.fromisoformat(moved["now"])

    def freeze(self, at: datetime | None = None) -> datetime:
        """Stop the clock, where it is or at an aware moment."""
        body = {"frozen": True, **({"now": at.isoformat()} if at else {})}
        return datetime.fromisoformat(self._ask("POST", "/emulator/clock", body)["now"])

    # Data

    def presence_of(self, user_id: str, tenant_id: str | None = None) -> tuple[str, str]:
        """Return the availability and activity that everybody sees of a user."""
        reader = self.token("00000000-0000-4000-8000-000000000001", "Presence.Read.All", tenant_id=tenant_id)
        seen = self._ask("GET", f"/v1.0/users/{user_id}/presence", token=reader)
        return seen["availability"], seen["activity"]

    def seed(self, *sessions: dict[str, str]) -> None:
        """Set sessions as other applications would: userId, sessionId, availability, activity, expirationDuration."""
        filled = [{"tenantId": self.tenant_id, **session} for session in sessions]
        self._ask("POST", "/emulator/seed", {"sessions": filled})

    def snapshot(self) -> dict[str, Any]:
        """Return all data and the time, for `restore`."""
        kept: dict[str, Any] = self._ask("GET", "/emulator/snapshot")
        return kept

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Bring data and time back."""
        self._ask("PUT", "/emulator/snapshot", snapshot)

    def reset(self) -> None:
        """Forget all data, faults and hints, and show the machine's time."""
        self._ask("POST", "/emulator/reset")

    # Faults

    def fail(self, path: str, status: int, *, times: int = 1, method: str | None = None, retry_after: int = 1) -> None:
        """Answer the next requests whose path matches a shell's pattern with 429, 500, 503 or 504."""
        self._fault(path, times, method, {"status": status, "retryAfter": retry_after})

    def delay(self, path: str, seconds: float, *, times: int = 1, method: str | None = None) -> None:
        """Answer the next requests that match so much later."""
        self._fault(path, times, method, {"delay": f"PT{seconds:f}S"})

    def lose_answer(self, path: str, *, times: int = 1, method: str | None = None) -> None:
        """Do what the next requests that match ask for, then drop the connection."""
        self._fault(path, times, method, {"loseAnswer": True})

    # Hints

    @property
    def hints(self) -> list[Hint]:
        """What the server had to say since the last reset, but for keep-alives, which are as they should be."""
        raised = self._ask("GET", "/emulator/hints")["value"]
        return [Hint(hint["id"], hint["text"], hint["requestId"]) for hint in raised if hint["level"] == "warning"]

    def _fault(self, path: str, times: int, method: str | None, what: dict[str, object]) -> None:
        body = {"path": path, "times": times, **({"method": method} if method else {}), **what}
        self._ask("POST", "/emulator/faults", body)

    def _token(self, form: dict[str, str], tenant_id: str | None) -> str:
        data, url = urllib.parse.urlencode(form).encode(), self.token_url(tenant_id)
        return str(self._sent(urllib.request.Request(url, data))["access_token"])  # noqa: S310

    def _ask(self, method: str, path: str, body: object = None, token: str | None = None) -> Any:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = json.dumps(body).encode() if body is not None else None
        return self._sent(urllib.request.Request(self.root_url + path, data, headers, method=method))  # noqa: S310

    def _sent(self, asked: urllib.request.Request) -> Any:
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise ValueError(f"{asked.get_method()} {asked.selector}: {error.code} {error.read().decode()}") from None
        return json.loads(text) if text else None


@contextmanager
def running(folder: Path) -> Iterator[PresenceEmulator]:
    """Run a server of its own on a free port, with all that it keeps in `folder`.

    Raises:
        CannotStart: it did not come up.
    """
    port = _free_port()
    server = SERVER if SERVER.is_dir() else CHECKOUT  # in an editable install the server is the checkout around it
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)},
        "PRESENCE_ENV": "development",
        "DATABASE_URL": f"sqlite:///{folder / 'presence.sqlite3'}",
        "SQLITE_SYNCHRONOUS": "NORMAL",
        "INSTANCE_PATH": str(folder),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WEB_CONCURRENCY": "1",
    }
    log: deque[str] = deque(maxlen=LOG_LINES)
    _migrate(server, environment)
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"],
        cwd=server,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    booted = Event()
    reader = Thread(target=_read, args=(process, log, booted), daemon=True)
    reader.start()
    try:
        if not booted.wait(START_SECONDS) or not _answers(port):
            process.terminate()
            reader.join(START_SECONDS)
            raise CannotStart("\n".join(["The presence server did not start; it said last:", *log]))
        yield PresenceEmulator(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


def _migrate(server: Path, environment: dict[str, str]) -> None:
    alembic = [sys.executable, "-m", "alembic", "upgrade", "head"]
    done = subprocess.run(
        alembic, cwd=server, env=environment, capture_output=True, text=True, timeout=START_SECONDS, check=False
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-LOG_LINES:])
        raise CannotStart(f"The presence server's database could not be made; alembic said last:\n{said}")


def _read(process: "subprocess.Popen[str]", log: deque[str], booted: Event) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            log.append(line.rstrip("\n"))
            if "Booting worker" in line:
                booted.set()
    booted.set()


def _answers(port: int) -> bool:
    """Tell whether the server that listens there can work: a worker may yet fail to load it."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=START_SECONDS):
            return True
    except (OSError, http.client.HTTPException):
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
