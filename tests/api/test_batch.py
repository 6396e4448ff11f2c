"""POST /$batch: each request of it is answered as if it came alone."""

import json
import re
from base64 import b64encode
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask, request
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse

from app.domain.values import IN_A_CALL, OFFLINE
from app.services.presence import PresenceService, StoreUnavailable
from app.web.guard import ANY_TOKEN, declare
from tests.builders import READ, Application, Clock, Graph, assert_error, new_id
from tests.servers import ROOT

JSON = {"content-type": "application/json"}
MIB = 1024 * 1024
Item = dict[str, Any]


def post(graph: Graph, app: Application, *requests: object, mount: str | None = None, **headers: str) -> TestResponse:
    path = f"{graph.mount if mount is None else mount}/$batch"
    return graph.client.post(path, json={"requests": requests}, headers={**app.headers, **headers})


def answers(graph: Graph, app: Application, *requests: object, **more: str) -> list[Item]:
    answer = post(graph, app, *requests, **more)
    assert answer.status_code == 200, answer.data
    found: list[Item] = answer.get_json()["responses"]
    return found


def statuses(graph: Graph, app: Application, *requests: object, **more: str) -> list[int]:
    return [item["status"] for item in answers(graph, app, *requests, **more)]


def get(user: str, name: str = "1", **more: object) -> Item:
    return {"id": name, "method": "GET", "url": f"/users/{user}/presence", **more}


def sets(user: str, app: Application, name: str = "1", **more: object) -> Item:
    body = {"sessionId": app.app_id, **IN_A_CALL._asdict(), "expirationDuration": "PT1H"}
    url = f"/users/{user}/presence/setPresence"
    return {"id": name, "method": "POST", "url": url, "headers": JSON, "body": body, **more}


def clears(user: str, app: Application, name: str = "1", **more: object) -> Item:
    body, url = {"sessionId": app.app_id}, f"/users/{user}/presence/clearPresence"
    return {"id": name, "method": "POST", "url": url, "headers": JSON, "body": body, **more}


def assert_item_error(item: Item, status: int, code: str, *words: str) -> None:
    """Graph's envelope in an item, with ids of the item's own."""
    assert item["status"] == status, item
    assert item["headers"]["Content-Type"] == "application/json"
    error = item["body"]["error"]
    assert error["code"] == code, error
    assert error["innerError"]["request-id"] == item["headers"]["request-id"]
    for word in words:
        assert word in error["message"], error["message"]


