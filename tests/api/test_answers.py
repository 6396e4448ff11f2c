"""Headers, envelopes and the body of a read, on every route."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.api.presence import resource, sequence_number, written
from app.domain.aggregate import Presence
from app.domain.values import (
    AVAILABLE,
    AWAY,
    IN_A_CALL,
    NIL,
    OFFLINE,
    Shown,
    StatusMessage,
    WorkLocation,
    WorkLocationType,
)
from app.web.answers import encode
from tests.builders import START, Application, Clock, Graph, assert_error, new_id


def test_the_read_body_is_graphs(graph: Graph, alice: str, bot: Application) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    answer = graph.reads(alice, bot)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == (
        "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8"
    )
    assert answer.headers["OData-Version"] == "4.0"
    body = answer.get_json()
    version = body.pop("sequenceNumber")
    assert body == {
        "@odata.context": f"http://localhost/v1.0/$metadata#users('{alice}')/presence/$entity",
        "id": alice,
        "availability": "Busy",
        "activity": "InACall",
        "outOfOfficeSettings": {"message": None, "isOutOfOffice": False},
        "statusMessage": None,
        "workLocation": {"placeId": None, "source": "none", "workLocationType": "unspecified"},
    }
    assert version == "A" + f"{int(START.timestamp()) * 1_000_000:016}" * 2


@pytest.mark.parametrize("shown", [OFFLINE, IN_A_CALL])
@pytest.mark.parametrize("content", [None, "Hi", f'"\\\n\u2028 {NIL} A{0:032} %s {{}}'])
@pytest.mark.parametrize("place", [None, NIL, '"'])
@pytest.mark.parametrize("moments", [(None, None), (START, START), (START, START + timedelta(hours=1))])
def test_a_presence_is_written_as_its_resource_would_be(
    shown: Shown, content: str | None, place: str | None, moments: tuple[datetime | None, datetime | None]
) -> None:
    message = StatusMessage(content, START, None) if content else None
    location = WorkLocation(WorkLocationType.OFFICE, place, START) if place else None
    seen = Presence(shown, message, location, "manual" if location else "none", *moments)
    for user_id in (NIL, new_id()):
        assert written(user_id, seen) == encode(resource(user_id, seen))
        assert written(user_id, seen, ["sequenceNumber"]) == f'{{"sequenceNumber":"{sequence_number(seen)}"}}'


@pytest.mark.parametrize(("mount", "base"), [("", "/"), ("/beta", "/beta/")])
def test_the_context_names_the_mount_that_was_asked(
    flask_app: Flask, clock: Clock, alice: str, mount: str, base: str
) -> None:
    graph = Graph(flask_app.test_client(), clock, mount)
    context = graph.reads(alice, graph.app()).get_json()["@odata.context"]
    assert context == f"http://localhost{base}$metadata#users('{alice}')/presence/$entity"


def test_a_user_never_heard_of_is_offline(graph: Graph, reader: Application) -> None:
    body = graph.reads(new_id(), reader).get_json()
    assert (body["availability"], body["activity"], body["sequenceNumber"]) == ("Offline", "Offline", "A" + "0" * 32)


def test_the_sequence_number_moves_with_each_visible_change_and_stands_still_between(
    graph: Graph, clock: Clock, alice: str, bot: Application
) -> None:
    def version() -> str:
        return str(graph.reads(alice, bot).get_json()["sequenceNumber"])

    seen = [version()]
    graph.shows(alice, bot, AVAILABLE, "PT15M")
    seen.append(version())
    for _ in ("fades", "fades again", "expires"):
        clock.move(minutes=5, microseconds=-1)
        assert version() == seen[-1]
        clock.move(microseconds=1)
        seen.append(version())
    graph.shows(alice, bot, AVAILABLE)  # at the very instant of the expiry
    seen.append(version())
    graph.shows(alice, bot, AVAILABLE)  # a keep-alive
    assert version() == seen[-1]
    graph.clears(alice, bot)
    seen.append(version())
    assert seen == sorted(set(seen))


def test_a_keep_alive_restarts_fading_and_expiry(graph: Graph, clock: Clock, alice: str, bot: Application) -> None:
    graph.shows(alice, bot, AVAILABLE, "PT10M")
    clock.move(minutes=5, microseconds=-1)
    graph.shows(alice, bot, AVAILABLE, "PT10M")
    clock.move(minutes=5, microseconds=-1)
    assert graph.presence_of(alice, bot) == AVAILABLE


ROUTES = [
    ("GET", "/nothing", 404, "ResourceNotFound"),
    ("GET", "/v1.0", 404, "ResourceNotFound"),
    ("POST", "/v1.0/users", 404, "ResourceNotFound"),
    ("DELETE", "/v1.0/users/x/presence", 405, "Request_BadRequest"),
    ("GET", "/beta/users/x/presence/clearPresence", 405, "Request_BadRequest"),
    ("POST", "/healthz", 405, "Request_BadRequest"),
    ("GET", "/v1.0/users/x/presence", 401, "InvalidAuthenticationToken"),
]


@pytest.mark.parametrize(("method", "path", "status", "code"), ROUTES)
def test_every_error_has_the_envelope_and_the_headers(
    flask_app: Flask, method: str, path: str, status: int, code: str
) -> None:
    answer = flask_app.test_client().open(path, method=method)
    assert_error(answer, status, code)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert ("Allow" in answer.headers) == (status == 405)
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


def test_405_names_the_methods_that_are_allowed(flask_app: Flask) -> None:
    client = flask_app.test_client()
    assert client.delete("/users/x/presence").headers["Allow"] == "GET, HEAD"
    assert client.get("/users/x/presence/setPresence").headers["Allow"] == "POST"


def test_401_says_where_tokens_come_from(flask_app: Flask) -> None:
    answer = flask_app.test_client().get("/v1.0/users/x/presence")
    assert_error(answer, 401, "InvalidAuthenticationToken", "Access token is empty.")
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="", authorization_uri="https://login.')


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Basic eDp5", "Token abc", "abc"])
def test_no_bearer_token_is_401(flask_app: Flask, authorization: str) -> None:
    answer = flask_app.test_client().get(f"/users/{new_id()}/presence", headers={"Authorization": authorization})
    assert_error(answer, 401, "InvalidAuthenticationToken", "Access token is empty.")


def test_the_scheme_is_taken_in_any_case(graph: Graph, bot: Application) -> None:
    path = f"/v1.0/users/{new_id()}/presence"
    assert graph.client.get(path, headers={"Authorization": f"bEARER  {bot.token}"}).status_code == 200


def test_a_coding_is_named_in_any_letter_case(graph: Graph, bot: Application) -> None:
    headers = {**bot.headers, "Transfer-Encoding": "Chunked"}
    assert graph.client.get(f"/users/{new_id()}/presence", headers=headers).status_code == 200


def test_a_token_in_the_query_is_not_looked_at(graph: Graph, bot: Application) -> None:
    assert graph.client.get(f"/users/{new_id()}/presence?access_token={bot.token}").status_code == 401


def test_ids_are_new_for_each_answer_and_the_clients_is_echoed(flask_app: Flask) -> None:
    client = flask_app.test_client()
    first, second = client.get("/healthz"), client.get("/healthz")
    assert UUID(first.headers["request-id"]) != UUID(second.headers["request-id"])
    assert first.headers["client-request-id"] == first.headers["request-id"]
    for sent in (new_id(), "call-17:leg/2", "x" * 128):
        answer = client.get("/nothing", headers={"client-request-id": sent})
        assert_error(answer, 404, "ResourceNotFound")
        assert (
            answer.headers["client-request-id"] == answer.get_json()["error"]["innerError"]["client-request-id"] == sent
        )
    for odd in ("", "two words", "\xe9", "x" * 129):
        answer = client.get("/nothing", headers={"client-request-id": odd})
        assert answer.headers["client-request-id"] == answer.headers["request-id"]


@pytest.mark.parametrize("path", ["/users//presence", "//users/x/presence", "/v1.0//users/x/presence", "/v1.0/", "//"])
def test_nothing_is_redirected(flask_app: Flask, path: str) -> None:
    assert flask_app.test_client().post(path).status_code in {404, 405}


def test_a_trailing_slash_is_taken(graph: Graph, alice: str, bot: Application) -> None:
    body = {"sessionId": bot.app_id, "availability": "Away", "activity": "Away"}
    assert graph.post(bot, f"/users/{alice}/presence/setPresence/", body).status_code == 200
    answer = graph.client.get(f"/v1.0/users/{alice}/presence/", headers=bot.headers)
    assert answer.get_json()["availability"] == AWAY.availability


def test_head_is_get_without_the_body(graph: Graph, alice: str, bot: Application) -> None:
    answer = graph.client.head(f"/v1.0/users/{alice}/presence", headers=bot.headers)
    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize("path", ["/v1.0/users/x/presence", "/nothing", "/healthz"])
def test_options_is_answered_before_routing_and_without_a_token(flask_app: Flask, path: str) -> None:
    answer = flask_app.test_client().options(path)
    assert (answer.status_code, answer.data) == (204, b"")


def test_every_route_says_who_may_call_it(flask_app: Flask) -> None:
    for rule in flask_app.url_map.iter_rules():
        access = getattr(flask_app.view_functions[rule.endpoint], "access", None)
        assert access, f"{rule} declares nobody"
        if access == "public":
            assert "presence" not in rule.rule


def test_what_fails_inside_is_a_500_that_tells_nothing_but_its_id(
    flask_app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> None:
        raise RuntimeError("a secret")

    monkeypatch.setitem(flask_app.view_functions, "health.healthz", fails)
    message = assert_error(flask_app.test_client().get("/healthz"), 500, "InternalServerError")
    assert "secret" not in message
    assert "a secret" in caplog.text


def test_health_says_ok_and_readiness_asks_the_database(flask_app: Flask) -> None:
    client: FlaskClient = flask_app.test_client()
    assert client.get("/healthz").get_json() == {"status": "ok"}
    assert client.get("/readyz").get_json() == {"status": "ready"}


def test_a_token_expires_on_the_services_own_clock(graph: Graph, clock: Clock, alice: str) -> None:
    app = graph.app(exp=int(START.timestamp()) + 3600)
    clock.now = START + timedelta(seconds=3659)  # the leeway is a minute
    assert graph.reads(alice, app).status_code == 200
    clock.now = START + timedelta(seconds=3660)
    assert_error(graph.reads(alice, app), 401, "InvalidAuthenticationToken", "expired")


@pytest.mark.parametrize("path", ["/healthz", "/nothing"])
def test_a_body_is_labelled_and_an_empty_one_is_not(flask_app: Flask, path: str) -> None:
    client = flask_app.test_client()
    assert client.get(path).headers["Content-Type"] == "application/json"
    assert "Content-Type" not in client.options(path).headers


def test_head_is_the_answer_without_its_body(flask_app: Flask) -> None:
    client = flask_app.test_client()
    whole, head = client.get("/healthz"), client.head("/healthz")
    assert head.headers["Content-Length"] == str(len(whole.data))
    assert (head.status_code, head.data) == (200, b"")
    assert dict(head.headers).keys() == dict(whole.headers).keys()


def test_an_answer_that_may_be_kept_says_so_once(flask_app: Flask) -> None:
    with flask_app.test_client().get("/docs/swagger-ui.css") as answer:
        assert answer.headers.getlist("Cache-Control") == ["no-cache"]


@pytest.mark.parametrize("headers", [{"Host": "a" * 64}, {"Connection": "Upgrade", "Upgrade": "websocket"}])
def test_a_host_that_cannot_be_and_a_protocol_that_is_not_spoken_are_400(
    flask_app: Flask, headers: dict[str, str]
) -> None:
    client = flask_app.test_client()
    for _ in range(2):
        assert client.get("/healthz", headers={"Host": "presence.example"}).status_code == 200
        assert_error(client.get("/healthz", headers=headers), 400, "BadRequest")
