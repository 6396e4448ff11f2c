"""The document is what is served, and what is served keeps to the document."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema

from app.domain.values import IN_A_CALL, PREFERABLE, SETTABLE
from app.factory import MOUNTS, create_app
from app.web.errors import REFUSALS
from app.web.guard import Access
from config import Settings
from tests.api.test_permissions import CALLERS, OPERATIONS, Operation
from tests.builders import READ, READ_WRITE, Application, Clock, Graph, application, assert_ok, new_id

Json = dict[str, Any]
EXAMPLE_APP = "22553876-f5ab-4529-bffb-cfe50aa89f87"  # of the documented example, as is the next one
EXAMPLE_USER = "fa8bf3dc-eca7-46b7-bad1-db199b62afc3"
TENANT = "8fe37d9e-6d4d-4a0c-b4e8-9fb5a6d7e2a1"


@pytest.fixture
def client(flask_app: Flask) -> FlaskClient:
    return flask_app.test_client()


@pytest.fixture
def document(client: FlaskClient) -> Json:
    body: Json = client.get("/openapi.json").get_json()
    return body


@pytest.fixture
def production(tmp_path: Path) -> FlaskClient:
    """A server as operators run it; nothing here asks for its database."""
    settings = Settings(
        presence_env="production", auth_tenants=TENANT, auth_audiences="api://presence.example", instance_path=tmp_path
    )
    return create_app(settings).test_client()


@pytest.fixture
def development(tmp_path: Path) -> FlaskClient:
    """A server as `make run` starts it."""
    return create_app(Settings(presence_env="development", instance_path=tmp_path)).test_client()


def operations(document: Json) -> dict[tuple[str, str], Json]:
    """Those of all mounts; what is at the root only has servers of its own."""
    everywhere = {path: item for path, item in document["paths"].items() if "servers" not in item}
    return {(method.upper(), path): said for path, item in everywhere.items() for method, said in item.items()}


def described_as(rule: str) -> str:
    return rule.replace("<user_id>", "{userId}").replace("<user>", "{user}")


# The document


def test_the_document_is_openapi_3_1(document: Json) -> None:
    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()


@pytest.mark.parametrize("mount", MOUNTS)
def test_each_mount_has_what_is_described_and_no_more(flask_app: Flask, document: Json, mount: str) -> None:
    served = {
        (method, described_as(rule.rule.removeprefix(MOUNTS[mount].rstrip("/"))))
        for rule in flask_app.url_map.iter_rules()
        if rule.endpoint.startswith(f"{mount}.")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert served == operations(document).keys()
    assert MOUNTS[mount] in [server["url"] for server in document["servers"]]


def test_the_emulators_controls_are_described_at_the_root_and_in_development_only(
    development: FlaskClient, production: FlaskClient
) -> None:
    described = {
        (method.upper(), path)
        for path, item in development.get("/openapi.json").get_json()["paths"].items()
        for method, said in item.items()
        if item.get("servers") == [{"url": "/"}] and method != "servers" and said["security"] == []
    }
    served = {
        (method, rule.rule)
        for rule in development.application.url_map.iter_rules()
        if rule.endpoint.startswith("emulator.")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert described == served
    assert len(served) == 11
    assert "/emulator" not in production.get("/openapi.json").text


def test_an_operation_names_the_permissions_that_its_view_wants(flask_app: Flask, document: Json) -> None:
    """/me is for users only: there, an application's permission would be of no use."""
    described = operations(document)
    for rule in flask_app.url_map.iter_rules():
        if not rule.endpoint.startswith("graph."):
            continue
        view: Any = flask_app.view_functions[rule.endpoint]
        access: Access = view.access
        (method,) = (rule.methods or set()) - {"HEAD", "OPTIONS"}
        security = described[method, described_as(rule.rule)]["security"]
        wanted = access.own + access.everybody + (() if rule.rule.startswith("/me") else access.roles)
        assert {permission for each in security for permission in each.get("bearer", ())} == set(wanted)
        assert security, "no requirement at all would mean that nobody needs a token"


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if not each.path.startswith("/me")], ids=str)
def test_an_application_is_told_the_role_that_lets_it_pass(document: Json, operation: Operation) -> None:
    path = operation.path if operation.path == "/users/{user}" else operation.path.replace("{user}", "{userId}")
    security = operations(document)[operation.method, path]["security"]
    for kind, role in (("rw", READ_WRITE), ("r", READ)):
        passes = operation.expected[list(CALLERS.values()).index(kind)] == 200
        assert ({"bearer": [role]} in security) == passes


