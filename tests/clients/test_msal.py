"""msal gets its tokens from the development issuer."""

import html
import re

import msal
import pytest
import requests

from tests.clients.conftest import Served

DEFAULT = ["https://graph.microsoft.com/.default"]
USER_NAME = "alice@contoso.com"
REDIRECT = "http://localhost:8400/signed-in"


@pytest.fixture
def confidential(served: Served, app_id: str) -> msal.ConfidentialClientApplication:
    return msal.ConfidentialClientApplication(
        app_id,
        client_credential="any",
        authority=served.authority,
        instance_discovery=False,
        verify=str(served.certificate),
    )


@pytest.fixture
def public(served: Served, app_id: str) -> msal.PublicClientApplication:
    return msal.PublicClientApplication(
        app_id, authority=served.authority, instance_discovery=False, verify=str(served.certificate)
    )


def my_activity(served: Served, tokens: dict[str, str]) -> str:
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    answer = requests.get(f"{served.http}/v1.0/me/presence", headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["activity"])


def test_an_applications_token_sets_presence_and_is_kept(
    served: Served, confidential: msal.ConfidentialClientApplication, app_id: str, alice: str
) -> None:
    tokens = confidential.acquire_token_for_client(DEFAULT)
    assert (tokens["token_type"], tokens["token_source"]) == ("Bearer", "identity_provider")
    body = {"sessionId": app_id, "availability": "Busy", "activity": "InACall"}
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    url = f"{served.http}/v1.0/users/{alice}/presence/setPresence"
    assert requests.post(url, json=body, headers=headers, timeout=30).status_code == 200
    assert served.emulator.presence_of(alice) == ("Busy", "InACall")
    again = confidential.acquire_token_for_client(DEFAULT)
    assert (again["token_source"], again["access_token"]) == ("cache", tokens["access_token"])


def test_a_user_signs_in_by_code_and_the_token_is_refreshed(
    served: Served, public: msal.PublicClientApplication
) -> None:
    flow = public.initiate_auth_code_flow(
        ["Presence.Read"], REDIRECT, prompt="none", login_hint=USER_NAME, response_mode="form_post"
    )
    page = requests.get(flow["auth_uri"], verify=str(served.certificate), timeout=30).text
    assert f'action="{REDIRECT}"' in page
    posted = {name: html.unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', page)}
    tokens = public.acquire_token_by_auth_code_flow(flow, posted)
    assert my_activity(served, tokens) == "Offline"
    (account,) = public.get_accounts()
    refreshed = public.acquire_token_silent(["Presence.Read"], account, force_refresh=True)
    assert refreshed["token_source"] == "identity_provider"
    assert my_activity(served, refreshed) == "Offline"


def test_a_refusal_says_why(confidential: msal.ConfidentialClientApplication) -> None:
    refused = confidential.acquire_token_for_client(["https://graph.microsoft.com/Presence.Read"])
    assert (refused["error"], refused["error_codes"]) == ("invalid_scope", [70011])
    assert "/.default" in refused["error_description"]


def test_msal_itself_refuses_http(served: Served, app_id: str) -> None:
    with pytest.raises(ValueError, match="https"):
        msal.PublicClientApplication(app_id, authority=f"{served.http}/{served.tenant_id}", instance_discovery=False)
