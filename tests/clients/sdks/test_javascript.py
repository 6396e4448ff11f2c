"""Microsoft's clients for JavaScript, in node: the scripts are in tests/clients/js."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.values import DASHED_GUID
from tests.clients.conftest import JS, Served
from tests.servers import INHERITED

GRAPH_CLIENT, MSGRAPH_SDK = "graph_client.mjs", "msgraph_sdk.mjs"
UNTIL = f"{datetime.now(UTC) + timedelta(hours=2):%Y-%m-%dT%H:%M:%S}"

both = pytest.mark.parametrize("script", [GRAPH_CLIENT, MSGRAPH_SDK])


def played(script: str, scenario: str, served: Served, app_id: str, user: str) -> Any:
    """Let a script play a scenario, and return what it prints."""
    place = {"http": served.http, "https": served.https, "tenant": served.tenant_id, "app": app_id, "user": user}
    done = subprocess.run(
        ["node", script, scenario, json.dumps({**place, "until": UNTIL})],
        cwd=JS,
        env={**INHERITED, "NODE_EXTRA_CA_CERTS": str(served.certificate)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@both
def test_a_session_is_set_read_and_cleared(script: str, served: Served, app_id: str, alice: str) -> None:
    seen, after = played(script, "session", served, app_id, alice)
    assert (seen["id"], seen["availability"], seen["activity"]) == (alice, "Busy", "InACall")
    assert (after["availability"], after["activity"]) == ("Offline", "Offline")


def test_many_are_read_at_once(served: Served, app_id: str, alice: str) -> None:
    assert played(GRAPH_CLIENT, "many", served, app_id, alice) == [[alice, "Away"], [app_id, "Offline"]]


@both
def test_what_a_user_prefers_goes_over_it_until_it_is_cleared(
    script: str, served: Served, app_id: str, alice: str
) -> None:
    assert played(script, "preferred", served, app_id, alice) == ["DoNotDisturb", "Available"]


@both
def test_a_status_message_is_shown_with_its_times(script: str, served: Served, app_id: str, alice: str) -> None:
    content, until, published = played(script, "message", served, app_id, alice)
    assert (content, until[: len(UNTIL)]) == ("Zurück um drei", UNTIL)
    assert abs(datetime.fromisoformat(published) - datetime.now(UTC)) < timedelta(minutes=1)


@both
def test_an_error_has_its_code_message_and_request_id(script: str, served: Served, app_id: str, alice: str) -> None:
    error = played(script, "error", served, app_id, alice)
    assert (error["status"], error["code"]) == (404, "NotFound")
    assert "session" in error["message"]
    assert DASHED_GUID.fullmatch(error["requestId"])
    assert error["requestId"] == error["header"]
    assert error["date"]


@both
def test_a_throttled_write_is_repeated(script: str, served: Served, app_id: str, alice: str) -> None:
    with served.throttling(f"*/{alice}/presence/setPresence"):
        played(script, "throttled", served, app_id, alice)
    assert served.emulator.presence_of(alice) == ("Busy", "InAConferenceCall")


def test_a_batch_is_answered_request_by_request(served: Served, app_id: str, alice: str) -> None:
    assert played(GRAPH_CLIENT, "batch", served, app_id, alice) == ["InACall", 400]
