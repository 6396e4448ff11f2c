"""The judge of `make chaos` sees what it is there to see."""

import pytest

from app.domain.values import AWAY, IN_A_CALL, Shown
from tests.chaos.ledger import Event, Key, Request, Sessions, judge

ALICE = Key("alice", "bot")


def asked(shown: Shown | None, status: int | None, request_id: str | None) -> Request:
    return Request(ALICE, shown, 0.0, 0.1, status, request_id)


def recorded(shown: Shown | None, request_id: str) -> Event:
    return Event(ALICE, shown, request_id)


SET, SET_EVENT = asked(AWAY, 200, "1"), recorded(AWAY, "1")
CLEARED, CLEAR_EVENT = asked(None, 200, "2"), recorded(None, "2")
STANDS: Sessions = {ALICE: AWAY}


@pytest.mark.parametrize(
    ("requests", "events", "sessions"),
    [
        pytest.param([SET], [SET_EVENT], STANDS, id="set"),
        pytest.param([SET, CLEARED, asked(None, 404, "3")], [SET_EVENT, CLEAR_EVENT], {}, id="cleared once"),
        pytest.param([SET, asked(None, None, None)], [SET_EVENT], STANDS, id="dropped before"),
        pytest.param([SET, asked(None, None, None)], [SET_EVENT, CLEAR_EVENT], {}, id="dropped after"),
        pytest.param([SET, asked(None, 503, "2")], [SET_EVENT], STANDS, id="refused"),
    ],
)
def test_what_agrees(requests: list[Request], events: list[Event], sessions: Sessions) -> None:
    verdict = judge(requests, events, sessions, refusal_is_final=True)
    assert (verdict.lost, verdict.disagreements) == ([], [])


def test_a_refusal_by_a_database_that_was_lost_may_have_happened() -> None:
    requests, events = [SET, asked(None, 503, "2")], [SET_EVENT, CLEAR_EVENT]
    verdict = judge(requests, events, {}, refusal_is_final=False)
    assert (verdict.lost, verdict.disagreements) == ([], [])
    assert judge(requests, events, {}, refusal_is_final=True).disagreements


@pytest.mark.parametrize(
    ("requests", "events", "sessions"),
    [
        pytest.param([SET], [], {}, id="all of it"),
        pytest.param([SET], [], STANDS, id="its event"),
        pytest.param([SET], [SET_EVENT], {}, id="its session"),
        pytest.param([SET, CLEARED], [SET_EVENT], STANDS, id="a clear"),
        pytest.param([SET, asked(None, 404, "2")], [SET_EVENT], STANDS, id="not found any more"),
    ],
)
def test_what_is_lost(requests: list[Request], events: list[Event], sessions: Sessions) -> None:
    assert judge(requests, events, sessions, refusal_is_final=True).lost


@pytest.mark.parametrize(
    ("requests", "events", "sessions"),
    [
        pytest.param([asked(AWAY, 500, "1")], [], {}, id="a 500"),
        pytest.param([asked(AWAY, 503, "1")], [SET_EVENT], STANDS, id="refused and done"),
        pytest.param([asked(None, 404, "1")], [recorded(None, "1")], {}, id="not found and cleared"),
        pytest.param([], [SET_EVENT], STANDS, id="nobody asked"),
        pytest.param([asked(None, None, None)], [SET_EVENT], STANDS, id="somebody asked for something else"),
        pytest.param([SET], [recorded(IN_A_CALL, "1")], {ALICE: IN_A_CALL}, id="another state"),
        pytest.param([SET], [SET_EVENT, SET_EVENT], STANDS, id="twice"),
        pytest.param([CLEARED], [CLEAR_EVENT], {}, id="cleared without a session"),
        pytest.param([SET], [SET_EVENT], {ALICE: IN_A_CALL}, id="another session than the events say"),
    ],
)
def test_what_contradicts(requests: list[Request], events: list[Event], sessions: Sessions) -> None:
    assert judge(requests, events, sessions, refusal_is_final=True).disagreements
