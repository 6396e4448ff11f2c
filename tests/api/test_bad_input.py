"""What is not right is told apart, named, and changes nothing."""

import gzip
import json
import tracemalloc
from collections.abc import Callable

import pytest
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from app.domain.values import IN_A_CALL, OFFLINE, SETTABLE, Activity, Availability
from tests.builders import Application, Clock, Graph, assert_error, assert_ok, new_id, rows_of


def raw(
    graph: Graph, app: Application, path: str, data: bytes, content_type: str | None, **headers: str
) -> TestResponse:
    return graph.client.post(
        graph.mount + path, data=data, content_type=content_type, headers={**app.headers, **headers}
    )


GOOD = {"availability": "Busy", "activity": "InACall", "expirationDuration": "PT1H"}
MISSING = object()


@pytest.mark.parametrize(
    ("member", "value", "words"),
    [
        ("sessionId", MISSING, ["[SessionId]: The SessionId field is required."]),
        ("sessionId", None, ["[SessionId]: The SessionId field is required."]),
        ("sessionId", "", ["[SessionId]: The SessionId field is required."]),
        ("sessionId", "  ", ["[SessionId]: The SessionId field is required."]),
        ("sessionId", 7, ["[SessionId]", "string"]),
        ("sessionId", ["x"], ["[SessionId]", "string"]),
        ("sessionId", "bot", ["[SessionId]", "GUID", "'bot'"]),
        ("sessionId", "{22553876-f5ab-4529-bffb-cfe50aa89f87}", ["[SessionId]", "GUID"]),
        ("sessionId", "22553876f5ab4529bffbcfe50aa89f87", ["[SessionId]", "GUID"]),
        ("sessionId", "urn:uuid:22553876-f5ab-4529-bffb-cfe50aa89f87", ["[SessionId]", "GUID"]),
        ("sessionId", "22553876-f5ab-4529-bffb-cfe50aa89f87\n", ["[SessionId]", "GUID"]),
        ("sessionId", "22553876-f5ab-4529-bffb-cfe50aa89f8\u0667", ["[SessionId]", "GUID"]),
        ("sessionId", "a" * 40_000, ["[SessionId]", "GUID"]),
        ("availability", MISSING, ["[Availability]: The Availability field is required."]),
        ("availability", None, ["[Availability]", "required"]),
        ("availability", 1, ["[Availability]", "string"]),
        ("availability", "Lunch", ["[Availability]", "Busy/InACall", "Lunch/InACall"]),
        ("activity", MISSING, ["[Activity]: The Activity field is required."]),
        ("activity", {}, ["[Activity]", "string"]),
        ("activity", "Busy", ["[Activity]", "Busy/Busy"]),
        ("expirationDuration", 60, ["[ExpirationDuration]", "ISO 8601", "PT1H"]),
        ("expirationDuration", "", ["[ExpirationDuration]", "ISO 8601"]),
        ("expirationDuration", "1:00:00", ["[ExpirationDuration]", "ISO 8601", "1:00:00"]),
        ("expirationDuration", "PT", ["[ExpirationDuration]", "ISO 8601"]),
        ("expirationDuration", "P1Y", ["[ExpirationDuration]", "ISO 8601"]),
        ("expirationDuration", "-PT1H", ["[ExpirationDuration]", "ISO 8601"]),
        ("expirationDuration", "PT4M59.999999S", ["The provided [ExpirationDuration] is out of range."]),
        ("expirationDuration", "PT4H0.000001S", ["The provided [ExpirationDuration] is out of range."]),
        ("expirationDuration", "P999999999DT999999999H", ["[ExpirationDuration]"]),
    ],
)
def test_a_member_that_does_not_fit_is_named(
    graph: Graph, engine: Engine, alice: str, bot: Application, member: str, value: object, words: list[str]
) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    before = rows_of(engine, graph.tenant_id)
    body = {
        name: what for name, what in {"sessionId": bot.app_id, **GOOD, member: value}.items() if what is not MISSING
    }
    assert_error(graph.post(bot, f"/users/{alice}/presence/setPresence", body), 400, "InvalidArgument", *words)
    if member == "sessionId":
        assert_error(graph.post(bot, f"/users/{alice}/presence/clearPresence", body), 400, "InvalidArgument", *words)
    assert rows_of(engine, graph.tenant_id) == before


def test_several_members_that_do_not_fit_are_all_named(graph: Graph, alice: str, bot: Application) -> None:
    answer = graph.post(bot, f"/users/{alice}/presence/setPresence", {})
    assert_error(answer, 400, "InvalidArgument", "[SessionId]", "[Availability]", "[Activity]")


