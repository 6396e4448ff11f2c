"""azure-identity gets its tokens from the development issuer."""

import time

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientSecretCredential

from tests.clients.conftest import Served

DEFAULT = "https://graph.microsoft.com/.default"


@pytest.fixture
def credential(served: Served, app_id: str) -> ClientSecretCredential:
    return ClientSecretCredential(
        served.tenant_id,
        app_id,
        "any",
        authority=served.https,
        disable_instance_discovery=True,
        connection_verify=str(served.certificate),
    )


def test_a_credentials_token_ends_a_session(
    served: Served, credential: ClientSecretCredential, app_id: str, alice: str
) -> None:
    served.emulator.seed(
        {"userId": alice, "sessionId": app_id, "availability": "Busy", "activity": "InACall"},
    )
    token = credential.get_token(DEFAULT, claims='{"access_token": {"xms_cc": {"values": ["CP1"]}}}')
    assert 3500 < token.expires_on - time.time() <= 3600
    url = f"{served.http}/v1.0/users/{alice}/presence/clearPresence"
    headers = {"Authorization": f"Bearer {token.token}"}
    assert requests.post(url, json={"sessionId": app_id}, headers=headers, timeout=30).status_code == 200
    assert served.emulator.presence_of(alice) == ("Offline", "Offline")


def test_a_token_is_kept(credential: ClientSecretCredential) -> None:
    assert credential.get_token(DEFAULT).token == credential.get_token(DEFAULT).token


def test_a_refusal_says_why(credential: ClientSecretCredential) -> None:
    with pytest.raises(ClientAuthenticationError, match=r"AADSTS70011.*/\.default"):
        credential.get_token("https://graph.microsoft.com/Presence.Read")


def test_azure_identity_itself_refuses_http(served: Served, app_id: str) -> None:
    with pytest.raises(ValueError, match="TLS"):
        ClientSecretCredential(served.tenant_id, app_id, "any", authority=served.http)
