"""What a user and each session showed over time, from the history."""

from datetime import datetime, timedelta

import pytest

from app.domain.aggregate import UserState, presence_of
from app.domain.timeline import Span, Timeline, timeline
from app.domain.values import (
    AVAILABLE,
    AWAY,
    DO_NOT_DISTURB,
    IN_A_CALL,
    INACTIVE,
    OFFLINE,
    EventKind,
    PastEvent,
    Preferred,
    Session,
    Shown,
)
from tests.builders import START as NOW

BOT, DESK = "bot", "desk"


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def event(
    minutes: float, kind: EventKind, shown: Shown | None = None, ends: float | None = None, app: str = BOT
) -> PastEvent:
    return PastEvent(0, at(minutes), app, kind, shown, None if ends is None else at(ends), None, None)


def spans(found: object) -> list[tuple[float, float, Shown]]:
    assert isinstance(found, list | tuple)
    minute = timedelta(minutes=1)
    return [((each.start - NOW) / minute, (each.end - NOW) / minute, each.shown) for each in found]


def pictured(*history: PastEvent, state: UserState | None = None) -> Timeline:
    """The hour until NOW and the quarter after it."""
    return timeline(state or UserState([], None), history[::-1], NOW, timedelta(hours=1), timedelta(minutes=15))


def test_of_nobody_it_is_offline_all_along() -> None:
    seen = pictured()
    assert (seen.start, seen.now, seen.end) == (at(-60), NOW, at(15))
    assert (spans(seen.presence), seen.sessions, seen.preferred) == ([(-60, 15, OFFLINE)], [], [])


def test_a_session_that_was_cleared_fades_from_its_last_keep_alive() -> None:
    seen = pictured(event(-40, EventKind.SET, AVAILABLE, -10), event(-12, EventKind.CLEARED, AVAILABLE, 6))
    # kept alive at -24, since it lasts for 30 minutes and would have ended at 6
    told = [(-40, -19, AVAILABLE), (-19, -14, INACTIVE), (-14, -12, AWAY)]
    assert [(app, spans(found)) for app, found in seen.sessions] == [(BOT, told)]
    assert spans(seen.presence) == [(-60, -40, OFFLINE), *told, (-12, 15, OFFLINE)]


def test_a_session_that_expired_ends_when_it_expired_not_when_that_was_noticed() -> None:
    seen = pictured(event(-40, EventKind.SET, IN_A_CALL, -35), event(-5, EventKind.EXPIRED, IN_A_CALL, -30))
    assert spans(seen.presence) == [(-60, -40, OFFLINE), (-40, -30, IN_A_CALL), (-30, 15, OFFLINE)]


def test_what_is_set_again_to_the_same_had_faded_and_to_something_else_had_not() -> None:
    again = pictured(event(-40, EventKind.SET, AVAILABLE, -10), event(-32, EventKind.SET, AVAILABLE, -2))
    assert spans(again.sessions[0][1]) == [(-40, -35, AVAILABLE), (-35, -32, INACTIVE)]
    other = pictured(event(-40, EventKind.SET, AVAILABLE, -10), event(-20, EventKind.SET, IN_A_CALL, 10))
    assert spans(other.sessions[0][1]) == [(-40, -20, AVAILABLE)]


def test_a_stored_session_goes_on_into_what_is_to_come() -> None:
    kept = Session(BOT, AVAILABLE, at(-30), at(-2), at(10))
    seen = pictured(event(-30, EventKind.SET, AVAILABLE, -18), state=UserState([kept], None))
    told = [(-30, 3, AVAILABLE), (3, 8, INACTIVE), (8, 10, AWAY)]
    assert [(app, spans(found)) for app, found in seen.sessions] == [(BOT, told)]
    assert spans(seen.presence) == [(-60, -30, OFFLINE), *told, (10, 15, OFFLINE)]


def test_what_reaches_beyond_the_picture_is_cut_off() -> None:
    kept = Session(BOT, IN_A_CALL, at(-300), at(-1), at(200))
    seen = pictured(state=UserState([kept], None))
    assert spans(seen.sessions[0][1]) == spans(seen.presence) == [(-60, 15, IN_A_CALL)]


