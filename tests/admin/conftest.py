"""The admin site on a database of its own, so that what it counts is what a test put there."""

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic import command
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import URL
from werkzeug.test import TestResponse

from app.db.models import Base
from app.factory import create_app
from app.web.quota import Quota
from config import Settings
from tests.builders import ADMIN, ADMIN_PASSWORD, Clock, Graph, admin_settings, new_id
from tests.conftest import alembic_config


class Browser:
    """Somebody at the admin site."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def get(self, path: str = "", **headers: str) -> TestResponse:
        return self.client.get(f"/admin{path}", headers=headers, buffered=True)

    def page(self, path: str = "") -> str:
        """What a page says, without its markup."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return words(answer)

    def send(self, page: str, path: str, **fields: str) -> TestResponse:
        """Send the form of a page with these fields."""
        return self.client.post(f"/admin{path}", data={"form_token": form_token(self.get(page)), **fields})

    def signs_in(self, name: str = ADMIN, password: str = ADMIN_PASSWORD) -> TestResponse:
        return self.send("/sign-in", "/sign-in", name=name, password=password)


def form_token(answer: TestResponse) -> str:
    found = re.search(r'name="form_token" value="(\w+)"', answer.text)
    assert found, answer.text
    return found[1]


def words(answer: TestResponse) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


@pytest.fixture(scope="session")
def admin_app(
    make_database: Callable[[], URL], jwks_file: Path, session_clock: Clock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    """The application on a database that no test of another folder writes to."""
    url = make_database()
    command.upgrade(alembic_config(url), "head")
    settings = Settings(
        presence_env="development",
        database_url=url,
        auth_jwks_uri=str(jwks_file),
        instance_path=tmp_path_factory.mktemp("instance"),
        **admin_settings(),
    )
    app = create_app(settings, session_clock)
    yield app
    app.extensions["engine"].dispose()


@pytest.fixture(autouse=True)
def nothing_stored(admin_app: Flask) -> None:
    """Start each test with empty tables."""
    with admin_app.extensions["engine"].connect() as connection:
        for table in Base.metadata.sorted_tables:
            connection.execute(table.delete())


@pytest.fixture(autouse=True)
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each count of an attempt to sign in, in this test, which counts from nothing."""
    tried: list[str] = []
    take, test = Quota.take, new_id()

    def noted(self: Quota, *who: str) -> None:
        tried.append(" ".join(who))
        take(self, *who, test)

    monkeypatch.setattr(Quota, "take", noted)
    return tried


@pytest.fixture
def graph(admin_app: Flask, clock: Clock) -> Graph:
    """A client in a tenant of its own."""
    return Graph(admin_app.test_client(), clock)


@pytest.fixture
def stranger(admin_app: Flask, clock: Clock) -> Browser:
    """Somebody who has not signed in."""
    return Browser(admin_app.test_client())


@pytest.fixture
def olga(stranger: Browser) -> Browser:
    """Somebody who has."""
    assert stranger.signs_in().status_code == 303
    return stranger
