"""Graph's other spellings of a path: letter case, keys in parentheses, qualified names of actions."""

from urllib.parse import quote

import pytest
from flask import Blueprint, Flask, Response
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from app.domain.values import IN_A_CALL, OFFLINE
from app.web import paths
from app.web.guard import public
from app.web.paths import Spellings
from tests.builders import Application, Graph, assert_error, assert_ok

SPELLINGS = [
    "{mount}/users/{user}/presence/microsoft.graph.clearPresence",
    "{mount}/users/{user}/presence/Microsoft.Graph.CLEARPRESENCE",
    "{mount}/users('{user}')/presence/clearPresence",
    "{mount}/users(%27{user}%27)/presence/clearPresence",
    "{mount}/users%28%27{user}%27%29/presence/clearPresence",
    "{mount}/USERS('{user}')/Presence/microsoft.graph.clearpresence/",
    "{mount}/Users/{user}/PRESENCE/clearpresence",
    "{mount}/users/{user}/presence/clearPresence/",
    "{mount}/communications/presences('{user}')/clearPresence",
    "{mount}/Communications/Presences(%27{user}%27)/microsoft.graph.clearPresence",
]


@pytest.mark.parametrize("mount", ["", "/v1.0", "/V1.0", "/beta", "/BETA"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_action_is_found_however_graph_lets_it_be_spelled(
    graph: Graph, alice: str, bot: Application, mount: str, spelling: str
) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    answer = graph.client.post(
        spelling.format(mount=mount, user=alice.upper()), json={"sessionId": bot.app_id}, headers=bot.headers
    )
    assert_ok(answer)
    assert graph.presence_of(alice, bot) == OFFLINE


@pytest.mark.parametrize(
    "path",
    [
        "/v1.0/communications/microsoft.graph.getPresencesByUserId",
        "/Beta/COMMUNICATIONS/getpresencesbyuserid/",
        "/communications/microsoft.graph.getPresencesByUserId",
    ],
)
def test_an_action_on_many_users_is_found_too(graph: Graph, alice: str, bot: Application, path: str) -> None:
    answer = graph.client.post(path, json={"ids": [alice]}, headers=bot.headers)
    assert [seen["id"] for seen in answer.get_json()["value"]] == [alice]


@pytest.mark.parametrize(
    ("path", "mount"),
    [("/users('{}')/presence", "/"), ("/V1.0/USERS('{}')/PRESENCE", "/v1.0/"), ("/Beta/users/{}/presence/", "/beta/")],
)
def test_the_answer_names_the_mount_as_it_is_routed(
    graph: Graph, alice: str, bot: Application, path: str, mount: str
) -> None:
    answer = graph.client.get(path.format(alice), headers=bot.headers)
    assert answer.status_code == 200
    assert answer.get_json()["@odata.context"] == f"http://localhost{mount}$metadata#users('{alice}')/presence/$entity"


def test_an_id_is_left_as_it_is_spelled(graph: Graph, bot: Application) -> None:
    for key, seen in (("O''Brien@Contoso.com", "O'Brien@Contoso.com"), ("PRESENCE", "PRESENCE"), ("a('b')", "a('b')")):
        path = f"/v1.0/users/{key}/PRESENCE" if key == "a('b')" else f"/v1.0/users('{quote(key)}')/presence"
        assert_error(graph.client.get(path, headers=bot.headers), 400, "InvalidArgument", "[UserId]", repr(seen))


@pytest.mark.parametrize("path", ["/v1.0/USERS/x/presence", "/users('x')/presence", "/Beta/users/x/presence/"])
def test_another_spelling_is_no_way_around_the_token(flask_app: Flask, path: str) -> None:
    assert_error(flask_app.test_client().get(path), 401, "InvalidAuthenticationToken")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1.0/users('x')/presence", "GET, HEAD"),
        ("GET", "/V1.0/users/x/presence/microsoft.graph.setPresence", "POST"),
        ("PATCH", "/BETA/$BATCH", "POST"),
    ],
)
def test_a_method_that_the_path_does_not_have_is_405(flask_app: Flask, method: str, path: str, allowed: str) -> None:
    answer = flask_app.test_client().open(path, method=method)
    assert_error(answer, 405, "Request_BadRequest")
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize(
    "path",
    [
        "/v1.0/users()/presence",
        "/v1.0/users('')/presence",
        "/v1.0/users('x)/presence",
        "/v1.0/users('x'y')/presence",
        "/v1.0/users('x')y/presence",
        "/v1.0/users('x/y')/presence",
        "/v1.0/users('x')('y')/presence",
        "/v1.0('x')/users/x/presence",
        "/v1.0/microsoft.graph.users/x/presence",
        "/v1.0/users/x/presence/graph.clearPresence",
        "/v1.0/users/x/presence/microsoft.graph.microsoft.graph.clearPresence",
        "/v1.0/users/x/presence('y')",
        "/v1.0/users/x/pre\u017fence",  # a letter whose upper case is S
        "/v1x0/users/x/presence",
        "/v1.0/USERS//presence",
        "/v1.0/USERS/x/presence//",
    ],
)
def test_what_is_no_spelling_of_a_path_is_404(graph: Graph, bot: Application, path: str) -> None:
    assert_error(graph.client.get(path, headers=bot.headers), 404, "ResourceNotFound")


