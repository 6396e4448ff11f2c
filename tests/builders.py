"""The vocabulary of the tests: a clock that is moved, applications with tokens, and what they do to presence."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from flask.testing import FlaskClient
from pydantic import SecretStr
from sqlalchemy import Engine
from werkzeug.security import generate_password_hash
from werkzeug.test import TestResponse

from app.db.models import Base
from app.domain.values import DASHED_GUID, Activity, Availability, Shown
from app.emulator.keys import SigningKey
from app.emulator.tokens import app_only_claims, mint
from config import Account

AUDIENCE = "https://graph.microsoft.com"
READ_WRITE = "Presence.ReadWrite.All"
READ = "Presence.Read.All"
ADMIN, ADMIN_PASSWORD = "olga", "correct horse battery"
on_sqlite = pytest.mark.parametrize("kind", ["sqlite"], indirect=True, scope="session")
on_postgresql = pytest.mark.parametrize("kind", ["postgresql"], indirect=True, scope="session")
"""Marks of what one kind of database alone has."""

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


@cache
def admin_settings() -> dict[str, Any]:
    """The settings of an admin site that ADMIN may sign in to; the hash is a cheap one."""
    account = Account(ADMIN, generate_password_hash(ADMIN_PASSWORD, "scrypt:1024:8:1"))
    return {"admin_users": (account,), "admin_secret_key": SecretStr("k" * 32)}


class Clock:
    """Stands still until a test moves it."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


def new_id() -> str:
    return str(uuid4())


@cache
def signing_key() -> SigningKey:
    """The key of the issuer that the tests' servers believe."""
    return SigningKey(rsa.generate_private_key(public_exponent=65537, key_size=2048))


@dataclass(frozen=True)
class Application:
    """A calling application in one tenant."""

    tenant_id: str
    app_id: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def application(clock: Clock, tenant_id: str, *roles: str, app_id: str | None = None, **claims: Any) -> Application:
    """Return an application with a token that is valid for a year; `claims` go over those of the token."""
    app_id = app_id or new_id()
    made = app_only_claims(tenant_id, app_id, AUDIENCE, roles, clock.now, lifetime=timedelta(days=365))
    return Application(tenant_id, app_id, mint({**made, **claims}, signing_key()))


class Graph:
    """Speaks to the service as the applications of one tenant do."""

    def __init__(self, client: FlaskClient, clock: Clock, mount: str = "/v1.0") -> None:
        self.client = client
        self.clock = clock
        self.mount = mount
        self.tenant_id = new_id()

    def app(self, *roles: str, app_id: str | None = None, **claims: Any) -> Application:
        return application(self.clock, self.tenant_id, *(roles or (READ_WRITE,)), app_id=app_id, **claims)

    def shows(self, user: str, app: Application, shown: Shown, duration: str | None = "PT1H") -> TestResponse:
        body = {"sessionId": app.app_id, **shown._asdict()}
        if duration is not None:
            body["expirationDuration"] = duration
        return self.post(app, f"/users/{user}/presence/setPresence", body)

    def clears(self, user: str, app: Application) -> TestResponse:
        return self.post(app, f"/users/{user}/presence/clearPresence", {"sessionId": app.app_id})

    def post(self, app: Application, path: str, body: object, **headers: str) -> TestResponse:
        return self.client.post(
            self.mount + path,
            data=json.dumps(body),
            content_type="application/json",
            headers={**app.headers, **headers},
        )

    def reads(self, user: str, app: Application) -> TestResponse:
        return self.client.get(f"{self.mount}/users/{user}/presence", headers=app.headers)

    def presence_of(self, user: str, app: Application) -> Shown:
        seen = self.reads(user, app).get_json()
        return Shown(Availability(seen["availability"]), Activity(seen["activity"]))


def rows_of(engine: Engine, tenant_id: str) -> list[object]:
    """Everything that the database holds about a tenant."""
    with engine.connect() as connection:
        return [
            (table.name, *row)
            for table in Base.metadata.sorted_tables
            for row in connection.execute(table.select().where(table.c.tenant_id == tenant_id))
        ]


def assert_ok(response: TestResponse) -> None:
    """An action's answer: 200, nothing in it, and no type that a client would parse nothing as."""
    assert (response.status_code, response.data) == (200, b""), response.data
    assert "Content-Type" not in response.headers
    assert response.headers["Content-Length"] == "0"


def assert_error(response: TestResponse, status: int, code: str, *words: str) -> str:
    """Graph's envelope with this status and code, whose message holds `words`. Returns the message."""
    assert response.status_code == status, response.data
    assert response.headers["Content-Type"] == "application/json"
    assert DASHED_GUID.fullmatch(response.headers["request-id"])
    body = response.get_json()
    assert body.keys() == {"error"}
    error = body["error"]
    assert error.keys() == {"code", "message", "innerError"}
    assert error["code"] == code, error
    inner = error["innerError"]
    assert inner["request-id"] == response.headers["request-id"]
    assert inner["client-request-id"] == response.headers["client-request-id"]
    datetime.strptime(inner["date"], "%Y-%m-%dT%H:%M:%S")  # noqa: DTZ007
    for word in words:
        assert word in error["message"], error["message"]
    return str(error["message"])
