"""Calls from a browser's pages: preflights, and headers that let a page read every answer."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import URL
from werkzeug.test import TestResponse

from app.domain.values import IN_A_CALL
from app.factory import create_app
from config import Settings
from tests.builders import Application, Graph, new_id

BOARD, OTHER = "https://board.example:8443", "https://board.example"
MakeApp = Callable[..., Flask]

SOMEBODY = "fa8bf3dc-eca7-46b7-bad1-db199b62afc3"


@pytest.fixture
def production(database: URL) -> Any:
    """Make a production server for pages of these origins."""
    made: list[Flask] = []

    def make(*origins: str) -> Flask:
        made.append(
            create_app(
                Settings(
                    presence_env="production",
                    database_url=database,
                    auth_tenants=(new_id(),),
                    auth_audiences=("api://presence",),
                    cors_origins=origins,
                )
            )
        )
        return made[-1]

    yield make
    for app in made:
        app.extensions["engine"].dispose()


def asked(app: Flask, path: str, method: str = "GET", origin: str = BOARD, **headers: str) -> TestResponse:
    return app.test_client().open(path, method=method, headers={"Origin": origin, **headers})


def preflight(app: Flask, path: str, names: str, origin: str = BOARD) -> TestResponse:
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": names}
    return asked(app, path, "OPTIONS", origin, **wanted)


def cors_headers(answer: TestResponse) -> set[str]:
    return {name for name, _ in answer.headers if name.startswith("Access-Control-")}


def test_a_browser_asks_again_after_ten_minutes(flask_app: Flask) -> None:
    assert preflight(flask_app, "/v1.0/$batch", "authorization").headers["Access-Control-Max-Age"] == "600"


@pytest.mark.parametrize("path", ["/v1.0/users/x/presence/clearPresence", "/v1.0/$batch", "/nothing", "/healthz", "/"])
@pytest.mark.parametrize(
    "names", ["authorization", "authorization,content-type", "authorization,client-request-id,sdkversion"]
)
def test_a_preflight_is_answered_on_every_path_with_the_names_that_it_asked_for(
    flask_app: Flask, path: str, names: str
) -> None:
    answer = preflight(flask_app, path, names)
    assert (answer.status_code, answer.data) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Access-Control-Allow-Headers"] == names
    assert set(answer.headers["Access-Control-Allow-Methods"].split(", ")) >= {"GET", "POST", "PATCH", "DELETE"}
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", f"/{SOMEBODY}/v2.0/.well-known/openid-configuration", 200),
        ("POST", f"/{SOMEBODY}/oauth2/v2.0/token", 400),
        ("POST", "/emulator/clock", 400),
        ("GET", f"/v1.0/users/{SOMEBODY}/presence", 401),
        ("GET", "/nothing", 404),
        ("DELETE", "/v1.0/users/x/presence", 405),
    ],
)
def test_a_page_can_read_every_answer(flask_app: Flask, method: str, path: str, status: int) -> None:
    answer = asked(flask_app, path, method)
    assert answer.status_code == status
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    exposed = set(answer.headers["Access-Control-Expose-Headers"].split(", "))
    assert {"request-id", "client-request-id", "Retry-After", "WWW-Authenticate", "presence-hint"} <= exposed
    assert "Access-Control-Allow-Methods" not in answer.headers


def test_a_page_can_read_the_500(flask_app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError

    monkeypatch.setitem(flask_app.view_functions, "health.healthz", fails)
    answer = asked(flask_app, "/healthz")
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (500, "*")


def test_who_is_no_page_is_told_nothing_about_pages(graph: Graph, alice: str, bot: Application) -> None:
    assert cors_headers(graph.shows(alice, bot, IN_A_CALL)) == set()


def test_production_is_closed_to_pages(production: MakeApp) -> None:
    app = production()
    for answer in (preflight(app, "/v1.0/users/x/presence", "authorization"), asked(app, "/healthz")):
        assert cors_headers(answer) == set()
        assert answer.status_code < 300


def test_production_lets_the_pages_of_the_named_origins_in_and_no_others(production: MakeApp) -> None:
    app = production(BOARD, "https://second.example")
    for path in (f"/v1.0/users/{new_id()}/presence", "/nothing"):
        assert asked(app, path).headers["Access-Control-Allow-Origin"] == BOARD
        for stranger in (OTHER, "null", f"{BOARD}.evil.example", BOARD.replace("https", "http")):
            assert cors_headers(asked(app, path, origin=stranger)) == set()
            assert cors_headers(preflight(app, path, "authorization", origin=stranger)) == set()
        for origin in (BOARD, OTHER):  # a cache must not hand one origin's answer to another
            assert asked(app, path, origin=origin).headers["Vary"] == "Origin"
    assert preflight(app, "/", "x").headers["Access-Control-Allow-Headers"] == "x"


def test_production_can_be_opened_to_all_pages(production: MakeApp) -> None:
    answer = asked(production("*"), "/nothing", origin="null")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