def test_the_bounds_and_the_pairs_are_told(document: Json) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["GetPresencesByUserId"]["properties"]["ids"]["maxItems"] == 650
    assert schemas["Batch"]["properties"]["requests"]["maxItems"] == 20
    for name, allowed in (("SetPresence", SETTABLE), ("SetUserPreferredPresence", PREFERABLE)):
        pairs = [{key: said["const"] for key, said in each["properties"].items()} for each in schemas[name]["anyOf"]]
        assert pairs == [shown._asdict() for shown in allowed]
    assert len(schemas["Availability"]["enum"]) == 9
    assert schemas["PresenceResource"]["required"] == list(schemas["PresenceResource"]["properties"])


def test_every_fact_is_told_of_some_operation_or_is_none_of_theirs(document: Json) -> None:
    told = {name for key in document["components"]["responses"] for name in key.split("-")[1:]}
    elsewhere = {
        "HTTPException",  # what is no HTTP
        "MethodNotAllowed",  # what is no operation
        "FailedDependency",  # inside a batch
        "ParseException",  # what is no HTTP, as gunicorn finds when the body is read
        "Exception",  # what nobody foresees
        "NotReady",  # of /readyz
    }
    assert told | elsewhere == {fact.__name__ for fact in REFUSALS}
    assert told.isdisjoint(elsewhere)


def test_the_examples_work_as_they_stand(document: Json, graph: Graph) -> None:
    """Microsoft's documented example is among them: its application clears its session for its user."""
    app = graph.app(app_id=EXAMPLE_APP)
    for action, model in (("setPresence", "SetPresence"), ("clearPresence", "ClearPresence")):
        path = f"/users/{{userId}}/presence/{action}"
        said = operations(document)["POST", path]
        assert said["requestBody"]["content"]["application/json"]["schema"] == {"$ref": f"#/components/schemas/{model}"}
        members = document["components"]["schemas"][model]["properties"]
        body = {name: member["examples"][0] for name, member in members.items()}
        assert body["sessionId"] == EXAMPLE_APP
        (user,) = (each["example"] for each in said["parameters"])
        assert user == EXAMPLE_USER
        assert_ok(graph.post(app, path.format(userId=user), body))


def test_the_document_is_the_same_from_every_worker(tmp_path: Path) -> None:
    settings = Settings(presence_env="development", instance_path=tmp_path)
    one, other = (create_app(settings).test_client().get("/openapi.json") for _ in range(2))
    assert one.data == other.data


def test_a_token_comes_from_the_embedded_issuer_or_from_entra(
    development: FlaskClient, production: FlaskClient
) -> None:
    def flow(client: FlaskClient) -> Json:
        schemes = client.get("/openapi.json").get_json()["components"]["securitySchemes"]
        found: Json = schemes["application"]["flows"]["clientCredentials"]
        return found

    ours = flow(development)
    (scope,) = ours["scopes"]
    form = {"grant_type": "client_credentials", "client_id": EXAMPLE_APP, "client_secret": "x", "scope": scope}
    granted = development.post(ours["tokenUrl"], data=form)
    assert granted.get_json()["token_type"] == "Bearer"
    assert flow(production) == {
        "tokenUrl": f"https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token",
        "scopes": {"api://presence.example/.default": "All that the application has been granted."},
    }


def test_where_tokens_come_from_is_not_said_when_it_is_not_known(tmp_path: Path) -> None:
    settings = Settings(
        auth_tenants=TENANT,
        auth_audiences="api://presence.example",
        auth_issuers="https://login.example/{tenantid}",
        instance_path=tmp_path,
    )
    document = create_app(settings).test_client().get("/openapi.json").get_json()
    OpenAPIV31SpecValidator(document).validate()
    assert document["components"]["securitySchemes"].keys() == {"bearer"}
    assert all("application" not in each for said in operations(document).values() for each in said["security"])


# The page


def test_the_page_brings_all_it_needs(production: FlaskClient) -> None:
    page = production.get("/docs")
    assert page.mimetype == "text/html"
    assert "http://" not in page.text
    assert "https://" not in page.text
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(linked) == 3
    for path, kind in zip(linked, ("text/css", "image/png", "text/javascript"), strict=True):
        with production.get(path) as asset:
            assert (asset.status_code, asset.mimetype) == (200, kind)
            assert asset.data


def test_the_page_runs_its_own_script_only(production: FlaskClient) -> None:
    pages = [production.get("/docs") for _ in range(2)]
    nonces = [re.findall(r'<script nonce="([^"]+)">', page.text) for page in pages]
    assert nonces[0] != nonces[1]
    for page, (nonce,) in zip(pages, nonces, strict=True):
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none';")
        assert f"script-src 'self' 'nonce-{nonce}';" in policy


def test_the_page_gets_a_token_by_itself_in_development_only(development: FlaskClient, production: FlaskClient) -> None:
    assert "initOAuth" in development.get("/docs").text
    assert "initOAuth" not in production.get("/docs").text