@pytest.mark.parametrize(
    "duration", ["PT5M", "PT300S", "PT4H", "PT240M", "P0DT1H", "PT1H30M", "PT3600.5S", None]
)  # both ends, and each way of writing
def test_durations_between_five_minutes_and_four_hours_are_taken(
    graph: Graph, alice: str, bot: Application, duration: str | None
) -> None:
    assert_ok(graph.shows(alice, bot, IN_A_CALL, duration))


def test_only_the_five_pairs_can_be_set_in_any_case(graph: Graph, alice: str, bot: Application) -> None:
    for availability in Availability:
        for activity in Activity:
            for change in (str, str.lower, str.upper):
                body = {"sessionId": bot.app_id, "availability": change(availability), "activity": change(activity)}
                answer = graph.post(bot, f"/users/{alice}/presence/setPresence", body)
                if (availability, activity) in SETTABLE:
                    assert_ok(answer)
                    assert graph.presence_of(alice, bot) == (availability, activity)
                else:
                    assert_error(answer, 400, "InvalidArgument", "[Availability], [Activity]")


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", "InvalidArgument", ["[SessionId]: The SessionId field is required."]),
        (b"{", "BadRequest", ["JSON object"]),
        (b"not json", "BadRequest", ["JSON object"]),
        (b"[]", "BadRequest", ["JSON object"]),
        (b'"text"', "BadRequest", ["JSON object"]),
        (b"null", "BadRequest", ["JSON object"]),
        (b'{"sessionId": NaN}', "BadRequest", ["JSON object"]),
        (b'{"sessionId": Infinity}', "BadRequest", ["JSON object"]),
        (b'{"sessionId": "\xff"}', "BadRequest", ["JSON object"]),
        (b'\xef\xbb\xbf{"sessionId": 1}', "BadRequest", ["JSON object"]),
        (b'{"a":' * 12_000, "BadRequest", ["deeper than 64"]),
        (b"[" * 60_000, "BadRequest", ["deeper than 64"]),
        (b'{"a":' + b"9" * 6_000 + b"}", "BadRequest", ["JSON object"]),
        (b"{}", "InvalidArgument", ["[SessionId]"]),
        (b'{"sessionId": "a", "sessionId": "b"}', "InvalidArgument", ["[sessionId]", "twice"]),
        (b'{"x": {"y": 1, "y": 1}}', "InvalidArgument", ["[y]", "twice"]),
    ],
)
def test_a_body_that_is_no_json_object_is_400(
    graph: Graph, alice: str, bot: Application, data: bytes, code: str, words: list[str]
) -> None:
    answer = raw(graph, bot, f"/users/{alice}/presence/clearPresence", data, "application/json")
    assert_error(answer, 400, code, *words)


def test_a_duration_of_null_is_the_default(graph: Graph, clock: Clock, alice: str, bot: Application) -> None:
    body = {"sessionId": bot.app_id, **GOOD, "expirationDuration": None}
    assert_ok(graph.post(bot, f"/users/{alice}/presence/setPresence", body))
    clock.move(minutes=5, microseconds=-1)
    assert graph.presence_of(alice, bot) == IN_A_CALL
    clock.move(microseconds=1)
    assert graph.presence_of(alice, bot) == OFFLINE


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;odata.metadata=minimal",
        "Application/JSON;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8",
    ],
)
def test_json_is_taken_under_each_of_its_labels(graph: Graph, alice: str, bot: Application, content_type: str) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    data = json.dumps({"sessionId": bot.app_id}).encode()
    assert_ok(raw(graph, bot, f"/users/{alice}/presence/clearPresence", data, content_type))


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jso"]
)
def test_another_label_is_415(graph: Graph, alice: str, bot: Application, content_type: str | None) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    data = json.dumps({"sessionId": bot.app_id}).encode()
    answer = raw(graph, bot, f"/users/{alice}/presence/clearPresence", data, content_type)
    assert_error(answer, 415, "UnsupportedMediaType", "application/json")
    assert graph.presence_of(alice, bot) == IN_A_CALL


