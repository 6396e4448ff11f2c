"""Hints: what real Graph would have ignored or refused without a word."""

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import URL
from werkzeug.test import TestResponse

from app.domain.aggregate import UserState
from app.domain.values import (
    AVAILABLE,
    AWAY,
    BUSY,
    IN_A_CALL,
    IN_A_CONFERENCE_CALL,
    OFFLINE,
    PRESENTING,
    Session,
    SessionKey,
    Shown,
)
from app.emulator import hints
from app.emulator.controls import PATH
from app.emulator.explained import ExplainedPresence, why_session_unseen
from app.emulator.hints import HEADER, HintId
from app.factory import create_app
from app.services.presence import StoreUnavailable
from app.web.bodies import body_read
from config import Settings
from tests.builders import AUDIENCE, START, Application, Clock, Graph, assert_error, assert_ok, new_id
from tests.conftest import alembic_config


def hint_lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The lines of the log that are hints."""
    return [record for record in caplog.records if record.name == "app.emulator.hints"]


def hints_of(answer: TestResponse) -> list[tuple[str, str]]:
    """The ids and texts of an answer's hints."""
    said = answer.headers.get(HEADER)
    return [tuple(hint.split("; ", 1)) for hint in said.split(" | ")] if said else []  # type: ignore[misc]


def hint_of(answer: TestResponse) -> tuple[str, str]:
    """The one hint of an answer."""
    (hint,) = hints_of(answer)
    return hint


def prefers(graph: Graph, user: str, app: Application, shown: Shown, **more: str) -> TestResponse:
    return graph.post(app, f"/users/{user}/presence/setUserPreferredPresence", {**shown._asdict(), **more})


def stops_preferring(graph: Graph, user: str, app: Application) -> TestResponse:
    return graph.post(app, f"/users/{user}/presence/clearUserPreferredPresence", {})


def sets(graph: Graph, user: str, app: Application, **more: object) -> TestResponse:
    """Set Busy/InACall in a body with further members, which go first."""
    body = {"sessionId": app.app_id, **IN_A_CALL._asdict(), **more}
    return graph.post(app, f"/users/{user}/presence/setPresence", body)


# What the body says in vain


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("expirationDutaion", '"expirationDutaion": did you mean expirationDuration?'),
        ("expiration_duration", '"expiration_duration": did you mean expirationDuration?'),
        ("SESSIONID", '"SESSIONID": did you mean sessionId?'),
        ("colour", '"colour" is ignored: there is no such member'),
    ],
)
def test_an_unknown_member_is_named_with_the_one_that_was_meant(
    graph: Graph, alice: str, bot: Application, name: str, text: str
) -> None:
    answer = sets(graph, alice, bot, **{name: "PT1H"})
    assert_ok(answer)
    assert hint_of(answer) == (HintId.UNKNOWN_MEMBER, text)


def test_unknown_members_are_found_at_every_depth(graph: Graph, alice: str, bot: Application) -> None:
    said = {"statusMessage": {"message": {"contnt": "x", "content": "lunch"}, "expires": "soon"}}
    answer = graph.post(bot, f"/users/{alice}/presence/setStatusMessage", said)
    assert_ok(answer)
    assert [text.partition(":")[0].partition(" ")[0] for _, text in hints_of(answer)] == ['"contnt"', '"expires"']
    seeded = graph.client.post(f"{PATH}/seed", json={"sessions": [{"tenentId": new_id()}]})
    assert ("unknown-member", '"tenentId": did you mean tenantId?') in hints_of(seeded)


@pytest.mark.parametrize("more", [{"@odata.type": "#x"}, {"statusMessage@odata.type": "#x"}, {"x": None}, {"x": []}])
def test_what_says_nothing_is_no_mistake(graph: Graph, alice: str, bot: Application, more: dict[str, object]) -> None:
    assert hints_of(sets(graph, alice, bot, **more)) == []


def test_a_request_in_a_batch_gets_its_own_hints(graph: Graph, alice: str, bot: Application) -> None:
    body = {"sessionId": bot.app_id, **IN_A_CALL._asdict(), "expirationDutaion": "PT1H"}
    url, headers = f"/users/{alice}/presence/setPresence", {"Content-Type": "application/json"}
    asked = [{"id": "1", "method": "POST", "url": url, "headers": headers, "body": body, "depends_on": []}]
    answer = graph.post(bot, "/$batch", {"requests": asked})
    assert hints_of(answer) == []
    (inner,) = answer.get_json()["responses"]
    assert inner["headers"][HEADER] == 'unknown-member; "expirationDutaion": did you mean expirationDuration?'


