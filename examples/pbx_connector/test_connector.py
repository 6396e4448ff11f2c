"""The connector's own tests, on a Graph presence API that the plugin brings.

The second half shows mistakes that are easily made against the real thing, which says nothing, being caught.
"""

from collections.abc import Callable, Iterator

import httpx
import pytest
from connector import Connector
from pytest_graph_presence import PresenceEmulator

APP = "22553876-f5ab-4529-bffb-cfe50aa89f87"
OTHER_APP = "8c2d1b0a-7e6f-4d5c-9b3a-1f2e3d4c5b6a"
USER = "fa8bf3dc-eca7-46b7-bad1-db199b62afc3"
OFFLINE = ("Offline", "Offline")
IN_A_CALL = ("Busy", "InACall")


@pytest.fixture
def waits() -> list[float]:
    """The seconds that the connector waited, had it really waited."""
    return []


@pytest.fixture
def connector(presence_emulator: PresenceEmulator, waits: list[float]) -> Iterator[Connector]:
    made = Connector(presence_emulator.base_url, APP, lambda: presence_emulator.token(APP), waits.append)
    yield made
    made.close()


def test_a_call_shows_while_it_lasts(connector: Connector, presence_emulator: PresenceEmulator) -> None:
    connector.call_started(USER)
    assert presence_emulator.presence_of(USER) == IN_A_CALL
    connector.call_ended(USER)
    assert presence_emulator.presence_of(USER) == OFFLINE


def test_keep_alives_carry_a_long_call(connector: Connector, presence_emulator: PresenceEmulator) -> None:
    connector.call_started(USER)
    for _ in range(12):
        presence_emulator.advance(minutes=5)
        connector.keep_alive(USER)
    assert presence_emulator.presence_of(USER) == IN_A_CALL


def test_a_connector_that_died_leaves_nobody_busy_for_long(
    connector: Connector, presence_emulator: PresenceEmulator
) -> None:
    connector.call_started(USER)
    presence_emulator.advance(minutes=10, seconds=1)
    assert presence_emulator.presence_of(USER) == OFFLINE


def test_a_call_goes_over_another_applications_availability(
    connector: Connector, presence_emulator: PresenceEmulator
) -> None:
    presence_emulator.seed(
        {"userId": USER, "sessionId": OTHER_APP, "availability": "Available", "activity": "Available"}
    )
    connector.call_started(USER)
    assert presence_emulator.presence_of(USER) == IN_A_CALL
    connector.call_ended(USER)
    assert presence_emulator.presence_of(USER) == ("Available", "Available")


def test_throttling_is_waited_out(
    connector: Connector, presence_emulator: PresenceEmulator, waits: list[float]
) -> None:
    presence_emulator.fail("*/setPresence", 429, times=2, retry_after=7)
    connector.call_started(USER)
    assert waits == [7, 7]
    assert presence_emulator.presence_of(USER) == IN_A_CALL


def test_a_lost_answer_to_a_clear_is_no_error(connector: Connector, presence_emulator: PresenceEmulator) -> None:
    connector.call_started(USER)
    presence_emulator.lose_answer("*/clearPresence")
    connector.call_ended(USER)  # the second try is answered 404: cleared already
    assert presence_emulator.presence_of(USER) == OFFLINE


def test_ending_a_call_after_its_lease_ran_out_is_no_error(
    connector: Connector, presence_emulator: PresenceEmulator
) -> None:
    connector.call_started(USER)
    presence_emulator.advance(hours=1)
    connector.call_ended(USER)


# Mistakes


@pytest.fixture
def post(presence_emulator: PresenceEmulator) -> Callable[..., httpx.Response]:
    """Post to the user's presence as somebody who never read the documentation."""

    def send(action: str, *roles: str, **body: str) -> httpx.Response:
        token = presence_emulator.token(APP, *roles)
        url = f"{presence_emulator.base_url}/users/{USER}/presence/{action}"
        return httpx.post(url, json=body, headers={"Authorization": f"Bearer {token}"})

    return send


def said(presence_emulator: PresenceEmulator) -> str:
    (hint,) = presence_emulator.hints
    return hint.text


def test_a_misspelt_duration_is_pointed_out(
    post: Callable[..., httpx.Response], presence_emulator: PresenceEmulator
) -> None:
    answer = post("setPresence", sessionId=APP, availability="Busy", activity="InACall", expirationDutaion="PT1H")
    assert answer.status_code == 200
    assert "expirationDuration" in said(presence_emulator)


def test_a_session_id_of_ones_own_making_is_refused_and_explained(
    post: Callable[..., httpx.Response], presence_emulator: PresenceEmulator
) -> None:
    assert post("clearPresence", sessionId=OTHER_APP).status_code == 403
    assert "application" in said(presence_emulator)


def test_pythons_timedelta_is_no_duration(
    post: Callable[..., httpx.Response], presence_emulator: PresenceEmulator
) -> None:
    answer = post("setPresence", sessionId=APP, availability="Busy", activity="InACall", expirationDuration="1:00:00")
    assert answer.status_code == 400
    assert "PT1H" in said(presence_emulator)


def test_a_missing_role_is_named(post: Callable[..., httpx.Response], presence_emulator: PresenceEmulator) -> None:
    assert post("clearPresence", "Presence.Read.All", sessionId=APP).status_code == 403
    assert "Presence.ReadWrite.All" in said(presence_emulator)