@pytest.mark.parametrize("name", ["nothing.js", "..%2f__init__.py", "%2fetc%2fpasswd", "%00"])
def test_the_page_has_no_other_files(client: FlaskClient, name: str) -> None:
    assert client.get(f"/docs/{name}").status_code == 404


# What is served


def tried(app: Flask, caller: Application, path_regex: str) -> dict[str, set[int]]:
    """Send all that schemathesis thinks of to the operations under a path, and return the statuses of each.

    It tries each bound of each schema from both sides, other methods, missing and odd parts, then random requests.
    """
    config = SchemathesisConfig.from_dict(
        {
            "headers": caller.headers,
            "continue-on-failure": True,
            "generation": {"max-examples": 5, "deterministic": True, "database": "none"},
            "phases": {"stateful": {"enabled": False}},
            "checks": {
                # no schema says every rule: how long a session may last, that an id is of the same batch
                "positive_data_acceptance": {"enabled": False},
                # it cannot be asked of a WSGI application; test_permissions asks
                "ignored_auth": {"enabled": False},
            },
        }
    )
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app, config=config)
    seen: dict[str, set[int]] = defaultdict(set)
    faults: list[str] = []
    for event in from_schema(schema.include(path_regex=path_regex)).execute():
        if isinstance(event, events.ScenarioFinished):
            seen[event.recorder.label] |= {
                each.response.status_code for each in event.recorder.interactions.values() if each.response
            }
            for node in [node for nodes in event.recorder.checks.values() for node in nodes]:
                if node.status is Status.FAILURE and node.failure_info:
                    failed = node.failure_info
                    faults.append(f"{node.name}: {failed.failure.message}\n{failed.code_sample}")
        elif isinstance(event, events.NonFatalError):
            faults.append(event.info.format())
        elif isinstance(event, events.FatalError):
            raise event.exception
    assert not faults, "\n\n".join(faults)
    return seen


def test_what_the_door_refuses_is_documented_where_it_is_refused_and_only_there(graph: Graph, document: Json) -> None:
    """Schemathesis asks for no undocumented type, size or label, and excuses the statuses of those that it sends."""
    nobody, caller = graph.app("Other.Role"), graph.app(app_id=EXAMPLE_APP)
    too_large = 1024 * 1024 + 1
    for (method, path), said in operations(document).items():
        at = "/v1.0" + path.format(userId=EXAMPLE_USER, user=EXAMPLE_USER)
        answers = [
            graph.client.open(at, method=method),
            graph.client.open(at, method=method, headers=nobody.headers, json={}),
            graph.client.open(at, method=method, headers={**caller.headers, "Accept": "image/png"}, json={}),
            graph.client.open(at, method=method, headers=caller.headers, data=b"x", content_type="text/plain"),
            graph.client.open(
                at, method=method, headers=caller.headers, data=b"x" * too_large, content_type="text/xml"
            ),
        ]
        of_the_door = {"401", "403", "406", "413", "415"}
        refused = {
            str(each.status_code): each.get_json()["error"]["code"] for each in answers if each.status_code != 200
        }
        assert refused.keys() & of_the_door == said["responses"].keys() & of_the_door, (method, path)
        for status, code in refused.items():
            kept = document["components"]["responses"][said["responses"][status]["$ref"].rpartition("/")[2]]
            _, narrowed = kept["content"]["application/json"]["schema"]["allOf"]
            assert code in narrowed["properties"]["error"]["properties"]["code"]["enum"], (method, path, status)


def test_an_application_is_answered_as_documented(flask_app: Flask, graph: Graph, document: Json) -> None:
    caller = graph.app(app_id=EXAMPLE_APP)
    graph.shows(EXAMPLE_USER, caller, IN_A_CALL)  # so that the documented example has something to clear, once
    seen = tried(flask_app, caller, "^/(?!me|emulator)")
    assert seen.keys() == {f"{method} {path}" for method, path in operations(document) if not path.startswith("/me")}
    clears = [seen.pop(label) for label in list(seen) if label.endswith("/clearPresence")]
    assert {200, 400, 404, 415} <= set().union(*clears)
    assert [label for label, statuses in seen.items() if not {200, 400} <= statuses] == []


def test_a_user_is_answered_as_documented(flask_app: Flask, clock: Clock, document: Json) -> None:
    caller = application(clock, new_id(), app_id=EXAMPLE_APP, scp="Presence.ReadWrite", idtyp="user", oid=new_id())
    seen = tried(flask_app, caller, "^/me")
    assert seen.keys() == {f"{method} {path}" for method, path in operations(document) if path.startswith("/me")}
    for label, statuses in seen.items():
        assert 403 in statuses if label.endswith(("/setPresence", "/clearPresence")) else 200 in statuses, label