@pytest.mark.parametrize(
    ("length", "right"),
    [
        (timedelta(hours=1), "PT1H"),
        (timedelta(minutes=5, seconds=30), "PT5M30S"),
        (timedelta(days=1, hours=2), "P1DT2H"),
        (timedelta(days=2), "P2D"),
        (timedelta(seconds=330, microseconds=500_000), "PT5M30.5S"),
    ],
)
def test_pythons_timedelta_is_told_from_other_mistakes(
    graph: Graph, alice: str, bot: Application, length: timedelta, right: str
) -> None:
    answer = sets(graph, alice, bot, expirationDuration=str(length))
    assert_error(answer, 400, "InvalidArgument", "[ExpirationDuration]")
    assert hint_of(answer) == ("timedelta-duration", f'"{length}" is how Python writes a timedelta; send "{right}"')


@pytest.mark.parametrize("length", ["soon", "1:00", "PT1H", 3600, None])
def test_another_duration_is_not_taken_for_pythons(graph: Graph, alice: str, bot: Application, length: object) -> None:
    assert hints_of(sets(graph, alice, bot, expirationDuration=length)) == []


def test_a_text_that_looks_like_a_timedelta_is_a_text(graph: Graph, alice: str, bot: Application) -> None:
    said = {"statusMessage": {"message": {"content": "1:00:00"}}}
    assert hints_of(graph.post(bot, f"/users/{alice}/presence/setStatusMessage", said)) == []


# Bare refusals


def test_a_session_id_that_is_not_the_app_id_is_explained(
    graph: Graph, alice: str, bot: Application, desk: Application
) -> None:
    answer = sets(graph, alice, bot, sessionId=desk.app_id)
    assert_error(answer, 403, "Forbidden", "[SessionId]")
    assert hint_of(answer) == (
        "foreign-session",
        f"sessionId must be the calling application's id, {bot.app_id}, got {desk.app_id}",
    )


def test_the_missing_role_is_named_and_those_that_are_there(graph: Graph, alice: str, reader: Application) -> None:
    answer = graph.shows(alice, reader, IN_A_CALL)
    assert_error(answer, 403, "Forbidden")
    kind, text = hint_of(answer)
    assert kind == "missing-permission"
    assert "must contain Presence.ReadWrite.All" in text
    assert "It has: Presence.Read.All." in text
    none = graph.app("nothing", roles=[])
    assert hint_of(graph.reads(alice, none))[1].endswith("It has: none.")


def test_a_users_token_is_told_what_it_lacks(graph: Graph, alice: str) -> None:
    user = graph.app(scp="Presence.Read", roles=None, oid=new_id(), idtyp="user")
    answer = graph.shows(alice, user, IN_A_CALL)
    assert_error(answer, 403, "Forbidden")
    assert hint_of(answer) == (
        "missing-permission",
        "Delegated tokens are not supported here: use an application's own token.",
    )
    assert (
        "Presence.Read.All to read another user's presence. It has: Presence.Read."
        in hint_of(graph.reads(alice, user))[1]
    )


# What was done and is not seen


def test_a_session_that_a_preference_hides_is_told_until_when(
    graph: Graph, alice: str, bot: Application, desk: Application
) -> None:
    graph.shows(alice, desk, AVAILABLE)
    prefers(graph, alice, desk, BUSY, expirationDuration="PT8H")
    hidden = (
        "hidden-by-preferred",
        "the user prefers Busy/Busy until 2026-03-02T16:00:00Z, which shows in place of the sessions",
    )
    assert hint_of(graph.shows(alice, bot, PRESENTING)) == hidden
    assert hint_of(graph.shows(alice, bot, PRESENTING)) == hidden
    assert hint_of(graph.clears(alice, bot)) == hidden
    assert hints_of(graph.clears(alice, desk)) == []  # of the last one: the user goes Offline
    assert hint_of(graph.shows(alice, bot, PRESENTING)) == hidden  # it brings the preference back


def test_a_preference_that_has_ended_hides_nothing(
    graph: Graph, clock: Clock, alice: str, bot: Application, desk: Application
) -> None:
    graph.shows(alice, desk, IN_A_CALL, "PT4H")
    prefers(graph, alice, desk, BUSY, expirationDuration="PT1H")
    clock.move(hours=1)
    assert hints_of(graph.shows(alice, bot, PRESENTING)) == []


