"""Tokens over HTTP: each unfit one is a 401 that changes nothing; those of our own issuer work."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import URL

from app.factory import create_app
from config import Settings
from tests.builders import Clock, assert_error, new_id, rows_of
from tests.tokens import APP, AUDIENCE, NOW, OTHER_TENANT, TENANT, claims, jwks, signed, v1_claims
from tests.unit.test_tokens import API, OURS, THEIRS, UNFIT

USER = new_id()
BODY = {"sessionId": APP, "availability": "Busy", "activity": "InACall"}


@pytest.fixture(scope="module")
def client(database: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """A production server for two tenants, each with keys of its own."""
    keys = tmp_path_factory.mktemp("keys")
    for tenant, key in ((TENANT, OURS), (OTHER_TENANT, THEIRS)):
        (keys / f"{tenant}.json").write_text(json.dumps(jwks(key)))
    settings = Settings(
        database_url=database,
        auth_tenants=(TENANT, OTHER_TENANT),
        auth_audiences=(AUDIENCE, API),
        auth_jwks_uri=str(keys / "{tenantid}.json"),
    )
    app = create_app(settings, Clock(NOW))
    client = app.test_client()
    sound = bearer(signed(claims(), OURS))
    assert client.post(f"/users/{USER}/presence/setPresence", json=BODY, headers=sound).status_code == 200
    yield client
    app.extensions["engine"].dispose()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


CARRIED = {name: token for name, (token, _) in UNFIT.items() if token == token.strip()}  # a header drops the blanks


@pytest.mark.parametrize("token", CARRIED.values(), ids=CARRIED)
def test_an_unfit_token_is_401_and_changes_nothing(client: FlaskClient, statements: list[str], token: str) -> None:
    token = token.encode("latin-1", "replace").decode("latin-1").replace("\n", " ")  # what a header can carry
    engine = client.application.extensions["engine"]
    before = [rows_of(engine, tenant) for tenant in (TENANT, OTHER_TENANT)]
    for action in ("setPresence", "clearPresence"):
        answer = client.post(f"/users/{USER}/presence/{action}", json=BODY, headers=bearer(token))
        assert_error(answer, 401, "InvalidAuthenticationToken")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    assert statements == []  # nor is the database asked who that may be
    assert [rows_of(engine, tenant) for tenant in (TENANT, OTHER_TENANT)] == before


def test_there_are_at_least_80_unfit_tokens() -> None:
    assert len(set(CARRIED.values())) >= 80


@pytest.mark.parametrize("payload", [claims, v1_claims])
def test_v1_and_v2_tokens_set_and_clear(client: FlaskClient, payload: Callable[[], dict[str, object]]) -> None:
    user, headers = new_id(), bearer(signed(payload(), OURS))
    assert client.post(f"/users/{user}/presence/setPresence", json=BODY, headers=headers).status_code == 200
    assert client.post(f"/users/{user}/presence/clearPresence", json=BODY, headers=headers).status_code == 200


def test_keys_that_cannot_be_had_are_503_with_retry_after(database: URL, tmp_path: Path) -> None:
    settings = Settings(
        database_url=database,
        auth_tenants=(TENANT,),
        auth_audiences=(AUDIENCE,),
        auth_jwks_uri=str(tmp_path / "absent.json"),
    )
    app = create_app(settings, Clock(NOW))
    answer = app.test_client().get(f"/users/{USER}/presence", headers=bearer(signed(claims(), OURS)))
    assert_error(answer, 503, "ServiceUnavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    app.extensions["engine"].dispose()


@pytest.fixture(scope="module")
def development(database: URL) -> Iterator[FlaskClient]:
    """A server with the embedded issuer."""
    app = create_app(Settings(presence_env="development", database_url=database))
    yield app.test_client()
    app.extensions["engine"].dispose()


FORM = {
    "client_id": APP,
    "client_secret": "any",
    "grant_type": "client_credentials",
    "scope": "https://graph.microsoft.com/.default",
}


def test_our_issuer_gives_a_token_as_entra_does(development: FlaskClient) -> None:
    answer = development.post(f"/{TENANT}/oauth2/v2.0/token", data={**FORM, "client_info": "1", "claims": "{}"})
    assert answer.status_code == 200
    assert (answer.headers["Cache-Control"], answer.headers["Pragma"]) == ("no-store, no-cache", "no-cache")
    token = answer.get_json()
    assert token.pop("access_token").count(".") == 2
    assert token == {"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599}


def test_a_scope_that_names_no_resource_will_do(development: FlaskClient) -> None:
    assert development.post(f"/{TENANT}/oauth2/v2.0/token", data={**FORM, "scope": ".default"}).status_code == 200


def test_a_401_says_that_tokens_come_from_here(development: FlaskClient) -> None:
    answer = development.get(f"/users/{new_id()}/presence", base_url="https://presence.test:8443/graph")
    where = "https://presence.test:8443/graph/common/oauth2/v2.0/authorize"
    assert f'authorization_uri="{where}"' in answer.headers["WWW-Authenticate"]


def test_its_v1_endpoint_speaks_v1(development: FlaskClient) -> None:
    form = {**FORM, "resource": "https://graph.microsoft.com"}
    token = development.post(f"/{TENANT}/oauth2/token", data=form).get_json()
    assert token["expires_in"] == "3599"
    assert int(token["expires_on"]) - int(token["not_before"]) == 3599
    assert token["resource"] == "https://graph.microsoft.com"


def test_its_tokens_work_for_any_tenant_and_application(development: FlaskClient) -> None:
    tenant, app, user = new_id(), new_id(), new_id()
    token = development.post(f"/{tenant.upper()}/oauth2/v2.0/token", data={**FORM, "client_id": app.upper()}).get_json()
    headers = bearer(token["access_token"])
    body = {**BODY, "sessionId": app}
    assert development.post(f"/users/{user}/presence/setPresence", json=body, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("roles", "reads", "writes"),
    [("Presence.Read.All", 200, 403), ("Other Presence.ReadWrite.All", 200, 404), ("", 403, 403)],
)
def test_the_roles_can_be_chosen(development: FlaskClient, roles: str, reads: int, writes: int) -> None:
    token = development.post(f"/{TENANT}/oauth2/v2.0/token", data={**FORM, "roles": roles}).get_json()
    path, headers = f"/users/{new_id()}/presence", bearer(token["access_token"])
    assert development.get(path, headers=headers).status_code == reads
    assert development.post(f"{path}/clearPresence", json=BODY, headers=headers).status_code == writes


def test_an_application_may_name_itself_in_the_authorization_header(development: FlaskClient) -> None:
    form = {"grant_type": "client_credentials", "scope": FORM["scope"]}
    answer = development.post(f"/{TENANT}/oauth2/v2.0/token", data=form, auth=(APP, "any"))
    assert answer.status_code == 200


def test_a_form_that_is_not_all_there_gets_no_token(development: FlaskClient) -> None:
    cut_short = {"wsgi.input_terminated": True, "CONTENT_LENGTH": "999"}  # as gunicorn hands it on
    answer = development.post(f"/{TENANT}/oauth2/v2.0/token", data=FORM, environ_overrides=cut_short)
    assert_error(answer, 400, "BadRequest", "Content-Length")


@pytest.mark.parametrize("header", ["Basic", "Basic =", "Basic \xff", "Basic OjA6", "Bearer x"])
def test_a_header_that_names_nobody_is_overlooked(development: FlaskClient, header: str) -> None:
    form = {name: value for name, value in FORM.items() if name != "client_id"}
    answer = development.post(f"/{TENANT}/oauth2/v2.0/token", data=form, headers={"Authorization": header})
    assert (answer.status_code, answer.get_json()["error_codes"]) == (400, [900144])


@pytest.mark.parametrize(
    ("changed", "status", "error", "number"),
    [
        ({"grant_type": None}, 400, "invalid_request", 900144),
        ({"grant_type": "implicit"}, 400, "unsupported_grant_type", 70003),
        ({"client_id": None}, 400, "invalid_request", 900144),
        ({"client_id": "bot"}, 400, "unauthorized_client", 700016),
        ({"client_secret": None}, 401, "invalid_client", 7000218),
        ({"scope": None}, 400, "invalid_request", 900144),
        ({"scope": "Presence.Read.All"}, 400, "invalid_scope", 70011),
        ({"scope": "https://graph.microsoft.com/.default api://other/.default"}, 400, "invalid_scope", 70011),
        ({"scope": "https://graph.microsoft.com/x.default"}, 400, "invalid_scope", 70011),
    ],
)
def test_a_token_request_that_makes_no_sense_is_refused_in_oauths_shape(
    development: FlaskClient, changed: dict[str, str | None], status: int, error: str, number: int
) -> None:
    form = {name: value for name, value in {**FORM, **changed}.items() if value is not None}
    answer = development.post(f"/{TENANT}/oauth2/v2.0/token", data=form)
    assert answer.status_code == status
    body = answer.get_json()
    assert (body["error"], body["error_codes"]) == (error, [number])
    assert body["error_description"].startswith(f"AADSTS{number}: ")
    assert body["correlation_id"] == answer.headers["client-request-id"]


def test_a_tenant_that_is_no_guid_is_refused(development: FlaskClient) -> None:
    answer = development.post("/contoso/oauth2/v2.0/token", data=FORM)
    assert (answer.status_code, answer.get_json()["error_codes"]) == (400, [900023])


@pytest.mark.parametrize("tenant", [TENANT, "common"])
def test_discovery_follows_the_request_and_names_entras_issuer(development: FlaskClient, tenant: str) -> None:
    path = f"/{tenant}/v2.0/.well-known/openid-configuration"
    found = development.get(path, base_url="https://presence.example:8443").get_json()
    base = f"https://presence.example:8443/{tenant}"
    assert found["token_endpoint"] == f"{base}/oauth2/v2.0/token"
    assert found["authorization_endpoint"] == f"{base}/oauth2/v2.0/authorize"
    assert found["jwks_uri"] == f"{base}/discovery/v2.0/keys"
    named = "{tenantid}" if tenant == "common" else TENANT
    assert found["issuer"] == f"https://login.microsoftonline.com/{named}/v2.0"
    keys = development.get(found["jwks_uri"]).get_json()["keys"]
    assert [key["kty"] for key in keys] == ["RSA"]
    assert not {"d", "p", "q"} & keys[0].keys()
