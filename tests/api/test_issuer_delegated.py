"""The development issuer signs users in: by password, by a browser with PKCE, and again by refresh token."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import jwt
import pytest
from flask.testing import FlaskClient
from jwt.algorithms import RSAAlgorithm
from sqlalchemy import URL
from werkzeug.test import TestResponse

from app.auth.caller import Caller
from app.auth.tokens import InvalidToken
from app.domain.values import derived_user_id
from app.emulator.grants import CODE_LIFETIME, DEVELOPMENT_TENANT, MAX_NAME_LENGTH, REFRESH_TOKEN_LIFETIME
from app.factory import create_app
from app.services.directory import DirectoryService, User
from config import Settings
from tests.builders import START, Clock, assert_error, new_id
from tests.tokens import APP, OTHER_APP, OTHER_TENANT, TENANT

ALICE = "alice@contoso.com"
GRAPH = "https://graph.microsoft.com"
SPA = "http://localhost:3000/signed-in"
VERIFIER = "a-verifier-of-at-least-forty-three-letters-0"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()

PASSWORD = {"grant_type": "password", "client_id": APP, "username": ALICE, "password": "any", "scope": ".default"}
ASKED = {
    "client_id": APP,
    "response_type": "code",
    "redirect_uri": SPA,
    "scope": f"{GRAPH}/Presence.Read openid profile offline_access",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
    "state": "a state & more",
    "nonce": "a nonce",
}
REDEEMED = {
    "grant_type": "authorization_code",
    "client_id": APP,
    "redirect_uri": SPA,
    "code_verifier": VERIFIER,
    "client_info": "1",
}


BrowserOf = Callable[..., "Browser"]


class Browser:
    """A server with the embedded issuer, and somebody who signs in there."""

    def __init__(self, client: FlaskClient, clock: Clock) -> None:
        self.client = client
        self.clock = clock

    def gets_tokens(self, form: dict[str, str], tenant: str = TENANT) -> TestResponse:
        return self.client.post(f"/{tenant}/oauth2/v2.0/token", data=form)

    def opens(self, asked: dict[str, str], tenant: str = TENANT) -> TestResponse:
        return self.client.get(f"/{tenant}/oauth2/v2.0/authorize?{urlencode(asked)}")

    def signs_in(self, asked: dict[str, str], name: str = ALICE, tenant: str = TENANT) -> TestResponse:
        return self.client.post(f"/{tenant}/oauth2/v2.0/authorize?{urlencode(asked)}", data={"username": name})

    def code(self, tenant: str = TENANT, **changed: str | None) -> str:
        answer = self.signs_in(without_none(ASKED, changed), tenant=tenant)
        return parse_qs(urlsplit(answer.location).query)["code"][0]

    def caller(self, token: str) -> Caller:
        """Who the service itself takes the bearer of a token for."""
        caller: Caller = self.client.application.extensions["wiring"].verifier.verify(token)
        return caller

    def claims(self, token: str, audience: str) -> dict[str, object]:
        """What an application reads in a token, by the published keys."""
        keys = self.client.get(f"/{TENANT}/discovery/v2.0/keys").get_json()["keys"]
        key = RSAAlgorithm.from_jwk(next(key for key in keys if key["kid"] == jwt.get_unverified_header(token)["kid"]))
        unclocked = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
        claims: dict[str, object] = jwt.decode(token, key, algorithms=["RS256"], audience=audience, options=unclocked)  # type: ignore[arg-type]
        return claims


def without_none(fields: dict[str, str], changed: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in {**fields, **changed}.items() if value is not None}


def assert_refused(answer: TestResponse, error: str, number: int, status: int = 400) -> None:
    body = answer.get_json()
    assert (answer.status_code, body["error"], body["error_codes"]) == (status, error, [number]), body
    assert body["error_description"].startswith(f"AADSTS{number}: ")
    assert "Location" not in answer.headers


def decoded(base64url: str) -> dict[str, str]:
    content: dict[str, str] = json.loads(base64.urlsafe_b64decode(base64url + "=" * (-len(base64url) % 4)))
    return content


@pytest.fixture(scope="module")
def browser_of(database: URL) -> Iterator[BrowserOf]:
    """A development server's client, with these settings."""
    apps = []

    def make(**settings: Any) -> Browser:
        clock = Clock()
        apps.append(create_app(Settings(presence_env="development", database_url=database, **settings), clock))
        return Browser(apps[-1].test_client(), clock)

    yield make
    for app in apps:
        app.extensions["engine"].dispose()