def test_a_session_that_another_outranks_is_told_which(
    graph: Graph, alice: str, bot: Application, desk: Application
) -> None:
    graph.shows(alice, desk, PRESENTING, "PT30M")
    by = f"DoNotDisturb/Presenting of session {desk.app_id}, which lasts until 2026-03-02T08:30:00Z"
    assert hint_of(graph.shows(alice, bot, IN_A_CALL)) == ("outranked", f"not Busy/InACall shows, but {by}")
    assert hint_of(graph.clears(alice, bot)) == ("outranked", f"what shows is {by}")


def test_a_session_that_was_set_later_outranks_its_equals(
    graph: Graph, clock: Clock, alice: str, bot: Application, desk: Application
) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    clock.move(minutes=1)
    graph.shows(alice, desk, IN_A_CONFERENCE_CALL)
    assert hint_of(graph.shows(alice, bot, IN_A_CALL))[0] == "outranked"  # a keep-alive changes no order


def test_what_has_ended_explains_nothing(
    graph: Graph, clock: Clock, alice: str, bot: Application, desk: Application
) -> None:
    ended = graph.app(app_id="00000000-0000-4000-8000-000000000000")  # the first of all
    for app, duration in ((ended, "PT5M"), (bot, "PT5M"), (desk, "PT1H")):
        graph.shows(alice, app, AWAY, duration)
    prefers(graph, alice, bot, AWAY, expirationDuration="PT5M")
    clock.move(minutes=5)
    until = "2026-03-02T09:00:00Z"
    text = f"the user showed it already: Away/Away of session {desk.app_id}, which lasts until {until}"
    assert hint_of(graph.shows(alice, bot, AWAY)) == ("already-shown", text)
    graph.clears(alice, desk)
    graph.clears(alice, bot)
    assert hints_of(graph.shows(alice, bot, AWAY)) == []


def test_what_showed_already_changes_nothing(graph: Graph, alice: str, bot: Application, desk: Application) -> None:
    graph.shows(alice, desk, IN_A_CALL)
    kind, text = hint_of(graph.shows(alice, bot, IN_A_CALL))
    assert (kind, f"Busy/InACall of session {desk.app_id}" in text) == ("already-shown", True)
    graph.shows(alice, bot, AVAILABLE)
    graph.clears(alice, desk)
    assert hint_of(prefers(graph, alice, bot, AVAILABLE)) == (
        "already-shown",
        "the user showed Available/Available already",
    )


def test_a_user_who_cannot_be_looked_at_is_not_changed(
    graph: Graph, alice: str, bot: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.shows(alice, bot, IN_A_CALL)

    def away(_presence: ExplainedPresence, _key: SessionKey) -> UserState:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(ExplainedPresence, "_look", away)
        for answer in (graph.shows(alice, bot, PRESENTING), graph.clears(alice, bot)):
            assert_error(answer, 503, "ServiceUnavailable")
    assert graph.presence_of(alice, bot) == IN_A_CALL


def test_a_keep_alive_is_told_softly(
    graph: Graph, clock: Clock, alice: str, bot: Application, caplog: pytest.LogCaptureFixture
) -> None:
    graph.shows(alice, bot, AVAILABLE)
    with caplog.at_level(logging.INFO):
        answer = graph.shows(alice, bot, AVAILABLE)
    assert hint_of(answer) == ("keep-alive", "the session showed Available/Available already: only its end moved")
    assert [record.levelname for record in hint_lines(caplog)] == ["INFO"]
    clock.move(minutes=5)  # it fades
    assert hints_of(graph.shows(alice, bot, AVAILABLE)) == []


def test_a_preference_needs_a_live_session(graph: Graph, alice: str, bot: Application) -> None:
    assert hint_of(prefers(graph, alice, bot, BUSY)) == (
        "no-live-session",
        "Busy/Busy shows only while a session is live, and none is: the user is Offline/Offline",
    )


def test_a_preference_that_is_not_there_cannot_be_cleared(
    graph: Graph, clock: Clock, alice: str, bot: Application
) -> None:
    nothing = ("nothing-to-clear", "the user had no preferred presence")
    assert hint_of(stops_preferring(graph, alice, bot)) == nothing
    prefers(graph, alice, bot, BUSY, expirationDuration="PT1H")
    assert hints_of(stops_preferring(graph, alice, bot)) == []
    prefers(graph, alice, bot, BUSY, expirationDuration="PT1H")
    clock.move(hours=1)
    assert hint_of(stops_preferring(graph, alice, bot)) == nothing


def test_what_is_seen_needs_no_hint(graph: Graph, alice: str, bot: Application, desk: Application) -> None:
    changes = (
        graph.shows(alice, bot, AVAILABLE),
        graph.shows(alice, desk, IN_A_CALL),
        graph.shows(alice, desk, PRESENTING),
        graph.clears(alice, desk),
        prefers(graph, alice, bot, BUSY),
        stops_preferring(graph, alice, bot),
        graph.clears(alice, bot),
    )
    assert [hints_of(change) for change in changes] == [[]] * len(changes)
    assert graph.presence_of(alice, bot) == OFFLINE
    assert_error(graph.clears(alice, bot), 404, "NotFound")


# Where they are said


def test_a_hint_is_a_line_of_the_log(
    graph: Graph, alice: str, bot: Application, caplog: pytest.LogCaptureFixture
) -> None:
    answer = sets(graph, alice, bot, colour="red")
    (record,) = hint_lines(caplog)
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        'presence-hint unknown-member; "colour" is ignored: there is no such member '
        f"(POST /v1.0/users/{alice}/presence/setPresence {answer.headers['request-id']})"
    )