CLEAR = "/users/{}/presence/clearPresence"


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_a_gzip_body_is_read(graph: Graph, alice: str, bot: Application, encoding: str) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    first, rest = b'{"sessionId":', f'"{bot.app_id}"}}'.encode()
    data = gzip.compress(first) + gzip.compress(rest)  # two members are one file. Source: RFC 1952, 2.2
    answer = raw(graph, bot, CLEAR.format(alice), data, "application/json", **{"Content-Encoding": encoding})
    assert_ok(answer)
    assert graph.presence_of(alice, bot) == OFFLINE


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", ""])
def test_a_body_in_another_encoding_is_415(graph: Graph, alice: str, bot: Application, encoding: str) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    data = json.dumps({"sessionId": bot.app_id}).encode()
    answer = raw(graph, bot, CLEAR.format(alice), data, "application/json", **{"Content-Encoding": encoding})
    assert_error(answer, 415, "UnsupportedMediaType", "Content-Encoding")
    assert graph.presence_of(alice, bot) == IN_A_CALL


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:9],
        lambda data: data[:-8] + b"\0" * 8,  # checksum and length
        lambda data: data[:10] + b"\xff" * 20,
        lambda data: data + b"more",
        lambda data: b"\x1f\x8b\x07" + data[3:],
        gzip.decompress,
    ],
    ids=["cut", "header only", "checksum", "bits", "more behind", "method", "plain"],
)
def test_a_body_that_is_no_gzip_is_400(
    graph: Graph, alice: str, bot: Application, damage: Callable[[bytes], bytes]
) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    data = damage(gzip.compress(json.dumps({"sessionId": bot.app_id}).encode()))
    answer = raw(graph, bot, CLEAR.format(alice), data, "application/json", **{"Content-Encoding": "gzip"})
    assert_error(answer, 400, "BadRequest", "gzip")
    assert graph.presence_of(alice, bot) == IN_A_CALL


@pytest.mark.parametrize(("size", "status"), [(64 * 1024, 200), (64 * 1024 + 1, 413), (50 * 1024 * 1024, 413)])
def test_a_gzip_body_of_over_64_kib_inside_is_413(
    graph: Graph, alice: str, bot: Application, size: int, status: int
) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    data = gzip.compress(json.dumps({"sessionId": bot.app_id}).encode().ljust(size))
    answer = raw(graph, bot, CLEAR.format(alice), data, "application/json", **{"Content-Encoding": "gzip"})
    if status == 200:
        assert_ok(answer)
    else:
        assert_error(answer, 413, "RequestEntityTooLarge", "65536")
        assert graph.presence_of(alice, bot) == IN_A_CALL


def test_a_gzip_body_costs_no_more_memory_than_its_limit(graph: Graph, alice: str, bot: Application) -> None:
    data = gzip.compress(b" " * 50 * 1024 * 1024)
    tracemalloc.start()
    try:
        answer = raw(graph, bot, CLEAR.format(alice), data, "application/json", **{"Content-Encoding": "gzip"})
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert_error(answer, 413, "RequestEntityTooLarge")
    assert peak_bytes < 2 * 1024 * 1024


UNSTORABLE = ["\\u0000", "a\\u0000b", "\\ud800", "\\udfff", "\\ude00\\ud83d"]


@pytest.mark.parametrize("text", UNSTORABLE)
@pytest.mark.parametrize(
    ("action", "body", "member"),
    [
        ("setStatusMessage", '{"statusMessage": {"message": {"content": "%s"}}}', "[StatusMessage.Message.Content]"),
        ("setManualLocation", '{"workLocationType": "office", "placeId": "%s"}', "[PlaceId]"),
    ],
)
def test_text_that_no_store_holds_is_400_and_named(
    graph: Graph, alice: str, bot: Application, action: str, body: str, member: str, text: str, engine: Engine
) -> None:
    before = rows_of(engine, graph.tenant_id)
    answer = raw(graph, bot, f"/users/{alice}/presence/{action}", (body % text).encode(), "application/json")
    assert_error(answer, 400, "InvalidArgument", member, "NUL")
    assert rows_of(engine, graph.tenant_id) == before


@pytest.mark.parametrize("text", UNSTORABLE)
@pytest.mark.parametrize("member", ["availability", "activity", "sessionId", "expirationDuration"])
def test_nor_is_it_any_other_word(graph: Graph, alice: str, bot: Application, member: str, text: str) -> None:
    body = {"sessionId": bot.app_id, **IN_A_CALL._asdict(), "expirationDuration": "PT5M", member: "%s"}
    data = (json.dumps(body) % text).encode()
    answer = raw(graph, bot, f"/users/{alice}/presence/setPresence", data, "application/json")
    assert_error(answer, 400, "InvalidArgument", member[1:])


@pytest.mark.parametrize("text", UNSTORABLE)
@pytest.mark.parametrize("unknown", ['"unknown": [1, {"a": "%s"}]', '"%s": 1'])
def test_in_what_is_not_read_it_may_stand(graph: Graph, alice: str, bot: Application, unknown: str, text: str) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    data = f'{{"sessionId": "{bot.app_id}", {unknown % text}}}'.encode()
    assert_ok(raw(graph, bot, f"/users/{alice}/presence/clearPresence", data, "application/json"))


