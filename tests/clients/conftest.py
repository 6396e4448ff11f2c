"""Microsoft's clients, and the server that they are pointed at: over http, and over https with its own certificate."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
import requests
from pytest_graph_presence import PresenceEmulator

from app.emulator.certificate import KEY, ensure_certificate
from tests.builders import new_id
from tests.servers import gunicorn, run

JS = Path(__file__).parent / "js"
"""The clients for JavaScript, and scripts that use them."""


class Served(NamedTuple):
    """One server of presence behind two ports."""

    http: str
    https: str
    certificate: Path
    emulator: PresenceEmulator
    """Its controls."""

    @property
    def tenant_id(self) -> str:
        """Where everybody is."""
        return self.emulator.tenant_id

    @contextmanager
    def throttling(self, path: str) -> Iterator[None]:
        """One request whose path matches is answered 429, to be repeated after a second; the client must do it."""
        self.emulator.fail(path, 429, retry_after=1)
        yield
        assert requests.get(f"{self.http}/emulator/faults", timeout=30).json() == {"value": []}

    @property
    def authority(self) -> str:
        """The issuer, as msal's `authority` wants it, with `instance_discovery=False`."""
        return f"{self.https}/{self.tenant_id}"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for the whole run; every test has a user and an application of its own."""
    folder = tmp_path_factory.mktemp("clients")
    certificate = ensure_certificate(folder, datetime.now(UTC))
    environment = {
        "PRESENCE_ENV": "development",
        "DATABASE_URL": f"sqlite:///{folder}/presence.sqlite3",
        "SQLITE_SYNCHRONOUS": "NORMAL",
        "INSTANCE_PATH": str(folder),
        "WEB_CONCURRENCY": "1",
    }
    migrated = run("alembic", "upgrade", "head", **environment)
    assert migrated.returncode == 0, migrated.stderr
    tls = {"TLS_CERTFILE": str(certificate), "TLS_KEYFILE": str(folder / KEY)}
    with gunicorn(**environment) as plain, gunicorn(**environment, **tls) as encrypted:
        yield Served(plain.base, encrypted.base, certificate, PresenceEmulator(plain.base))


@pytest.fixture(autouse=True)
def own_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a client trust what it is told to: requests would look at these first."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def app_id() -> str:
    """A calling application."""
    return new_id()


@pytest.fixture
def emulator(served: Served) -> PresenceEmulator:
    """The server's controls."""
    return served.emulator
