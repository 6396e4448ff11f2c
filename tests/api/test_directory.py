"""Who a user is: from a userPrincipalName to the id that presence goes by."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from flask import Flask
from sqlalchemy import URL
from werkzeug.test import TestResponse

from app.domain.directory import User
from app.domain.values import IN_A_CALL, derived_user_id
from app.factory import create_app
from config import Settings
from tests.builders import AUDIENCE, READ, READ_WRITE, Application, Clock, Graph, assert_error, new_id

ADELE = "Adele.Vance@contoso.com"
ODATA = "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8"


def asks(graph: Graph, app: Application, path: str, **headers: str) -> TestResponse:
    return graph.client.get(graph.mount + path, headers={**app.headers, **headers})


def knows(app: Flask, graph: Graph, name: str = ADELE, shown: str = "Adele Vance") -> str:
    """Put a user into the directory and return his id."""
    user_id = new_id()
    list(app.extensions["wiring"].directory.import_users(graph.tenant_id, [User(user_id, name, shown)]))
    return user_id


@pytest.fixture(scope="module")
def production_app(database: URL, jwks_file: Path, session_clock: Clock) -> Iterator[tuple[Flask, str]]:
    """The application as it runs in production, and the tenant that it serves."""
    tenant_id = new_id()
    settings = Settings(
        presence_env="production",
        database_url=database,
        auth_jwks_uri=str(jwks_file),
        auth_tenants=(tenant_id,),
        auth_audiences=(AUDIENCE,),
    )
    app = create_app(settings, session_clock)
    yield app, tenant_id
    app.extensions["engine"].dispose()


@pytest.fixture
def production(production_app: tuple[Flask, str], clock: Clock) -> Graph:
    app, tenant_id = production_app
    graph = Graph(app.test_client(), clock)
    graph.tenant_id = tenant_id
    return graph


@pytest.mark.parametrize("mount", ["", "/v1.0", "/beta"])
def test_a_user_is_found_by_id_and_by_name_in_any_letter_case(flask_app: Flask, clock: Clock, mount: str) -> None:
    graph = Graph(flask_app.test_client(), clock, mount)
    user_id, reader = knows(flask_app, graph), graph.app(READ)
    for name in (user_id, user_id.upper(), ADELE, ADELE.upper(), ADELE.lower(), quote(ADELE, safe="")):
        answer = asks(graph, reader, f"/users/{name}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, ODATA)
        assert answer.get_json() == {
            "@odata.context": f"http://localhost{mount}/$metadata#users/$entity",
            "id": user_id,
            "userPrincipalName": ADELE,
            "displayName": "Adele Vance",
        }


def test_the_id_that_a_name_gives_is_the_one_that_presence_goes_by(
    flask_app: Flask, graph: Graph, bot: Application
) -> None:
    user_id = knows(flask_app, graph)
    found = asks(graph, bot, f"/users/{ADELE}").get_json()["id"]
    graph.shows(found, bot, IN_A_CALL)
    assert graph.presence_of(user_id, bot) == IN_A_CALL


def test_a_tenant_knows_its_own_users_only(flask_app: Flask, graph: Graph, clock: Clock) -> None:
    user_id = knows(flask_app, graph)
    elsewhere = Graph(flask_app.test_client(), clock)
    assert asks(elsewhere, elsewhere.app(), f"/users/{ADELE}").get_json()["id"] != user_id
    assert asks(elsewhere, elsewhere.app(), f"/users/{user_id}").get_json()["displayName"] == user_id


def test_in_development_anybody_is_a_user(graph: Graph, reader: Application) -> None:
    body = asks(graph, reader, "/users/Somebody@contoso.com").get_json()
    derived = derived_user_id(graph.tenant_id, "somebody@contoso.com")
    assert (body["id"], body["userPrincipalName"], body["displayName"]) == (derived, *["Somebody@contoso.com"] * 2)
    stranger = new_id()
    body = asks(graph, reader, f"/users/{stranger}").get_json()
    assert {body["id"], body["userPrincipalName"], body["displayName"]} == {stranger}
    assert asks(graph, reader, f"/users/{body['userPrincipalName']}").get_json()["id"] == stranger


@pytest.mark.parametrize(
    "name", ["delta", "a@b@c", "%00@contoso.com", "a%20b@contoso.com", "%C3%A4@contoso.com", "@", "x" * 99 + "@b"]
)
def test_what_can_be_no_user_is_404_even_in_development(graph: Graph, reader: Application, name: str) -> None:
    assert_error(asks(graph, reader, f"/users/{name}"), 404, "Request_ResourceNotFound", "does not exist")


def test_in_production_only_the_directory_knows_users(production_app: tuple[Flask, str], production: Graph) -> None:
    name = f"{new_id()}@contoso.com"
    user_id, reader = knows(production_app[0], production, name), production.app(READ)
    assert asks(production, reader, f"/users/{name}").get_json()["id"] == user_id
    stranger = new_id()
    for unknown in ("nobody@contoso.com", stranger, "delta"):
        message = assert_error(asks(production, reader, f"/users/{unknown}"), 404, "Request_ResourceNotFound")
        assert message == (
            f"Resource '{unknown}' does not exist or one of its queried reference-property objects are not present."
        )
    signed_in = production.app(scp="User.Read", oid=stranger)
    assert_error(asks(production, signed_in, "/me"), 404, "Request_ResourceNotFound", f"Resource '{stranger}'")
    assert production.shows(stranger, production.app(), IN_A_CALL).status_code == 200  # the directory decides nothing


def test_me_is_who_signed_in(flask_app: Flask, graph: Graph) -> None:
    user_id = knows(flask_app, graph)
    body = asks(graph, graph.app(scp="User.Read", oid=user_id), "/me").get_json()
    assert body == {
        "@odata.context": "http://localhost/v1.0/$metadata#users/$entity",
        "id": user_id,
        "userPrincipalName": ADELE,
        "displayName": "Adele Vance",
    }


def test_an_application_is_nobody(graph: Graph, reader: Application) -> None:
    words = "/me request is only valid with delegated authentication flow."
    assert_error(asks(graph, reader, "/me"), 400, "BadRequest", words)


@pytest.mark.parametrize("claims", [{"scp": "User.Read"}, {"scp": ""}, {"idtyp": "user"}])
def test_any_signed_in_user_may_ask_about_anybody(graph: Graph, claims: dict[str, str]) -> None:
    user = graph.app("Other.Role", oid=new_id(), **claims)
    assert asks(graph, user, f"/users/{new_id()}").status_code == 200


def test_an_application_needs_a_presence_role(graph: Graph) -> None:
    assert asks(graph, graph.app(READ_WRITE), f"/users/{ADELE}").status_code == 200
    assert_error(asks(graph, graph.app("User.Read.All"), f"/users/{ADELE}"), 403, "Forbidden", READ)


def test_select_gives_what_is_asked_for_and_says_of_the_rest_that_it_is_not_set(
    flask_app: Flask, graph: Graph, reader: Application
) -> None:
    user_id = knows(flask_app, graph)
    names = "id,displayName,mail,givenName,surname,jobTitle,businessPhones,userPrincipalName"
    body = asks(graph, reader, f"/users/{ADELE}?$select={names}").get_json()
    assert body == {
        "@odata.context": f"http://localhost/v1.0/$metadata#users({names})/$entity",
        "id": user_id,
        "displayName": "Adele Vance",
        "mail": None,
        "givenName": None,
        "surname": None,
        "jobTitle": None,
        "businessPhones": [],
        "userPrincipalName": ADELE,
    }
    assert asks(graph, reader, f"/users/{ADELE}?$select=displayName").get_json().keys() == {
        "@odata.context",
        "displayName",
    }


@pytest.mark.parametrize("path", ["/users/adele@contoso.com", "/me"])
def test_a_property_that_graph_does_not_have_is_400(graph: Graph, path: str) -> None:
    user = graph.app(scp="User.Read", oid=new_id())
    message = assert_error(asks(graph, user, f"{path}?$select=id,shoeSize"), 400, "BadRequest")
    assert message == "Could not find a property named 'shoeSize' on type 'microsoft.graph.user'."
    assert_error(asks(graph, user, f"{path}?$expand=manager"), 400, "BadRequest", "$expand", "$select")


def test_no_metadata_and_no_json_as_everywhere(graph: Graph, reader: Application) -> None:
    bare = asks(graph, reader, f"/users/{ADELE}", Accept="application/json;odata.metadata=none")
    assert "@odata.context" not in bare.get_json()
    assert_error(asks(graph, reader, f"/users/{ADELE}", Accept="text/html"), 406, "NotAcceptable")


def test_a_lookup_is_one_statement(graph: Graph, reader: Application, statements: list[str]) -> None:
    for name in (ADELE, new_id()):
        statements.clear()
        asks(graph, reader, f"/users/{name}")
        assert len(statements) == 1
