"""O365 reads presence, and sets it with requests of one's own: its methods for that are /me only."""

import msal
import pytest
import requests
from O365 import Account, MSGraphProtocol
from O365.teams import PreferredActivity, PreferredAvailability
from O365.utils.token import MemoryTokenBackend
from pytest_graph_presence import PresenceEmulator

from tests.clients.conftest import Served

DEFAULT = ["https://graph.microsoft.com/.default"]
REDIRECT = "http://localhost:8400/signed-in"
CALL = {"availability": "Busy", "activity": "InACall", "expirationDuration": "PT1H"}


def account(served: Served, app_id: str, auth_flow_type: str) -> Account:
    """Return an account here; its authority is Microsoft's unless the msal client in it is one of ours."""

    class Protocol(MSGraphProtocol):  # type: ignore[misc]
        _protocol_url = f"{served.https}/"

    trust = str(served.certificate)
    made = Account(
        (app_id, "any"),
        auth_flow_type=auth_flow_type,
        protocol=Protocol(),
        tenant_id=served.tenant_id,
        verify_ssl=trust,
        token_backend=MemoryTokenBackend(),
    )
    made.con._msal_client = msal.ConfidentialClientApplication(
        app_id,
        client_credential="any",
        authority=served.authority,
        instance_discovery=False,
        token_cache=made.con.token_backend,
        verify=trust,
    )
    return made


@pytest.fixture
def application(served: Served, app_id: str) -> Account:
    made = account(served, app_id, "credentials")
    assert made.authenticate(requested_scopes=DEFAULT)
    return made


def url(served: Served, user: str, action: str) -> str:
    return f"{served.https}/v1.0/users/{user}/presence/{action}"


def test_an_application_sets_and_clears_and_everybody_reads(
    served: Served, application: Account, app_id: str, alice: str
) -> None:
    assert application.con.post(url(served, alice, "setPresence"), data={"sessionId": app_id, **CALL}).ok
    seen = application.teams().get_user_presence(alice)
    assert (seen.object_id, seen.availability, seen.activity) == (alice, "Busy", "InACall")
    many = application.con.post(
        f"{served.https}/v1.0/communications/getPresencesByUserId", data={"ids": [alice, app_id]}
    )
    assert [user["activity"] for user in many.json()["value"]] == ["InACall", "Offline"]
    assert application.con.post(url(served, alice, "clearPresence"), data={"sessionId": app_id}).ok
    assert application.teams().get_user_presence(alice).availability == "Offline"


def test_an_error_has_graphs_message_and_the_whole_answer(
    served: Served, application: Account, app_id: str, alice: str
) -> None:
    with pytest.raises(requests.HTTPError, match=r"404.*Error Message: .*session") as caught:
        application.con.post(url(served, alice, "clearPresence"), data={"sessionId": app_id})
    answer = caught.value.response
    assert answer is not None
    error = answer.json()["error"]
    assert error["code"] == "NotFound"
    assert error["innerError"]["request-id"] == answer.headers["request-id"]


def test_a_throttled_read_is_repeated(served: Served, application: Account, alice: str) -> None:
    with served.throttling(f"*/{alice}/presence"):
        seen = application.teams().get_user_presence(alice)
    assert seen.availability == "Offline"


@pytest.mark.filterwarnings("ignore:response_mode='form_post' is recommended")  # O365 leaves it out
def test_a_user_signs_in_and_prefers_and_a_misspelt_member_is_pointed_out(
    served: Served, emulator: PresenceEmulator, app_id: str, alice: str
) -> None:
    user = account(served, app_id, "authorization")
    page, flow = user.get_authorization_url(["https://graph.microsoft.com/Presence.ReadWrite"], REDIRECT)
    signed_in = requests.get(
        page, {"prompt": "none", "login_hint": alice}, verify=str(served.certificate), allow_redirects=False, timeout=30
    )
    assert user.request_token(signed_in.headers["Location"], flow=flow)
    emulator.seed({"userId": alice, "sessionId": app_id, "availability": "Available", "activity": "Available"})
    seen = user.teams().set_my_user_preferred_presence(
        PreferredAvailability.DONOTDISTURB, PreferredActivity.DONOTDISTURB, "PT1H"
    )
    assert (seen.object_id, seen.availability) == (alice, "DoNotDisturb")
    assert any("expirationDutaion" in hint.text for hint in emulator.hints)