@pytest.mark.parametrize("mount", ["", "/v1.0", "/beta", "/V1.0"])
def test_a_batch_sets_reads_and_clears_at_each_mount(graph: Graph, alice: str, bot: Application, mount: str) -> None:
    answer = post(
        graph, bot, sets(alice, bot, "a"), get(alice, "b"), clears(alice, bot, "c"), get(alice, "d"), mount=mount
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("application/json;odata.metadata=minimal;")
    assert answer.headers["OData-Version"] == "4.0"
    assert answer.get_json().keys() == {"responses"}
    items = answer.get_json()["responses"]
    assert [(item["id"], item["status"]) for item in items] == [("a", 200), ("b", 200), ("c", 200), ("d", 200)]
    assert "body" not in items[0]
    assert "Content-Type" not in items[0]["headers"]
    assert items[1]["body"]["activity"] == "InACall"
    assert items[1]["body"]["@odata.context"].startswith(f"http://localhost{mount.lower()}/$metadata#users(")
    assert items[1]["headers"]["Content-Type"].startswith("application/json;odata")
    assert items[3]["body"]["availability"] == "Offline"


ALONE: list[tuple[str, str, dict[str, str], object, int]] = [
    ("GET", "/users/{user}/presence", {}, None, 200),
    ("HEAD", "/users/{user}/presence", {}, None, 200),
    ("OPTIONS", "/users/{user}/presence", {}, None, 204),
    ("get", "/users/{user}/presence?$select=id&x=%C3%A9", {"accept": "*/*"}, None, 200),
    ("GET", "/Users('{user}')/PRESENCE/", {}, None, 200),
    ("GET", "/users/%7Buser%7D/presence", {}, None, 400),
    ("GET", "/users/adele%40contoso.com/presence", {}, None, 400),
    ("GET", "/users/x\u00e9/presence", {}, None, 400),
    ("GET", "/users/{user}/presence?$select=availability,activity", {}, None, 200),
    ("GET", "/users/{user}/presence?$select=mood", {}, None, 400),
    ("GET", "/users/{user}/presence", {"accept": "application/json;odata.metadata=none"}, None, 200),
    ("GET", "/users/{user}/presence", {"Accept": "application/xml"}, None, 406),
    ("GET", "/communications/presences?$filter=id in ('{user}', '{app}')&$count=true", {}, None, 200),
    ("GET", "/communications/presences/$count", {"accept": "text/plain"}, None, 200),
    ("GET", "/communications/presences('{user}')", {}, None, 200),
    ("POST", "/communications/getPresencesByUserId", JSON, {"ids": ["{user}", "{app}"]}, 200),
    ("POST", "/communications/getPresencesByUserId", JSON, {"ids": ["{user}"] * 651}, 400),
    ("POST", "/users/{user}/presence/clearUserPreferredPresence", {}, None, 200),
    ("GET", "/me/presence", {}, None, 400),
    ("GET", "/groups/{user}/members", {}, None, 404),
    ("GET", "/users/{user}/photo/$value", {}, None, 404),
    ("POST", "/users/{user}/presence/clearPresence", JSON, {"sessionId": "{app}"}, 404),
    ("POST", "/users/{user}/presence/setPresence", JSON, {"sessionId": "{app}"}, 400),
    ("POST", "/users/{user}/presence/clearPresence", JSON, {"sessionId": "{user}"}, 403),
    ("POST", "/users/{user}/presence/clearPresence", JSON, [], 400),
    ("POST", "/users/{user}/presence/clearPresence", JSON, "text", 400),
    ("POST", "/users/{user}/presence/clearPresence", JSON, {}, 400),
    ("POST", "/users/{user}/presence/clearPresence", JSON, None, 400),
    ("POST", "/users/{user}/presence/clearPresence", {}, None, 400),
    ("POST", "/users/{user}/presence/clearPresence", {"Content-Type": "text/plain"}, {"sessionId": "{app}"}, 415),
    ("POST", "/users/{user}/presence/clearPresence", {**JSON, "content-encoding": "br"}, {"sessionId": "{app}"}, 415),
    ("POST", "/users/{user}/presence/clearPresence", JSON, {"sessionId": "{app}", "x": "y" * 65_536}, 413),
    ("DELETE", "/users/{user}/presence", {}, None, 405),
    ("PATCH", "/users/{user}/presence", JSON, {}, 405),
    ("BREW", "/users/{user}/presence", {}, None, 405),
    ("GET", "/$batch", {}, None, 405),
]


def told(status: int, headers: dict[str, str], body: object) -> tuple[object, ...]:
    """An answer without what differs between any two: its ids, its date and its length."""
    if isinstance(body, dict) and "error" in body:
        assert body["error"].pop("innerError")["request-id"] == headers["request-id"]
    return status, {name: headers[name] for name in headers.keys() - {"request-id", "client-request-id"}}, body


@pytest.mark.parametrize(("method", "path", "headers", "body", "status"), ALONE)
def test_a_request_inside_is_answered_as_the_same_request_alone(
    graph: Graph, alice: str, bot: Application, method: str, path: str, headers: Item, body: object, status: int
) -> None:
    path = path.replace("{user}", alice).replace("{app}", bot.app_id)
    body = body and json.loads(json.dumps(body).replace("{user}", alice).replace("{app}", bot.app_id))
    [item] = answers(graph, bot, {"id": "1", "method": method, "url": path, "headers": headers, "body": body})
    data = None if body is None else json.dumps(body)
    alone = graph.client.open(graph.mount + path, method=method, data=data, headers={**bot.headers, **headers})
    assert alone.status_code == status
    of_its_own = {name: text for name, text in alone.headers if name != "Content-Length"}
    seen = (alone.get_json() if alone.is_json else alone.text) if alone.data else None
    assert told(item["status"], item["headers"], item.get("body")) == told(alone.status_code, of_its_own, seen)
    assert ("body" in item) == bool(alone.data)


def test_the_readmes_batch_is_answered_as_it_says(flask_app: Flask, clock: Clock) -> None:
    [example] = re.findall(r"^```json\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    graph, batch = Graph(flask_app.test_client(), clock), json.loads(example)
    user, app = "fa8bf3dc-eca7-46b7-bad1-db199b62afc3", graph.app(app_id="22553876-f5ab-4529-bffb-cfe50aa89f87")
    assert statuses(graph, app, *batch["requests"]) == [404, 424]
    graph.shows(user, app, IN_A_CALL)
    cleared, read = answers(graph, app, *batch["requests"])
    assert (cleared["status"], read["body"]["availability"]) == (200, "Offline")


def test_what_the_role_does_not_allow_is_403_inside_and_a_batch_needs_no_role(
    graph: Graph, alice: str, bot: Application
) -> None:
    reader, nobody = graph.app(READ), graph.app("Other.Role")
    assert statuses(graph, reader, get(alice, "1"), sets(alice, reader, "2")) == [200, 403]
    refused = answers(graph, nobody, get(alice, "1"), clears(alice, nobody, "2"))
    for item in refused:
        assert_item_error(item, 403, "Forbidden", "roles")
    assert statuses(graph, bot, clears(alice, bot)) == [404]


@pytest.mark.parametrize("authorization", [None, "Bearer x", "Basic eDp5"])
def test_a_batch_without_a_valid_token_is_401_as_a_whole(
    graph: Graph, alice: str, bot: Application, authorization: str
) -> None:
    inner = get(alice, headers=bot.headers)
    headers = {"Authorization": authorization} if authorization else {}
    answer = graph.client.post("/v1.0/$batch", json={"requests": [inner]}, headers=headers)
    assert_error(answer, 401, "InvalidAuthenticationToken")
    assert "WWW-Authenticate" in answer.headers


def test_the_token_of_the_batch_holds_and_one_inside_is_not_looked_at(
    graph: Graph, alice: str, bot: Application
) -> None:
    nobody = graph.app("Other.Role")
    for name in ("Authorization", "AUTHORIZATION"):
        assert statuses(graph, nobody, get(alice, headers={name: f"Bearer {bot.token}"})) == [403]
        assert statuses(graph, bot, get(alice, headers={name: "Bearer x"})) == [200]


def test_each_request_has_an_id_of_its_own_and_the_clients_as_given(graph: Graph, alice: str, bot: Application) -> None:
    outer, inner = new_id(), new_id()
    requests = get(alice, "1"), get(alice, "2", headers={"client-request-id": inner}), get(alice, "3", url="http://x/")
    answer = post(graph, bot, *requests, **{"client-request-id": outer})
    first, second, third = (item["headers"] for item in answer.get_json()["responses"])
    assert [first["client-request-id"], second["client-request-id"], third["client-request-id"]] == [
        outer,
        inner,
        outer,
    ]
    seen = {answer.headers["request-id"], first["request-id"], second["request-id"], third["request-id"]}
    assert len(seen) == 4
    assert answer.headers["client-request-id"] == outer
    [alone] = answers(graph, bot, get(alice))
    assert alone["headers"]["client-request-id"] == alone["headers"]["request-id"]


def test_a_mutation_is_recorded_under_its_own_request_id(
    graph: Graph, engine: Engine, alice: str, bot: Application
) -> None:
    items = answers(graph, bot, sets(alice, bot, "1"), clears(alice, bot, "2"))
    with engine.connect() as connection:
        found = connection.execute(text(f"SELECT request_id FROM presence_event WHERE user_id = '{alice}' ORDER BY id"))  # noqa: S608
        assert [str(row.request_id) for row in found] == [item["headers"]["request-id"] for item in items]


def test_what_fails_inside_is_that_requests_own_status(
    graph: Graph, alice: str, bot: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PresenceService, "clear", Mock(side_effect=ZeroDivisionError))
    bob = new_id()
    items = answers(graph, bot, clears(alice, bot, "1"), sets(bob, bot, "2"), get(bob, "3"))
    assert_item_error(items[0], 500, "InternalServerError")
    assert [item["status"] for item in items[1:]] == [200, 200]
    monkeypatch.setattr(PresenceService, "clear", Mock(side_effect=StoreUnavailable))
    [item] = answers(graph, bot, clears(alice, bot))
    assert_item_error(item, 503, "ServiceUnavailable")
    assert item["headers"]["Retry-After"] == "2"


def test_what_sdks_send_is_taken(graph: Graph, alice: str, bot: Application) -> None:
    """msgraph-core writes "depends_on" and GUIDs; the JavaScript client small numbers, and no headers on a GET."""
    python = {
        "requests": [
            {**sets(alice, bot, new_id()), "headers": {"accept": "application/json", **JSON}, "depends_on": []},
            {**get(alice, new_id()), "url": f"http://localhost/v1.0/users/{alice}/presence", "depends_on": []},
        ],
    }
    answer = graph.post(bot, "/$batch", python, Accept="*/*")
    assert [item["status"] for item in answer.get_json()["responses"]] == [200, 200]
    assert [item["id"] for item in answer.get_json()["responses"]] == [item["id"] for item in python["requests"]]
    toolkit = [
        {
            "id": "0",
            "method": "GET",
            "url": f"/users/{alice}?$select=id,displayName",
            "headers": {"consistencylevel": "eventual"},
        },
        {"id": "1", "method": "GET", "url": "me/insights/used", "headers": None, "body": None, "dependsOn": None},
        {"id": "2", "method": "GET", "url": f"users/{alice}/presence", "dependsOn": []},
    ]
    items = answers(graph, bot, *toolkit)
    assert items[1]["status"] == 404
    assert items[2]["body"]["activity"] == "InACall"


@pytest.mark.parametrize(
    "url",
    [
        "users/{user}/presence",
        "/users/{user}/presence",
        "http://localhost/v1.0/users/{user}/presence",
        "HTTP://LOCALHOST:80/V1.0/users('{user}')/presence?$select=id",
        "https://localhost/v1.0/users/{user}/presence#part",
    ],
)
def test_a_url_is_relative_or_absolute_below_the_mount(graph: Graph, alice: str, bot: Application, url: str) -> None:
    assert statuses(graph, bot, get(alice, url=url.replace("{user}", alice))) == [200]


@pytest.mark.parametrize(
    "url",
    [
        "https://graph.microsoft.com/v1.0/users/{user}/presence",
        "http://localhost:8000/v1.0/users/{user}/presence",
        "http://x@localhost/v1.0/users/{user}/presence",
        "http://localhost/beta/users/{user}/presence",
        "http://localhost/users/{user}/presence",
        "http://localhost/v1.0",
        "//localhost.evil/v1.0/users/{user}/presence",
        "//users/{user}/presence",
        "http:/users/{user}/presence",
        "file:///etc/passwd",
        "http://[/",
        "http://localho\u2100st/v1.0/",
    ],
)
def test_another_hosts_url_is_that_requests_400(graph: Graph, alice: str, bot: Application, url: str) -> None:
    first, second = answers(graph, bot, get(alice, "1", url=url.replace("{user}", alice)), get(alice, "2"))
    assert_item_error(first, 400, "InvalidArgument", "[Url]", "relative", "http://localhost/v1.0/")
    assert second["status"] == 200


def test_a_hosts_name_is_its_name_in_any_letter_case(graph: Graph, alice: str, bot: Application) -> None:
    batch = {"requests": [get(alice, url=f"http://presence.test/v1.0/users/{alice}/presence")]}
    answer = graph.client.post("/v1.0/$batch", json=batch, headers={**bot.headers, "Host": "Presence.Test"})
    assert answer.get_json()["responses"][0]["status"] == 200


def test_at_the_bare_mount_each_mount_is_below_it(graph: Graph, alice: str, bot: Application) -> None:
    urls = f"http://localhost/beta/users/{alice}/presence", f"/v1.0/users/{alice}/presence"
    requests = [get(alice, str(number), url=url) for number, url in enumerate(urls)]
    assert statuses(graph, bot, *requests, mount="") == [200, 200]


@pytest.mark.parametrize(
    ("method", "url"),
    [
        *(("GET", path) for path in ("/healthz", "/readyz", "/openapi.json", "/docs", "/emulator/clock")),
        *(("GET", path) for path in ("/admin/", "/admin/sign-in", "/admin/users.csv", "/admin/static/admin.css")),
        *(("POST", path) for path in ("/admin/sign-in", "/emulator/reset", "/common/oauth2/v2.0/token")),
    ],
)
def test_what_asks_for_no_token_is_not_there_for_a_batch(
    graph: Graph, flask_app: Flask, alice: str, bot: Application, method: str, url: str
) -> None:
    """A proxy that closes it by its path sees no path in a batch."""
    graph.shows(alice, bot, IN_A_CALL)
    assert flask_app.url_map.bind("localhost").match(url, method)
    [item] = answers(graph, bot, {"id": "1", "method": method, "url": url}, mount="")
    assert_item_error(item, 404, "ResourceNotFound", url.rpartition("/")[2])
    assert graph.presence_of(alice, bot) == IN_A_CALL


def test_below_a_proxys_prefix_too(graph: Graph, alice: str, bot: Application) -> None:
    batch = {"requests": [get(alice, "1"), get(alice, "2", url=f"http://localhost/graph/v1.0/users/{alice}/presence")]}
    answer = graph.client.post("/v1.0/$batch", base_url="http://localhost/graph", json=batch, headers=bot.headers)
    for item in answer.get_json()["responses"]:
        assert item["body"]["@odata.context"].startswith("http://localhost/graph/v1.0/$metadata")


@pytest.mark.parametrize("url", ["/$batch", "$batch", "/%24batch", "/$BATCH/", "/microsoft.graph.$batch"])
def test_a_batch_inside_a_batch_is_that_requests_400(graph: Graph, alice: str, bot: Application, url: str) -> None:
    body = {"requests": [sets(alice, bot)]}
    nested = {"id": "1", "method": "POST", "url": url, "headers": JSON, "body": body}
    first, second = answers(graph, bot, nested, get(alice, "2"))
    assert_item_error(first, 400, "InvalidArgument", "$batch")
    assert second["body"]["availability"] == "Offline"


def test_a_request_is_made_after_those_it_depends_on(graph: Graph, alice: str, bot: Application) -> None:
    items = answers(
        graph,
        bot,
        get(alice, "last", dependsOn=["CLEAR"]),
        get(alice, "seen", dependsOn=["set"]),
        clears(alice, bot, "clear", dependsOn=["Set", "seen"]),
        sets(alice, bot, "set"),
    )
    assert [(item["id"], item["status"]) for item in items] == [
        ("last", 200),
        ("seen", 200),
        ("clear", 200),
        ("set", 200),
    ]
    assert items[0]["body"]["availability"] == "Offline"
    assert items[1]["body"]["activity"] == "InACall"


def test_what_depends_on_a_failure_is_424_down_the_chain_and_not_made(
    graph: Graph, alice: str, bot: Application
) -> None:
    first, second, third, free = answers(
        graph,
        bot,
        clears(alice, bot, "first"),
        sets(alice, bot, "second", dependsOn=["first"]),
        sets(alice, bot, "third", dependsOn=["free", "second"]),
        get(alice, "free"),
    )
    assert first["status"] == 404
    assert_item_error(second, 424, "FailedDependency", "'first'")
    assert_item_error(third, 424, "FailedDependency", "'second'")
    assert (free["status"], free["body"]["availability"]) == (200, "Offline")
    assert graph.presence_of(alice, bot) == OFFLINE


@pytest.mark.parametrize(("body", "status"), [({"sessionId": "bot"}, 400), ({}, 400), (None, 200)])
def test_400_is_the_lowest_status_that_is_a_failure(
    graph: Graph, alice: str, bot: Application, body: Item | None, status: int
) -> None:
    first = clears(alice, bot, "1") | ({"body": body} if body is not None else {})
    graph.shows(alice, bot, IN_A_CALL)
    assert statuses(graph, bot, first, get(alice, "2", dependsOn=["1"])) == [status, 200 if status == 200 else 424]


def test_a_batch_holds_20_requests_and_no_more(graph: Graph, alice: str, bot: Application) -> None:
    requests = [sets(alice, bot, str(n)) for n in range(20)]
    assert statuses(graph, bot, *requests) == [200] * 20
    answer = post(graph, bot, *requests, clears(alice, bot, "20"))
    assert_error(answer, 400, "InvalidArgument", "[Requests]", "1 to 20", "21")
    assert graph.presence_of(alice, bot) == IN_A_CALL


REST = {"method": "GET", "url": "/me"}
MALFORMED: list[tuple[object, list[str]]] = [
    ({}, ["[Requests]: The Requests field is required."]),
    ({"requests": None}, ["[Requests]: The Requests field is required."]),
    ({"requests": []}, ["[Requests]", "1 to 20"]),
    ({"requests": {}}, ["[Requests]", "list"]),
    ({"requests": [7]}, ["[Requests.0]"]),
    ({"requests": [REST]}, ["[Requests.0.Id]", "required"]),
    ({"requests": [{**REST, "id": 1}]}, ["[Requests.0.Id]", "string"]),
    ({"requests": [{**REST, "id": ""}]}, ["[Requests.0.Id]"]),
    ({"requests": [{"id": "1", "url": "/me"}]}, ["[Requests.0.Method]", "required"]),
    ({"requests": [{**REST, "id": "1", "method": "G T"}]}, ["[Requests.0.Method]"]),
    ({"requests": [{**REST, "id": "1", "method": "GET\n"}]}, ["[Requests.0.Method]"]),
    ({"requests": [{"id": "1", "method": "GET"}]}, ["[Requests.0.Url]", "required"]),
    ({"requests": [{**REST, "id": "1", "url": ""}]}, ["[Requests.0.Url]"]),
    ({"requests": [{**REST, "id": "1", "url": 7}]}, ["[Requests.0.Url]", "string"]),
    ({"requests": [{**REST, "id": "1", "url": "/\ud800"}]}, ["[Requests.0.Url]"]),
    ({"requests": [{**REST, "id": "1", "headers": []}]}, ["[Requests.0.Headers]"]),
    ({"requests": [{**REST, "id": "1", "headers": {"x": 1}}]}, ["[Requests.0.Headers.X]", "string"]),
    ({"requests": [{**REST, "id": "1", "headers": {"x": "a\r\nhost: b"}}]}, ["[Requests.0.Headers.X]"]),
    ({"requests": [{**REST, "id": "1", "headers": {"x": "\u0142"}}]}, ["[Requests.0.Headers.X]"]),
    ({"requests": [{**REST, "id": "1", "headers": {"x y": "z"}}]}, ["[Requests.0.Headers.X y"]),
    ({"requests": [{**REST, "id": "1", "body": {}}]}, ["[Requests.0]", "Content-Type"]),
    (
        {"requests": [{**REST, "id": "1", "headers": {"Content-Type": "text/plain"}, "body": "!"}]},
        ["[Requests.0]", "body", "base64"],
    ),
    ({"requests": [{**REST, "id": "a"}, {**REST, "id": "A"}]}, ["[Requests.1.Id]", "unique", "'A'"]),
    ({"requests": [{**REST, "id": "1", "dependsOn": "1"}]}, ["[Requests.0.DependsOn]", "list"]),
    ({"requests": [{**REST, "id": "1", "dependsOn": ["2"]}]}, ["[Requests.0.DependsOn]", "'2'"]),
    ({"requests": [{**REST, "id": "1", "dependsOn": ["1"]}]}, ["[Requests]", "circle", "1 -> 1"]),
    (
        {"requests": [{**REST, "id": "a", "dependsOn": ["b"]}, {**REST, "id": "b", "dependsOn": ["A"]}]},
        ["[Requests]", "circle", "a -> b -> a"],
    ),
]


@pytest.mark.parametrize(("body", "words"), MALFORMED)
def test_a_malformed_batch_is_400_as_a_whole_naming_the_field(
    graph: Graph, alice: str, bot: Application, body: Any, words: list[str]
) -> None:
    if isinstance(listed := body.get("requests"), list) and listed:
        body = {"requests": [*listed, sets(alice, bot, "good")]}
    answer = graph.post(bot, "/$batch", body)
    assert_error(answer, 400, "InvalidArgument", *words)
    assert graph.presence_of(alice, bot) == OFFLINE


@pytest.mark.parametrize("data", [b"{", b"[]", b"null", b'{"requests": NaN}', b"\xff"])
def test_a_batch_that_is_no_json_object_is_400(graph: Graph, bot: Application, data: bytes) -> None:
    answer = graph.client.post("/v1.0/$batch", data=data, content_type="application/json", headers=bot.headers)
    assert_error(answer, 400, "BadRequest", "JSON object")


def test_a_batch_whose_answer_the_caller_does_not_accept_is_406_and_not_made(
    graph: Graph, alice: str, bot: Application
) -> None:
    assert_error(post(graph, bot, sets(alice, bot), Accept="application/xml"), 406, "NotAcceptable", "application/json")
    assert graph.presence_of(alice, bot) == OFFLINE


def test_a_batch_that_is_not_labelled_json_is_415(graph: Graph, bot: Application) -> None:
    answer = graph.client.post("/v1.0/$batch", data=b"{}", content_type="text/plain", headers=bot.headers)
    assert_error(answer, 415, "UnsupportedMediaType")


def test_a_body_of_any_depth_is_an_answer(graph: Graph, alice: str, bot: Application) -> None:
    """Nesting that can just be read, but not be written again, is refused like the one that cannot be read."""
    for depth in range(100, 1000, 7):
        inner = clears(alice, bot)
        inner["body"]["x"] = "DEEP"
        text = json.dumps({"requests": [inner]}).replace('"DEEP"', "[" * depth + "]" * depth)
        answer = graph.client.post("/v1.0/$batch", data=text, content_type="application/json", headers=bot.headers)
        assert answer.status_code in {200, 400}
        if answer.status_code == 200:
            assert answer.get_json()["responses"][0]["status"] in {400, 404}


@pytest.mark.parametrize(("size", "status"), [(MIB, 200), (MIB + 1, 413)])
def test_a_batch_may_have_1_mib(graph: Graph, alice: str, bot: Application, size: int, status: int) -> None:
    data = json.dumps({"requests": [get(alice)]}).encode().ljust(size)
    answer = graph.client.post("/v1.0/$batch", data=data, content_type="application/json", headers=bot.headers)
    if status == 200:
        assert answer.status_code == 200
    else:
        assert_error(answer, 413, "RequestEntityTooLarge", str(MIB))


def test_other_content_comes_as_base64_and_goes_as_text(
    graph: Graph, flask_app: Flask, monkeypatch: pytest.MonkeyPatch, alice: str, bot: Application
) -> None:
    monkeypatch.setitem(
        flask_app.view_functions,
        "v1.presence.users_set_presence",
        declare(lambda **_: f"{request.content_type} {request.get_data()!r}", ANY_TOKEN),
    )
    headers, body = {"Content-Type": "text/plain"}, b64encode(b"\0\xff").decode()
    [item] = answers(graph, bot, {**sets(alice, bot), "headers": headers, "body": body})
    assert item["body"] == r"text/plain b'\x00\xff'"


def test_the_connection_is_the_batchs_and_all_else_the_requests(
    graph: Graph, flask_app: Flask, monkeypatch: pytest.MonkeyPatch, alice: str, bot: Application
) -> None:
    seen = []

    def look(**_: str) -> str:
        seen.append((request.host_url, request.remote_addr, dict(request.args), dict(request.headers)))
        return "text"

    monkeypatch.setitem(flask_app.view_functions, "v1.presence.users_get_presence", declare(look, ANY_TOKEN))
    spoofed = {
        "Host": "evil",
        "X-Forwarded-For": "6.6.6.6",
        "Forwarded": "x",
        "X_Forwarded_Host": "x",
        "Transfer-Encoding": "chunked",
    }
    kept = {"ConsistencyLevel": "eventual", "X-A": "\u00e9"}
    outer = {"X-Forwarded-Proto": "https", "Prefer": "of-the-batch", "User-Agent": "sdk"}
    url = f"/users/{alice}/presence?$filter=id in ('\u00e9')&b=%26+"
    batch = {"requests": [get(alice, url=url, headers={**spoofed, **kept})]}
    answer = graph.client.post(
        "/v1.0/$batch",
        json=batch,
        headers={**bot.headers, **outer},
        base_url="https://presence.example",
        environ_overrides={"REMOTE_ADDR": "192.0.2.7"},
    )
    assert answer.get_json()["responses"][0]["body"] == "text"
    [(host_url, address, query, headers)] = seen
    assert query == {"$filter": "id in ('\u00e9')", "b": "& "}
    assert (host_url, address) == ("https://presence.example/", "192.0.2.7")
    assert headers == {
        "Host": "presence.example",
        "Authorization": f"Bearer {bot.token}",
        "User-Agent": "sdk",
        "Consistencylevel": "eventual",
        "X-A": "\u00e9",
        "Content-Length": "0",
    }