@pytest.mark.parametrize("path", ["//healthz", "//docs", "//emulator/clock", "//v1.0/users/x/presence", "//$batch"])
def test_two_slashes_in_front_are_not_one(flask_app: Flask, path: str) -> None:
    answer = flask_app.test_client().open("/", method="GET", environ_overrides={"PATH_INFO": path})
    assert_error(answer, 404, "ResourceNotFound")


@pytest.mark.parametrize("path", ["/HEALTHZ", "/Readyz", "/common/V2.0/.well-known/openid-configuration"])
def test_only_graphs_own_paths_have_several_spellings(flask_app: Flask, path: str) -> None:
    assert_error(flask_app.test_client().get(path), 404, "ResourceNotFound")


def test_keys_and_static_names_side_by_side_find_their_own_route() -> None:
    """As /communications/presences, its items and its $count are."""
    app, bp = Flask(__name__), Blueprint("v1", __name__)
    for rule in ("/presences", "/presences/$count", "/presences/<user_id>", "/presences/<user_id>/go"):
        bp.add_url_rule(
            rule, rule.replace(".", ""), public()(lambda rule=rule, user_id="": Response(f"{rule} {user_id}"))
        )
    app.register_blueprint(bp, url_prefix="/v1.0")
    paths.mount(app, {"v1"})
    client: FlaskClient = app.test_client()
    assert client.get("/V1.0/Presences").text == "/presences "
    assert client.get("/V1.0/presences/$Count").text == "/presences/$count "
    assert client.get("/v1.0/presences('it''s')").text == "/presences/<user_id> it's"
    assert client.get("/v1.0/presences('x')/microsoft.graph.GO").text == "/presences/<user_id>/go x"


RULES = [
    "/$batch",
    "/me/presence",
    "/users/<user_id>",
    "/users/<user_id>/presence",
    "/users/<user_id>/presence/clearPresence",
    "/communications/getPresencesByUserId",
    "/communications/presences/<user_id>/setPresence",
]
MOUNTED = [mount + rule for mount in ("", "/v1.0", "/beta") for rule in RULES]
SERVED = Spellings(MOUNTED)

keys = (st.uuids().map(str) | st.emails() | st.text(min_size=1)).filter(lambda key: "/" not in key)


@st.composite
def spelled(draw: st.DrawFn) -> tuple[str, str]:
    """A canonical path, and another spelling of it."""
    canonical, other = [], []
    *before, last = draw(st.sampled_from(MOUNTED)).strip("/").split("/")
    for part in (*before, last):
        if part.startswith("<"):
            key = draw(keys)
            canonical.append(key)
            in_parentheses = draw(st.booleans())
            other.append("('" + key.replace("'", "''") + "')" if in_parentheses else f"/{key}")
        else:
            canonical.append(part)
            other.append("/" + "".join(draw(st.sampled_from((letter.lower(), letter.upper()))) for letter in part))
    if not last.startswith("<") and draw(st.booleans()):
        other[-1] = f"/microsoft.graph.{other[-1][1:]}"
    return "/" + "/".join(canonical), "".join(other) + draw(st.sampled_from(("", "/")))


@given(spelled())
def test_every_spelling_leads_to_the_one_path_and_that_to_itself(pair: tuple[str, str]) -> None:
    canonical, other = pair
    assert SERVED.canonical(other) == canonical
    assert SERVED.canonical(canonical) == canonical


@given(st.text(alphabet="uU/('$)me.%\u017f\n<>", max_size=40).map("/{}".format) | st.text())
def test_any_text_is_a_spelling_or_none_and_what_comes_out_stays(path: str) -> None:
    canonical = SERVED.canonical(path)
    assert canonical is None or SERVED.canonical(canonical) == canonical