@pytest.mark.parametrize("text", UNSTORABLE)
def test_a_request_of_a_batch_that_holds_it_takes_none_with_it(
    graph: Graph, alice: str, bot: Application, text: str
) -> None:
    path, labelled = f"/users/{alice}/presence", {"Content-Type": "application/json"}
    said = {"statusMessage": {"message": {"content": "%s"}}}
    says = {"id": "1", "method": "POST", "url": f"{path}/setStatusMessage", "headers": labelled, "body": said}
    data = json.dumps({"requests": [says, {"id": "2", "method": "GET", "url": path}]}).replace("%s", text).encode()
    answer = raw(graph, bot, "/$batch", data, "application/json")
    assert [item["status"] for item in answer.get_json()["responses"]] == [400, 200]


@pytest.mark.parametrize("text", UNSTORABLE)
def test_a_url_of_a_batch_that_holds_it_is_400(graph: Graph, bot: Application, text: str) -> None:
    body = f'{{"requests": [{{"id": "1", "method": "GET", "url": "/users/{text}/presence"}}]}}'
    answer = raw(graph, bot, "/$batch", body.encode(), "application/json")
    if answer.status_code == 200:
        [item] = answer.get_json()["responses"]
        assert (item["status"], item["body"]["error"]["code"]) == (400, "InvalidArgument")
    else:
        assert_error(answer, 400, "InvalidArgument", "[Requests.0.Url]")


def test_a_character_of_two_escapes_is_one_character(graph: Graph, alice: str, bot: Application) -> None:
    body = '{"statusMessage": {"message": {"content": "\\ud83d\\ude00 \\u00e9", "contentType": "text"}}}'
    assert_ok(raw(graph, bot, f"/users/{alice}/presence/setStatusMessage", body.encode(), "application/json"))
    read = graph.reads(alice, bot).get_json()["statusMessage"]
    assert read["message"]["content"] == "\U0001f600 \u00e9"


@pytest.mark.parametrize(("size", "status"), [(64 * 1024, 200), (64 * 1024 + 1, 413)])
def test_a_body_over_64_kib_is_413(graph: Graph, alice: str, bot: Application, size: int, status: int) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    data = json.dumps({"sessionId": bot.app_id}).encode().ljust(size)
    answer = raw(graph, bot, f"/users/{alice}/presence/clearPresence", data, "application/json")
    if status == 200:
        assert_ok(answer)
    else:
        assert_error(answer, 413, "RequestEntityTooLarge", "65536")
        assert graph.presence_of(alice, bot) == IN_A_CALL


@pytest.mark.parametrize("user", ["bob", "bob@contoso.com", "{0}", "0" * 36, "%00", "a" * 300])
def test_a_user_id_that_is_no_guid_is_400(graph: Graph, bot: Application, user: str) -> None:
    for answer in (graph.reads(user, bot), graph.clears(user, bot), graph.shows(user, bot, IN_A_CALL)):
        assert_error(answer, 400, "InvalidArgument", "[UserId]", "GUID")


def test_what_a_stranger_may_not_know_is_judged_in_order(graph: Graph, alice: str, bot: Application) -> None:
    """Route, token, role, body, ids, somebody else's session, and only then whether it is there."""
    path = f"/users/{alice}/presence/clearPresence"
    nobody = graph.app("Other.Role")
    assert raw(graph, bot, path + "x", b"{", "text/plain").status_code == 404
    assert graph.client.put(graph.mount + path).status_code == 405
    assert graph.client.post(graph.mount + path, data=b"{", content_type="text/plain").status_code == 401
    assert raw(graph, nobody, path, b"{", "text/plain").status_code == 403
    assert raw(graph, bot, path, b"{", "text/plain").status_code == 415
    assert raw(graph, bot, path, b"{", "application/json").status_code == 400
    assert graph.post(bot, "/users/bob/presence/clearPresence", {"sessionId": new_id()}).status_code == 400
    assert graph.post(bot, path, {"sessionId": new_id()}).status_code == 403
    assert graph.clears(alice, bot).status_code == 404


def test_unknown_members_pass_since_real_clients_send_some(graph: Graph, alice: str, bot: Application) -> None:
    body = {"sessionId": bot.app_id, "availability": "Away", "activity": "Away", "expirationDutaion": "PT1H", "x": {}}
    assert_ok(graph.post(bot, f"/users/{alice}/presence/setPresence", body))