def test_what_a_client_sends_forges_no_header_and_no_line(
    graph: Graph, alice: str, bot: Application, reader: Application, caplog: pytest.LogCaptureFixture
) -> None:
    many = {f"größe\r\nSet-Cookie: {number}\x1b[31m | keep-alive; {'x' * 2000}": 1 for number in range(20)}
    answer = sets(graph, alice, bot, **many)
    assert_ok(answer)
    said = answer.headers[HEADER]
    assert said.isascii()
    assert said.isprintable()
    assert len(said) < 1500
    assert "Set-Cookie" not in {name for name, _ in answer.headers}
    assert len(hint_lines(caplog)) == hints.MOST_HINTS
    assert_error(graph.post(reader, "/users/a%0D%0Aforged%E2%80%A8/presence/setPresence", {}), 403, "Forbidden")
    assert all(record.getMessage().isprintable() for record in hint_lines(caplog))


def test_no_token_is_ever_repeated(
    graph: Graph, alice: str, bot: Application, caplog: pytest.LogCaptureFixture
) -> None:
    signature = bot.token.rpartition(".")[2]
    members = {bot.token: 1, "colour": bot.token, "expirationDuration": bot.token, "placeId": [bot.token]}
    answer = sets(graph, alice, bot, **members)
    assert [kind for kind, _ in hints_of(answer)] == ["unknown-member"] * 3
    kept = graph.client.get(f"{PATH}/hints").get_data(as_text=True)
    for said in (answer.headers[HEADER], caplog.text, kept):
        assert signature[:20] not in said
        assert bot.token.split(".")[1][:20] not in said


# Collected


@pytest.fixture(scope="module")
def workers(
    make_database: Callable[[], URL], jwks_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[FlaskClient]]:
    """Two workers of one server that stands at START."""
    url = make_database()
    command.upgrade(alembic_config(url), "head")
    settings = Settings(
        presence_env="development",
        database_url=url,
        auth_jwks_uri=str(jwks_file),
        instance_path=tmp_path_factory.mktemp("instance"),
    )
    apps = [create_app(settings, Clock()) for _ in range(2)]
    yield [app.test_client() for app in apps]
    for app in apps:
        app.extensions["engine"].dispose()


@pytest.fixture
def two(workers: list[FlaskClient], clock: Clock) -> tuple[Graph, Graph]:
    """A client of each worker, in one tenant; nothing was said yet."""
    assert_ok(workers[0].delete(f"{PATH}/hints"))
    first, second = (Graph(worker, clock) for worker in workers)
    second.tenant_id = first.tenant_id
    return first, second