@pytest.fixture(scope="module")
def module_browser(browser_of: BrowserOf) -> Browser:
    return browser_of()


@pytest.fixture
def browser(module_browser: Browser) -> Browser:
    module_browser.clock.now = START
    return module_browser


# By password


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        (".default", {"Presence.ReadWrite", "Presence.Read.All"}),
        (f"{GRAPH}/.default openid", {"Presence.ReadWrite", "Presence.Read.All"}),
        (f"{GRAPH}/Presence.ReadWrite Presence.Read.All", {"Presence.ReadWrite", "Presence.Read.All"}),
        ("api://presence/Presence.Read offline_access openid profile email", {"Presence.Read"}),
        ("presence.readwrite User.Read User.Read", {"Presence.ReadWrite", "User.Read"}),
        ("openid profile", set()),
    ],
)
def test_a_password_gives_the_token_of_a_user(browser: Browser, scope: str, scopes: set[str]) -> None:
    answer = browser.gets_tokens({**PASSWORD, "scope": scope})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store, no-cache")
    token = answer.get_json()["access_token"]
    assert browser.caller(token) == Caller(
        TENANT,
        APP,
        app_only=False,
        roles=frozenset(),
        scopes=frozenset(scopes),
        user_id=derived_user_id(TENANT, ALICE),
    )


def test_the_claims_are_those_of_entras_delegated_tokens(browser: Browser) -> None:
    token = browser.gets_tokens({**PASSWORD, "scope": "Presence.Read Presence.Read.All"}).get_json()["access_token"]
    claims = browser.claims(token, GRAPH)
    seconds = int(START.timestamp())
    assert claims.pop("uti")
    assert claims.pop("sub") not in {claims["oid"], APP}
    assert claims == {
        "aud": GRAPH,
        "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
        "iat": seconds,
        "nbf": seconds,
        "exp": seconds + 3600,
        "azp": APP,
        "azpacr": "0",
        "idtyp": "user",
        "name": ALICE,
        "oid": derived_user_id(TENANT, ALICE),
        "preferred_username": ALICE,
        "scp": "Presence.Read Presence.Read.All",
        "tid": TENANT,
        "ver": "2.0",
    }
    with_secret = browser.gets_tokens({**PASSWORD, "client_secret": "any"}).get_json()["access_token"]
    assert browser.claims(with_secret, GRAPH)["azpacr"] == "1"


def test_the_subject_is_the_users_own_in_each_application(browser: Browser) -> None:
    tokens = [
        browser.gets_tokens({**PASSWORD, "client_id": app}).get_json()["access_token"] for app in (APP, APP, OTHER_APP)
    ]
    same, again, other = (browser.claims(token, GRAPH) for token in tokens)
    assert same["sub"] == again["sub"] != other["sub"]
    assert same["oid"] == other["oid"]


def test_only_what_is_asked_for_comes_along(browser: Browser) -> None:
    body = browser.gets_tokens({**PASSWORD, "scope": f"{GRAPH}/Presence.Read"}).get_json()
    assert body.pop("access_token")
    assert body == {
        "token_type": "Bearer",
        "expires_in": 3599,
        "ext_expires_in": 3599,
        "scope": f"{GRAPH}/Presence.Read Presence.Read",
    }
    scope = f"{GRAPH}/.default openid offline_access"
    body = browser.gets_tokens({**PASSWORD, "scope": scope, "client_info": "1"}).get_json()
    assert body["scope"] == f"{GRAPH}/.default openid Presence.ReadWrite Presence.Read.All"
    assert decoded(body["client_info"]) == {"uid": derived_user_id(TENANT, ALICE), "utid": TENANT}
    assert body.keys() > {"id_token", "refresh_token"}


