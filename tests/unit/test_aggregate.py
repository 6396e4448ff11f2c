"""The rules of presence at their edges, one microsecond before, at and after."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations, permutations
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.aggregate import SKEW, UserState, aggregate, fade, presence_of, session_turning_points
from app.domain.values import (
    AVAILABLE,
    AWAY,
    IN_A_CALL,
    IN_A_CONFERENCE_CALL,
    INACTIVE,
    OFFLINE,
    PRESENTING,
    SETTABLE,
    Session,
    Shown,
)
from tests.builders import START as NOW

NONE = timedelta(0)
TICK = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
SMALL_ID, LARGE_ID = "0a000000-0000-4000-8000-000000000001", "f0000000-0000-4000-8000-000000000002"

FADING = [
    (NONE, AVAILABLE),
    (5 * MINUTE - TICK, AVAILABLE),
    (5 * MINUTE, INACTIVE),
    (5 * MINUTE + TICK, INACTIVE),
    (10 * MINUTE - TICK, INACTIVE),
    (10 * MINUTE, AWAY),
    (10 * MINUTE + TICK, AWAY),
    (HOUR, AWAY),
]


def a_session(
    shown: Shown,
    idle: timedelta = NONE,
    left: timedelta = HOUR,
    changed: timedelta | None = None,
    session_id: str = SMALL_ID,
) -> Session:
    """A session last set `idle` before NOW, with `left` to live, whose state was set `changed` before NOW."""
    return Session(session_id, shown, NOW - (idle if changed is None else changed), NOW - idle, NOW + left)


class Seen(NamedTuple):
    """What a session was set to and how long ago, and what that shows."""

    set_to: Shown
    idle: timedelta
    shows: Shown


RANKED = [
    [Seen(PRESENTING, HOUR, PRESENTING)],
    [Seen(IN_A_CALL, HOUR, IN_A_CALL), Seen(IN_A_CONFERENCE_CALL, HOUR, IN_A_CONFERENCE_CALL)],
    [Seen(AVAILABLE, NONE, AVAILABLE)],
    [Seen(AVAILABLE, 5 * MINUTE, INACTIVE)],
    [Seen(AVAILABLE, 10 * MINUTE, AWAY), Seen(AWAY, NONE, AWAY)],
]
"""All that a session can show, the most significant first."""

OUTRANKING = [
    (winner, loser) for higher, lower in combinations(RANKED, 2) for winner in higher for loser in lower
]  # fmt: skip


@pytest.mark.parametrize("left", [TICK, MINUTE, HOUR])
@pytest.mark.parametrize(("idle", "shows"), FADING)
def test_an_available_session_fades_with_time(idle: timedelta, shows: Shown, left: timedelta) -> None:
    assert aggregate([a_session(AVAILABLE, idle, left)], NOW) == shows
    assert fade(AVAILABLE, idle) == shows


@pytest.mark.parametrize("idle", [idle for idle, _ in FADING])
@pytest.mark.parametrize("shown", [shown for shown in SETTABLE if shown != AVAILABLE])
def test_nothing_but_available_fades(shown: Shown, idle: timedelta) -> None:
    assert aggregate([a_session(shown, idle)], NOW) == shown


@pytest.mark.parametrize("idle", [idle for idle, _ in FADING])
@pytest.mark.parametrize("shown", SETTABLE)
def test_a_session_counts_until_the_instant_that_it_expires(shown: Shown, idle: timedelta) -> None:
    assert aggregate([a_session(shown, idle, TICK)], NOW) == fade(shown, idle)
    for left in (NONE, -TICK, -HOUR):
        assert aggregate([a_session(shown, idle, left)], NOW) == OFFLINE


def test_an_available_session_of_the_default_lifetime_expires_and_never_fades() -> None:
    assert aggregate([a_session(AVAILABLE, 5 * MINUTE - TICK, TICK)], NOW) == AVAILABLE
    assert aggregate([a_session(AVAILABLE, 5 * MINUTE, NONE)], NOW) == OFFLINE


def test_a_session_set_by_a_clock_ahead_of_ours_counts_as_set_just_now() -> None:
    assert aggregate([a_session(AVAILABLE, -HOUR, 2 * HOUR)], NOW) == AVAILABLE


@pytest.mark.parametrize("shown", SETTABLE)
def test_an_idle_time_before_the_set_is_refused(shown: Shown) -> None:
    with pytest.raises(ValueError, match=r"^idle time is negative: -1 day, 23:59:59\.999999$"):
        fade(shown, -TICK)


def test_no_session_is_offline() -> None:
    assert aggregate([], NOW) == OFFLINE


@pytest.mark.parametrize(("winner", "loser"), OUTRANKING)
def test_the_most_significant_session_wins_although_the_other_was_set_later(winner: Seen, loser: Seen) -> None:
    early = a_session(winner.set_to, winner.idle, changed=2 * HOUR, session_id=LARGE_ID)
    late = a_session(loser.set_to, loser.idle, changed=NONE, session_id=SMALL_ID)
    for sessions in permutations((early, late)):
        assert aggregate(sessions, NOW) == winner.shows


@pytest.mark.parametrize(("winner", "loser"), OUTRANKING)
def test_the_less_significant_session_shows_once_the_other_has_expired(winner: Seen, loser: Seen) -> None:
    gone = a_session(winner.set_to, winner.idle, NONE, session_id=LARGE_ID)
    assert aggregate([gone, a_session(loser.set_to, loser.idle)], NOW) == loser.shows


@pytest.mark.parametrize("first", [SMALL_ID, LARGE_ID])
@pytest.mark.parametrize(("later", "earlier"), list(permutations((IN_A_CALL, IN_A_CONFERENCE_CALL))))
def test_of_equal_rank_the_state_set_last_wins_whatever_was_kept_alive_last(
    later: Shown, earlier: Shown, first: str
) -> None:
    second = LARGE_ID if first == SMALL_ID else SMALL_ID
    kept_alive = a_session(earlier, NONE, changed=MINUTE + TICK, session_id=first)
    set_last = a_session(later, MINUTE, changed=MINUTE, session_id=second)
    for sessions in permutations((kept_alive, set_last)):
        assert aggregate(sessions, NOW) == later


@pytest.mark.parametrize(("small", "large"), list(permutations((IN_A_CALL, IN_A_CONFERENCE_CALL))))
def test_of_equal_rank_and_moment_the_smaller_session_id_wins(small: Shown, large: Shown) -> None:
    pair = (a_session(small, session_id=SMALL_ID), a_session(large, session_id=LARGE_ID))
    for sessions in permutations(pair):
        assert aggregate(sessions, NOW) == small


edges = st.sampled_from([NONE, 5 * MINUTE, 10 * MINUTE, HOUR])
lengths = st.builds(lambda edge, ticks: edge + ticks * TICK, edges, st.integers(-1, 1))
sessions_of_a_user = st.lists(
    st.builds(
        a_session,
        st.sampled_from(SETTABLE),
        lengths,
        lengths,
        st.sampled_from([NONE, MINUTE, HOUR]),
        st.uuids().map(str),
    ),
    max_size=6,
    unique_by=lambda session: session.session_id,
)


@given(sessions_of_a_user.flatmap(lambda sessions: st.tuples(st.just(sessions), st.permutations(sessions))))
def test_the_order_of_the_rows_does_not_matter(orders: tuple[list[Session], list[Session]]) -> None:
    one, other = orders
    assert aggregate(one, NOW) == aggregate(other, NOW)


@given(sessions_of_a_user)
def test_expired_sessions_count_for_nothing(sessions: list[Session]) -> None:
    live = [session for session in sessions if session.expires_at > NOW]
    assert aggregate(sessions, NOW) == aggregate(live, NOW)
    assert (aggregate(sessions, NOW) == OFFLINE) == (not live)


@given(sessions_of_a_user, st.lists(st.builds(lambda length: NOW + length, lengths), min_size=2, max_size=2))
def test_between_turning_points_nothing_changes(sessions: list[Session], instants: list[datetime]) -> None:
    earlier, later = sorted(instants)
    if not any(earlier < moment <= later for session in sessions for moment in session_turning_points(session)):
        assert aggregate(sessions, earlier) == aggregate(sessions, later)


@pytest.mark.parametrize(
    ("shown", "lifetime", "minutes"),
    [
        (AVAILABLE, HOUR, [5, 10, 60]),
        (AVAILABLE, 10 * MINUTE, [5, 10]),
        (AVAILABLE, 7 * MINUTE, [5, 7]),
        (AVAILABLE, 5 * MINUTE, [5]),
        (AWAY, HOUR, [60]),
        (IN_A_CALL, 5 * MINUTE, [5]),
        (PRESENTING, 4 * HOUR, [240]),
    ],
)
def test_the_turning_points_are_the_fades_within_its_life_and_its_end(
    shown: Shown, lifetime: timedelta, minutes: Sequence[int]
) -> None:
    assert session_turning_points(a_session(shown, left=lifetime)) == [NOW + after * MINUTE for after in minutes]


def test_a_user_never_heard_of_is_offline_since_no_moment() -> None:
    seen = presence_of(UserState([], None), NOW)
    assert (seen.shown, seen.recorded_at, seen.turned_at) == (OFFLINE, None, None)


def test_presence_last_changed_at_the_newest_event_when_time_changed_it_before() -> None:
    seen = presence_of(UserState([a_session(AVAILABLE, 6 * MINUTE)], NOW), NOW)
    assert (seen.shown, seen.recorded_at, seen.turned_at) == (INACTIVE, NOW, NOW)


@pytest.mark.parametrize(
    ("after", "turned_after"),
    [
        (NONE, NONE),
        (5 * MINUTE - TICK, NONE),
        (5 * MINUTE, 5 * MINUTE),
        (10 * MINUTE - TICK, 5 * MINUTE),
        (10 * MINUTE, 10 * MINUTE),
        (HOUR - TICK, 10 * MINUTE),
        (HOUR, HOUR),
        (2 * HOUR, HOUR),
    ],
)
def test_time_last_changed_presence_at_the_latest_turning_point_that_has_passed(
    after: timedelta, turned_after: timedelta
) -> None:
    state = UserState([a_session(AVAILABLE)], NOW)
    assert presence_of(state, NOW + after).turned_at == NOW + turned_after


@pytest.mark.parametrize(("ahead", "turned_after"), [(TICK, TICK), (SKEW, SKEW), (SKEW + TICK, NONE), (HOUR, NONE)])
def test_an_event_by_a_clock_that_is_ahead_counts_at_once_and_hides_no_turn_when_it_is_far_ahead(
    ahead: timedelta, turned_after: timedelta
) -> None:
    state = UserState([a_session(IN_A_CALL, HOUR, -MINUTE)], NOW + ahead)
    assert presence_of(state, NOW).turned_at == NOW + turned_after


def test_of_several_sessions_the_latest_turning_point_counts_expired_ones_too() -> None:
    gone = a_session(IN_A_CALL, HOUR, -MINUTE, session_id=LARGE_ID)
    seen = presence_of(UserState([gone, a_session(AVAILABLE, 7 * MINUTE)], NOW - HOUR), NOW)
    assert (seen.shown, seen.turned_at) == (INACTIVE, NOW - MINUTE)


@given(st.lists(st.sampled_from([*SETTABLE]), min_size=1, max_size=3), lengths, lengths)
def test_turned_at_stands_still_when_rows_that_ended_before_the_newest_event_go(
    shown: list[Shown], recorded: timedelta, read: timedelta
) -> None:
    sessions = [a_session(one, 4 * HOUR, -HOUR, session_id=f"{n}{SMALL_ID[1:]}") for n, one in enumerate(shown)]
    recorded_at = NOW - HOUR + abs(recorded)
    before, after = (presence_of(UserState(rows, recorded_at), NOW + abs(read)) for rows in (sessions, []))
    assert before == after


@given(sessions_of_a_user, st.lists(st.builds(lambda length: NOW + length, lengths), min_size=2, max_size=2))
def test_turned_at_never_goes_back_and_moves_whenever_time_changes_what_is_shown(
    sessions: list[Session], instants: list[datetime]
) -> None:
    earlier, later = (presence_of(UserState(sessions, NOW - TICK), instant) for instant in sorted(instants))
    before, after = (seen.turned_at or datetime.min.replace(tzinfo=UTC) for seen in (earlier, later))
    assert before <= after
    assert earlier.shown == later.shown or before < after