def collected(graph: Graph, since: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = graph.client.get(f"{PATH}/hints?since={since}").get_json()
    return found


def test_hints_of_all_workers_are_collected_in_order(two: tuple[Graph, Graph], alice: str) -> None:
    bot = two[0].app()
    first = sets(two[0], alice, bot, colour="red")
    assert collected(two[1]) == {
        "value": [
            {
                "id": "unknown-member",
                "text": '"colour" is ignored: there is no such member',
                "level": "warning",
                "at": "2026-03-02T08:00:00+00:00",
                "method": "POST",
                "path": f"/v1.0/users/{alice}/presence/setPresence",
                "requestId": first.headers["request-id"],
            }
        ],
        "next": 1,
    }
    sets(two[1], alice, bot)
    later = collected(two[0], since=1)
    assert ([(hint["id"], hint["level"]) for hint in later["value"]], later["next"]) == ([("keep-alive", "info")], 2)
    assert collected(two[0], since=2) == {"value": [], "next": 2}
    assert_ok(two[1].client.delete(f"{PATH}/hints"))
    sets(two[1], alice, bot)
    again = collected(two[0], since=2)  # by one who does not know that counting has begun anew
    assert ([hint["id"] for hint in again["value"]], again["next"]) == (["keep-alive"], 1)


def test_hints_are_forgotten_when_asked_and_with_a_reset(two: tuple[Graph, Graph], alice: str) -> None:
    for method, path in (("DELETE", "hints"), ("POST", "reset")):
        sets(two[0], alice, two[0].app(), colour="red")
        assert collected(two[0])["next"] > 0
        assert_ok(two[1].client.open(f"{PATH}/{path}", method=method))
        assert collected(two[0]) == {"value": [], "next": 0}


def test_a_seed_says_nothing_of_what_it_hides(two: tuple[Graph, Graph], alice: str) -> None:
    session = {"tenantId": new_id(), "userId": alice, "sessionId": new_id(), **AWAY._asdict()}
    sessions = [session, session, {**session, "sessionId": new_id()}]
    assert hints_of(two[0].client.post(f"{PATH}/seed", json={"sessions": sessions})) == []
    assert collected(two[0])["value"] == []


def test_the_collection_begins_anew_before_it_fills_the_disk(
    two: tuple[Graph, Graph], alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "MOST_BYTES", 1000)
    bot = two[0].app()
    counts = []
    for number in range(20):
        sets(two[0], alice, bot, **{f"x{number}": 1})
        counts.append(collected(two[0])["next"])
    assert 2 < max(counts) < 20
    assert collected(two[0])["value"][-2]["text"].startswith('"x19"')


@pytest.mark.parametrize("since", ["x", "-1", "", "1.5", "٣"])
def test_a_place_to_begin_that_is_no_number_is_400(graph: Graph, since: str) -> None:
    assert_error(graph.client.get(f"{PATH}/hints", query_string={"since": since}), 400, "InvalidArgument", "[Since]")


def test_production_gives_no_hints(
    database: URL, jwks_file: Path, tmp_path: Path, clock: Clock, alice: str, statements: list[str]
) -> None:
    tenant_id = new_id()
    settings = Settings(
        presence_env="production",
        database_url=database,
        auth_jwks_uri=str(jwks_file),
        auth_tenants=(tenant_id,),
        auth_audiences=(AUDIENCE,),
        instance_path=tmp_path,
    )
    app: Flask = create_app(settings, clock)
    graph = Graph(app.test_client(), clock)
    graph.tenant_id = tenant_id
    bot, reader = graph.app(), graph.app("Presence.Read.All")
    assert_ok(sets(graph, alice, bot, colour="red"))
    once = len(statements)
    refused = (graph.shows(alice, reader, IN_A_CALL), sets(graph, alice, bot, sessionId=new_id()))
    for answer in (sets(graph, alice, bot, colour="red"), prefers(graph, new_id(), bot, BUSY), *refused):
        assert HEADER not in answer.headers
    looks = sum("presence_user" in sql for sql in statements[:once])
    assert looks == (database.get_backend_name() == "sqlite")  # a set's own look at the user; PostgreSQL needs none
    assert list(body_read.receivers_for(app)) == []
    assert list(tmp_path.iterdir()) == []
    assert_error(graph.client.get(f"{PATH}/hints"), 404, "ResourceNotFound")
    app.extensions["engine"].dispose()


def test_a_session_that_somebody_ended_meanwhile_is_not_explained_by_one_that_has_expired() -> None:
    expired = Session(new_id(), AWAY, START - timedelta(hours=1), START - timedelta(hours=1), START)
    mine = Session(new_id(), IN_A_CALL, START, START, START + timedelta(hours=1))
    before = UserState([expired, mine], START)
    assert why_session_unseen(mine.session_id, IN_A_CALL, before, [expired], START) is None