@pytest.mark.parametrize("tenant", ["common", "Organizations"])
def test_who_names_no_tenant_is_in_the_development_tenant(browser: Browser, tenant: str) -> None:
    token = browser.gets_tokens(PASSWORD, tenant).get_json()["access_token"]
    caller = browser.caller(token)
    assert (caller.tenant_id, caller.user_id) == (DEVELOPMENT_TENANT, derived_user_id(DEVELOPMENT_TENANT, ALICE))


def test_whom_the_directory_knows_signs_in_as_that_user(browser: Browser) -> None:
    adele = User(new_id(), "Adele@contoso.com", "Adele Vance")
    directory: DirectoryService = browser.client.application.extensions["wiring"].directory
    assert list(directory.import_users(TENANT, [adele])) == [1]
    for name in ("adele@contoso.com", adele.user_id.upper()):
        token = browser.gets_tokens({**PASSWORD, "username": name}).get_json()["access_token"]
        assert browser.caller(token).user_id == adele.user_id
        me = browser.client.get("/v1.0/me", headers={"Authorization": f"Bearer {token}"}).get_json()
        assert (me["id"], me["userPrincipalName"], me["displayName"]) == adele


def test_who_is_signed_in_is_called_by_the_name_that_he_gave(browser: Browser) -> None:
    token = browser.gets_tokens(PASSWORD).get_json()["access_token"]
    me = browser.client.get("/v1.0/me", headers={"Authorization": f"Bearer {token}"}).get_json()
    known = (derived_user_id(TENANT, ALICE), ALICE, ALICE)
    assert (me["id"], me["userPrincipalName"], me["displayName"]) == known


def test_who_names_no_tenant_is_in_the_first_tenant_served(browser_of: BrowserOf) -> None:
    browser = browser_of(auth_tenants=(OTHER_TENANT, TENANT))
    token = browser.gets_tokens(PASSWORD, "common").get_json()["access_token"]
    assert browser.caller(token).tenant_id == OTHER_TENANT


def test_a_users_token_neither_sets_nor_clears(browser: Browser) -> None:
    token = browser.gets_tokens({**PASSWORD, "scope": "Presence.ReadWrite Presence.ReadWrite.All"}).get_json()
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    body = {"sessionId": APP, "availability": "Busy", "activity": "InACall"}
    for action in ("setPresence", "clearPresence"):
        path = f"/users/{derived_user_id(TENANT, ALICE)}/presence/{action}"
        assert_error(browser.client.post(path, json=body, headers=headers), 403, "Forbidden")


