"""A short and repeatable part of `make fuzz`, and that it sees what it is there to see."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from alembic import command
from flask import Flask, Response, request, request_finished
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, text

from app.services.presence import PresenceService
from tests.conftest import alembic_config
from tests.fuzz.conversations import SEEDS, conversations
from tests.fuzz.target import SERVERS, Broken, Target


@pytest.fixture(scope="module")
def target(make_database: Callable[[], URL], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The applications, on a database that they may empty."""
    url = make_database()
    command.upgrade(alembic_config(url), "head")
    target = Target(url, tmp_path_factory.mktemp("fuzz"))
    yield target
    target.close()


@pytest.mark.parametrize("title", SEEDS)
def test_the_corpus_is_of_requests_that_are_served(target: Target, title: str) -> None:
    (answer,) = target.converse("development", [SEEDS[title].raw()])
    assert answer.status < 400, answer


def test_the_corpus_reaches_every_view(target: Target) -> None:
    reached = set()

    def note(app: Flask, **_: object) -> None:
        if view := app.view_functions.get(str(request.endpoint)):
            reached.add(view.__name__)

    with request_finished.connected_to(note):
        for seed in SEEDS.values():
            target.converse("development", [seed.raw()])
    assert reached == {view.__name__ for view in target.apps["development"].view_functions.values()}


def test_whatever_is_sent_is_answered_in_order_and_what_is_refused_changes_nothing(target: Target) -> None:
    @settings(max_examples=100, derandomize=True, database=None)
    @given(st.sampled_from(SERVERS), conversations)
    def converse(server: str, sent: list[bytes]) -> None:
        target.converse(server, sent)

    converse()


HEAD = b"POST /v1.0/users/fa8bf3dc-eca7-46b7-bad1-db199b62afc3/presence/clearPresence HTTP/1.1\r\nHost: x\r\n"
CLEAR = HEAD + b"Authorization: Bearer {{app}}\r\nContent-Type: application/json\r\n"
BODY = b'{"sessionId": "22553876-f5ab-4529-bffb-cfe50aa89f87"}'


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(CLEAR + b"Transfer-Encoding: chunked\r\n\r\n4f\r\n" + BODY, 400, id="a chunk cut short"),
        pytest.param(CLEAR + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + BODY, 400, id="no chunk"),
        pytest.param(CLEAR + b"SCRIPT_NAME: /x\r\nContent-Length: {{length}}\r\n\r\n" + BODY, 200, id="SCRIPT_NAME"),
    ],
)
def test_what_was_found_once_stays_mended(target: Target, request_: bytes, status: int) -> None:
    (answer,) = target.converse("production", [request_])
    assert answer.status == status


def failing(_presence: PresenceService, *_: object) -> None:
    raise RuntimeError("broken on purpose")


def forgetting(presence: PresenceService, *_: object) -> int:
    with presence._store._engine.begin() as connection:
        connection.execute(text("DELETE FROM presence_session"))
    return 0


@pytest.mark.parametrize(
    ("method", "does", "title", "seen"),
    [
        ("clear", failing, "clear a session", "broken on purpose"),
        ("count_users", forgetting, "count", "rows were changed"),
        ("set", forgetting, "set a session", "the events tell"),
    ],
)
def test_it_sees(
    target: Target, monkeypatch: pytest.MonkeyPatch, method: str, does: Callable[..., Any], title: str, seen: str
) -> None:
    monkeypatch.setattr(PresenceService, method, does)
    with pytest.raises(Broken, match=seen):
        target.converse("production", [SEEDS[title].raw()])


def test_it_sees_an_error_without_its_envelope(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.errors.json_answer", lambda *_: Response("{}", 400, content_type="application/json"))
    with pytest.raises(Broken, match="no envelope"):
        target.converse("production", [b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"])
