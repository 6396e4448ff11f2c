"""A caller who asks too much is told so, and when to come again."""

from collections.abc import Iterator

import pytest
from flask import Flask
from sqlalchemy import Engine

from app.domain.values import IN_A_CALL
from app.factory import create_app
from config import Settings
from tests.builders import Application, Clock, Graph, assert_error, assert_ok, rows_of


@pytest.fixture(scope="module")
def flask_app(database: object, jwks_file: object, session_clock: Clock) -> Iterator[Flask]:
    """An application that grants three requests in an hour."""
    settings = Settings(
        presence_env="development", database_url=database, auth_jwks_uri=str(jwks_file), rate_limit="3/3600s"
    )
    app = create_app(settings, session_clock)
    yield app
    app.extensions["engine"].dispose()


def test_the_request_after_the_last_is_429_and_changes_nothing(
    graph: Graph, engine: Engine, alice: str, bot: Application, desk: Application
) -> None:
    for _ in range(3):
        assert_ok(graph.shows(alice, bot, IN_A_CALL))
    before = rows_of(engine, graph.tenant_id)
    answer = graph.clears(alice, bot)
    assert_error(answer, 429, "TooManyRequests", "Retry-After")
    assert 3590 <= int(answer.headers["Retry-After"]) <= 3600
    assert rows_of(engine, graph.tenant_id) == before
    assert_ok(graph.shows(alice, desk, IN_A_CALL))


def test_what_is_refused_for_its_token_counts_for_nobody(graph: Graph, alice: str, bot: Application) -> None:
    for _ in range(5):
        answer = graph.client.get(f"/v1.0/users/{alice}/presence", headers={"Authorization": f"Bearer {bot.token}x"})
        assert_error(answer, 401, "InvalidAuthenticationToken")
    assert graph.reads(alice, bot).status_code == 200


def test_health_is_anybodys(graph: Graph) -> None:
    assert {graph.client.get("/healthz").status_code for _ in range(9)} == {200}


def test_each_request_of_a_batch_counts_and_the_batch_does_not(graph: Graph, alice: str, bot: Application) -> None:
    asked = [{"id": key, "method": "GET", "url": f"/users/{alice}/presence"} for key in "abcd"]
    answers = graph.post(bot, "/$batch", {"requests": asked}).get_json()["responses"]
    assert [answer["status"] for answer in answers] == [200, 200, 200, 429]
    assert int(answers[-1]["headers"]["Retry-After"]) > 0