def test_an_end_whose_beginning_is_forgotten_reaches_back_to_the_start() -> None:
    seen = pictured(event(-12, EventKind.CLEARED, IN_A_CALL, 6))
    assert spans(seen.presence) == [(-60, -12, IN_A_CALL), (-12, 15, OFFLINE)]
    before = pictured(event(-70, EventKind.CLEARED, IN_A_CALL, 6))
    assert (spans(before.presence), before.sessions) == ([(-60, 15, OFFLINE)], [])


def test_a_preference_shows_only_while_a_session_is_live() -> None:
    seen = pictured(
        event(-50, EventKind.PREFERRED_SET, DO_NOT_DISTURB, 30),
        event(-40, EventKind.SET, AVAILABLE, -10, DESK),
        event(-30, EventKind.CLEARED, AVAILABLE, -10, DESK),
        event(-20, EventKind.PREFERRED_CLEARED),
    )
    assert spans(seen.preferred) == [(-50, -20, DO_NOT_DISTURB)]
    assert spans(seen.presence) == [(-60, -40, OFFLINE), (-40, -30, DO_NOT_DISTURB), (-30, 15, OFFLINE)]


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "swept"])
def test_a_preference_ends_by_itself(stored: bool) -> None:
    wish = Preferred(DO_NOT_DISTURB, at(-10)) if stored else None
    busy = Session(BOT, IN_A_CALL, at(-60), at(-1), at(20))
    seen = pictured(event(-50, EventKind.PREFERRED_SET, DO_NOT_DISTURB, -10), state=UserState([busy], None, wish))
    assert spans(seen.preferred) == [(-50, -10, DO_NOT_DISTURB)]
    assert spans(seen.presence) == [(-60, -50, IN_A_CALL), (-50, -10, DO_NOT_DISTURB), (-10, 15, IN_A_CALL)]


def test_a_preference_that_is_set_anew_lasts_no_longer_than_it_did() -> None:
    busy = Session(BOT, IN_A_CALL, at(-60), at(-1), at(20))
    seen = pictured(
        event(-50, EventKind.PREFERRED_SET, AWAY, -40),
        event(-20, EventKind.PREFERRED_SET, DO_NOT_DISTURB, -5),
        state=UserState([busy], None),
    )
    assert spans(seen.preferred) == [(-50, -40, AWAY), (-20, -5, DO_NOT_DISTURB)]
    assert spans(seen.presence)[1:] == [
        (-50, -40, AWAY),
        (-40, -20, IN_A_CALL),
        (-20, -5, DO_NOT_DISTURB),
        (-5, 15, IN_A_CALL),
    ]


def test_of_two_preferences_the_later_one_shows_from_its_moment_on() -> None:
    busy = Session(BOT, IN_A_CALL, at(-60), at(-1), at(20))
    seen = pictured(
        event(-50, EventKind.PREFERRED_SET, AWAY, 30),
        event(-20, EventKind.PREFERRED_SET, DO_NOT_DISTURB, -5),
        state=UserState([busy], None),
    )
    assert spans(seen.presence) == [
        (-60, -50, IN_A_CALL),
        (-50, -20, AWAY),
        (-20, -5, DO_NOT_DISTURB),
        (-5, 15, IN_A_CALL),
    ]


def test_a_session_that_was_cleared_was_not_kept_alive_before_it_was_set() -> None:
    seen = pictured(event(-40, EventKind.SET, AVAILABLE, 20), event(-33, EventKind.CLEARED, AVAILABLE, -31))
    assert spans(seen.sessions[0][1]) == [(-40, -35, AVAILABLE), (-35, -33, INACTIVE)]


def test_now_it_says_what_presence_of_says() -> None:
    sessions = [Session(BOT, AVAILABLE, at(-30), at(-7), at(10)), Session(DESK, AWAY, at(-20), at(-2), at(8))]
    state = UserState(sessions, None, Preferred(DO_NOT_DISTURB, at(-1)))
    seen = pictured(event(-9, EventKind.PREFERRED_SET, DO_NOT_DISTURB, -1), state=state)
    assert presence_of(state, NOW).shown == INACTIVE
    assert [span.shown for span in seen.presence if span.start <= NOW < span.end] == [INACTIVE]
    assert seen.presence[-1] == Span(at(10), at(15), OFFLINE)