@pytest.mark.parametrize(
    ("changed", "error", "number"),
    [
        ({"username": None}, "invalid_grant", 50126),
        ({"username": "  "}, "invalid_grant", 50126),
        ({"username": "alice\x00"}, "invalid_grant", 50126),
        ({"username": "a" * (MAX_NAME_LENGTH + 1)}, "invalid_grant", 50126),
        ({"password": None}, "invalid_grant", 50126),
        ({"password": ""}, "invalid_grant", 50126),
        ({"scope": None}, "invalid_request", 900144),
        ({"scope": f"{GRAPH}/"}, "invalid_scope", 70011),
        ({"client_id": None}, "invalid_request", 900144),
        ({"client_id": "spa"}, "unauthorized_client", 700016),
        ({"grant_type": "urn:ietf:params:oauth:grant-type:device_code"}, "unsupported_grant_type", 70003),
        ({"grant_type": "authorization_code"}, "invalid_request", 900144),
        ({"grant_type": "refresh_token"}, "invalid_request", 900144),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    browser: Browser, changed: dict[str, str | None], error: str, number: int
) -> None:
    assert_refused(browser.gets_tokens(without_none(PASSWORD, changed)), error, number)


@pytest.mark.parametrize("tenant", ["contoso", "consumers", f"{{{TENANT}}}"])
def test_a_tenant_that_users_cannot_be_in_is_refused(browser: Browser, tenant: str) -> None:
    assert_refused(browser.gets_tokens(PASSWORD, tenant), "invalid_request", 900023)
    assert_refused(browser.opens(ASKED, tenant), "invalid_request", 900023)


def test_the_v1_endpoint_gives_applications_tokens_only(browser: Browser) -> None:
    answer = browser.client.post(f"/{TENANT}/oauth2/token", data={**PASSWORD, "resource": GRAPH})
    assert_refused(answer, "unsupported_grant_type", 70003)


# By browser


def test_a_browser_signs_in_with_pkce(browser: Browser) -> None:
    page = browser.opens({**ASKED, "login_hint": 'b"ob'})
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert '<form method="post">' in page.text  # to the very address of the page
    assert re.findall(r"""<input [^>]*name="(.*?)" value="(.*?)" """, page.text) == [("username", "b&#34;ob")]

    sent = browser.signs_in(ASKED)
    assert sent.status_code == 303
    assert sent.location.startswith(f"{SPA}?")
    answer = parse_qs(urlsplit(sent.location).query)
    assert answer.keys() == {"code", "state"}
    assert answer["state"] == [ASKED["state"]]

    tokens = browser.gets_tokens({**REDEEMED, "code": answer["code"][0]}).get_json()
    user_id = derived_user_id(TENANT, ALICE)
    assert browser.caller(tokens["access_token"]) == Caller(
        TENANT, APP, app_only=False, roles=frozenset(), scopes=frozenset({"Presence.Read"}), user_id=user_id
    )
    who = browser.claims(tokens["id_token"], APP)
    assert (who["aud"], who["nonce"], who["oid"], who["preferred_username"]) == (APP, "a nonce", user_id, ALICE)
    assert who["sub"] == browser.claims(tokens["access_token"], GRAPH)["sub"]
    assert decoded(tokens["client_info"]) == {"uid": user_id, "utid": TENANT}
    assert tokens["refresh_token"]


@pytest.mark.parametrize(
    ("mode", "redirect_uri", "begins"),
    [
        (None, f"{SPA}?from=us", f"{SPA}?from=us&code="),
        ("query", "https://app.contoso.com", "https://app.contoso.com?code="),
        ("fragment", SPA, f"{SPA}#code="),
        ("fragment", "http://[::1]:8080/", "http://[::1]:8080/#code="),
    ],
)
def test_the_code_goes_where_it_is_asked_for(
    browser: Browser, mode: str | None, redirect_uri: str, begins: str
) -> None:
    asked = without_none(ASKED, {"response_mode": mode, "redirect_uri": redirect_uri})
    assert browser.signs_in(asked).location.startswith(begins)


def test_an_answer_may_be_posted_by_a_page(browser: Browser) -> None:
    page = browser.signs_in({**ASKED, "response_mode": "form_post", "redirect_uri": f"{SPA}?a=1&b=2"})
    assert page.status_code == 200
    assert unescape(re.findall(r'<form method="post" action="(.*?)">', page.text)[0]) == f"{SPA}?a=1&b=2"
    posted = {name: unescape(value) for name, value in re.findall(r'name="(\w+)" value="(.*?)"', page.text)}
    assert posted.pop("code").count(".") == 2
    assert posted == {"state": ASKED["state"]}
    script = re.findall("<script>(.*?)</script>", page.text)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.headers["Content-Security-Policy"]


def test_a_client_with_a_secret_needs_no_pkce_and_any_other_does(browser: Browser) -> None:
    code = browser.code(code_challenge=None, code_challenge_method=None)
    form = without_none(REDEEMED, {"code": code, "code_verifier": None})
    assert browser.gets_tokens({**form, "client_secret": "any"}).status_code == 200
    assert_refused(browser.gets_tokens(form), "invalid_request", 9002325)


def test_a_code_is_good_for_minutes(browser: Browser) -> None:
    form = {**REDEEMED, "code": browser.code()}
    browser.clock.move(seconds=CODE_LIFETIME.total_seconds() - 1)
    assert browser.gets_tokens(form).status_code == 200
    browser.clock.move(seconds=1)
    assert_refused(browser.gets_tokens(form), "invalid_grant", 70008)


@pytest.mark.parametrize(
    ("changed", "error", "number", "status"),
    [
        ({"code_verifier": VERIFIER[:-1] + "1"}, "invalid_grant", 501481, 400),
        ({"code_verifier": None}, "invalid_grant", 501481, 400),
        ({"code_verifier": None, "client_secret": "any"}, "invalid_grant", 501481, 400),
        ({"redirect_uri": f"{SPA}/"}, "invalid_client", 500112, 401),
        ({"redirect_uri": None}, "invalid_client", 500112, 401),
        ({"client_id": OTHER_APP}, "invalid_grant", 70000, 400),
        ({"code": "0.AAAA"}, "invalid_grant", 9002313, 400),
    ],
)
def test_a_code_is_good_for_its_owner_only(
    browser: Browser, changed: dict[str, str | None], error: str, number: int, status: int
) -> None:
    form = {**REDEEMED, "code": browser.code()}
    assert_refused(browser.gets_tokens(without_none(form, changed)), error, number, status)


def test_a_code_is_good_in_its_tenant_only(browser: Browser) -> None:
    form = {**REDEEMED, "code": browser.code(tenant="common")}
    assert_refused(browser.gets_tokens(form, OTHER_TENANT), "invalid_grant", 70000)
    assert browser.gets_tokens(form, DEVELOPMENT_TENANT).status_code == 200


def test_no_token_passes_for_another_kind(browser: Browser) -> None:
    code = browser.code()
    tokens = browser.gets_tokens({**REDEEMED, "code": code}).get_json()
    for unfit in (tokens["refresh_token"], tokens["access_token"], tokens["id_token"]):
        assert_refused(browser.gets_tokens({**REDEEMED, "code": unfit}), "invalid_grant", 9002313)
    for unfit in (code, tokens["access_token"], tokens["id_token"]):
        form = {"grant_type": "refresh_token", "client_id": APP, "refresh_token": unfit}
        assert_refused(browser.gets_tokens(form), "invalid_grant", 9002313)
    for unfit in (code, tokens["refresh_token"], tokens["id_token"]):
        with pytest.raises(InvalidToken):
            browser.caller(unfit)


def test_an_id_token_opens_no_api_even_where_the_application_is_the_audience(browser_of: BrowserOf) -> None:
    browser = browser_of(auth_audiences=(APP,))
    tokens = browser.gets_tokens({**PASSWORD, "scope": "openid Presence.Read"}).get_json()
    assert browser.caller(tokens["access_token"]).scopes == {"Presence.Read"}
    with pytest.raises(InvalidToken, match="application id"):
        browser.caller(tokens["id_token"])


@pytest.mark.parametrize("hint", [ALICE, f" {ALICE} "])
def test_nobody_is_asked_when_the_application_wants_no_page_and_names_the_user(browser: Browser, hint: str) -> None:
    sent = browser.opens({**ASKED, "prompt": "none", "login_hint": hint})
    code = parse_qs(urlsplit(sent.location).query)["code"][0]
    token = browser.gets_tokens({**REDEEMED, "code": code}).get_json()["access_token"]
    assert browser.caller(token).user_id == derived_user_id(TENANT, ALICE)


@pytest.mark.parametrize("prompt", [None, "login", "select_account", "consent"])
def test_a_hint_alone_signs_nobody_in(browser: Browser, prompt: str | None) -> None:
    page = browser.opens(without_none(ASKED, {"prompt": prompt, "login_hint": ALICE}))
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert f'value="{ALICE}"' in page.text


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a" * (MAX_NAME_LENGTH + 1)])
def test_a_name_that_nobody_can_have_is_asked_for_again(browser: Browser, name: str) -> None:
    page = browser.signs_in(ASKED, name)
    assert (page.status_code, page.mimetype) == (400, "text/html")
    assert 'role="alert"' in page.text
    assert "Location" not in page.headers


@pytest.mark.parametrize(
    ("changed", "error", "number"),
    [
        ({"response_type": "id_token"}, "unsupported_response_type", 70005),
        ({"response_type": None}, "invalid_request", 900144),
        ({"scope": None}, "invalid_request", 900144),
        ({"scope": "openid /"}, "invalid_scope", 70011),
        ({"code_challenge_method": "plain"}, "invalid_request", 501491),
        ({"code_challenge_method": None}, "invalid_request", 501491),
        ({"code_challenge": CHALLENGE[:-1]}, "invalid_request", 501491),
        ({"code_challenge": ""}, "invalid_request", 501491),
        ({"prompt": "none"}, "login_required", 50058),
    ],
)
@pytest.mark.parametrize("mode", ["query", "fragment"])
def test_the_application_is_told_what_is_wrong(
    browser: Browser, changed: dict[str, str | None], error: str, number: int, mode: str
) -> None:
    asked = without_none({**ASKED, "response_mode": mode}, changed)
    for sent in (browser.opens(asked), browser.signs_in(asked)):
        assert sent.status_code == 303
        address = urlsplit(sent.location)
        told = dict(parse_qsl(address.fragment if mode == "fragment" else address.query))
        assert (told["error"], told["state"]) == (error, ASKED["state"])
        assert told["error_description"].startswith(f"AADSTS{number}: ")
        assert "code" not in told


@pytest.mark.parametrize(
    ("changed", "error", "number"),
    [
        ({"client_id": None}, "invalid_request", 900144),
        ({"client_id": "spa"}, "unauthorized_client", 700016),
        ({"response_mode": "web_message"}, "unsupported_response_mode", 70007),
        ({"redirect_uri": None}, "invalid_request", 900144),
        *(
            ({"redirect_uri": uri}, "invalid_request", 50011)
            for uri in (
                "javascript:alert(1)",
                "data:text/html,hello",
                "//evil.example/",
                "/relative",
                "ftp://localhost/",
                "msal-app://auth",
                "http://",
                "http:///path",
                "http://[::1/",
                "http://localhost:!5000/",
                "http://localhost:65536/",
                "http://localhost/#fragment",
                "http://localhost/\r\nSet-Cookie: a=b",
                " http://localhost/",
                "http://local host/",
                "http://bücher.example/",
            )
        ),
    ],
    ids=str,
)
def test_nobody_is_sent_to_an_address_that_is_not_fit(
    browser: Browser, changed: dict[str, str | None], error: str, number: int
) -> None:
    asked = without_none(ASKED, changed)
    for answer in (browser.opens({**asked, "prompt": "none"}), browser.opens(asked), browser.signs_in(asked)):
        assert_refused(answer, error, number)


def test_what_an_application_says_is_shown_as_text(browser: Browser) -> None:
    page = browser.opens({**ASKED, "scope": "<script>alert(1)</script>", "login_hint": '"><script>'})
    assert "<script" not in page.text
    posted = browser.signs_in({**ASKED, "response_mode": "form_post", "state": '"><script>x</script>'})
    assert posted.text.count("<script") == 1


# Again


def test_a_refresh_token_gives_new_tokens_for_the_same_user(browser: Browser) -> None:
    scope = "Presence.Read openid offline_access"
    first = browser.gets_tokens({**PASSWORD, "scope": scope}).get_json()
    form = {"grant_type": "refresh_token", "client_id": APP, "refresh_token": first["refresh_token"]}
    browser.clock.move(days=1)
    with pytest.raises(InvalidToken):
        browser.caller(first["access_token"])
    second = browser.gets_tokens(form).get_json()
    assert second["scope"] == first["scope"]
    assert browser.caller(second["access_token"]) == Caller(
        TENANT,
        APP,
        app_only=False,
        roles=frozenset(),
        scopes=frozenset({"Presence.Read"}),
        user_id=derived_user_id(TENANT, ALICE),
    )
    assert browser.claims(second["id_token"], APP)["preferred_username"] == ALICE
    browser.clock.move(seconds=REFRESH_TOKEN_LIFETIME.total_seconds() - 1)
    assert browser.gets_tokens({**form, "refresh_token": second["refresh_token"]}).status_code == 200
    assert_refused(browser.gets_tokens(form), "invalid_grant", 700082)


def test_another_scope_may_be_asked_for_and_the_first_is_kept(browser: Browser) -> None:
    first = browser.gets_tokens({**PASSWORD, "scope": "Presence.Read offline_access"}).get_json()
    form = {"grant_type": "refresh_token", "client_id": APP, "refresh_token": first["refresh_token"]}
    second = browser.gets_tokens({**form, "scope": "Presence.Read.All offline_access"}).get_json()
    assert browser.caller(second["access_token"]).scopes == {"Presence.Read.All"}
    third = browser.gets_tokens({**form, "refresh_token": second["refresh_token"]}).get_json()
    assert browser.caller(third["access_token"]).scopes == {"Presence.Read"}
    assert "refresh_token" not in browser.gets_tokens({**form, "scope": "Presence.Read"}).get_json()


def test_a_refresh_token_is_good_for_its_application_only(browser: Browser) -> None:
    token = browser.gets_tokens({**PASSWORD, "scope": ".default offline_access"}).get_json()["refresh_token"]
    form = {"grant_type": "refresh_token", "client_id": APP, "refresh_token": token}
    assert_refused(browser.gets_tokens({**form, "client_id": OTHER_APP}), "invalid_grant", 70000)
    assert_refused(browser.gets_tokens(form, new_id()), "invalid_grant", 70000)
    assert_refused(browser.gets_tokens({**form, "refresh_token": token[:-9] + "AAAAAAAAA"}), "invalid_grant", 9002313)


# Signing out, and what is said of it all


@pytest.mark.parametrize(("state", "sent_to"), [(None, SPA), ("a b", f"{SPA}?state=a%20b")])
def test_signing_out_leads_back(browser: Browser, state: str | None, sent_to: str) -> None:
    query = without_none({"post_logout_redirect_uri": SPA}, {"state": state})
    answer = browser.client.get(f"/{TENANT}/oauth2/v2.0/logout?{urlencode(query)}")
    assert (answer.status_code, answer.location) == (303, sent_to)


def test_signing_out_leads_nowhere_else(browser: Browser) -> None:
    path = f"/{TENANT}/oauth2/v2.0/logout"
    assert browser.client.get(path).status_code == 200
    assert_refused(browser.client.get(f"{path}?post_logout_redirect_uri=javascript:x"), "invalid_request", 50011)


def test_discovery_says_what_is_there(browser: Browser) -> None:
    found = browser.client.get(f"/{TENANT}/v2.0/.well-known/openid-configuration").get_json()
    assert found["response_types_supported"] == ["code"]
    assert found["response_modes_supported"] == ["query", "fragment", "form_post"]
    assert found["grant_types_supported"] == ["client_credentials", "password", "authorization_code", "refresh_token"]
    assert found["code_challenge_methods_supported"] == ["S256"]
    assert browser.client.get(f"{found['authorization_endpoint']}?{urlencode(ASKED)}").status_code == 200
    assert browser.client.get(found["end_session_endpoint"]).status_code == 200
    for form in (PASSWORD, {**REDEEMED, "code": browser.code()}):
        tokens = browser.client.post(found["token_endpoint"], data={**form, "client_info": "1"}).get_json()
        assert browser.claims(tokens["access_token"], GRAPH).keys() - {"idtyp", "azpacr", "uti"} <= {
            *found["claims_supported"]
        }
