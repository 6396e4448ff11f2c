"""What explain says is what presence_of does, at every moment; and what is said of the future comes true."""

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.aggregate import UserState, aggregate, presence_of, rank, shown_at, turning_points
from app.domain.explain import Explanation, Preference, Rule, explain, visible
from app.domain.explain_text import change_texts, event_text, span, text_of, when
from app.domain.values import (
    AVAILABLE,
    AWAY,
    BUSY,
    IN_A_CALL,
    IN_A_CONFERENCE_CALL,
    INACTIVE,
    NIL,
    OFFLINE,
    PREFERABLE,
    PRESENTING,
    EventKind,
    PastEvent,
    Preferred,
    Session,
    Shown,
    StatusMessage,
    WorkLocation,
    WorkLocationType,
)
from tests.builders import START as NOW
from tests.unit.test_aggregate import (
    HOUR,
    LARGE_ID,
    MINUTE,
    NONE,
    SMALL_ID,
    TICK,
    a_session,
    lengths,
    sessions_of_a_user,
)

ends = st.builds(lambda length: NOW + length, lengths)
locations = st.none() | st.builds(
    WorkLocation, st.sampled_from(WorkLocationType), st.none() | st.just("Building 7"), ends
)
states = st.builds(
    UserState,
    sessions_of_a_user,
    st.none() | st.just(NOW - TICK),
    st.none() | st.builds(Preferred, st.sampled_from(PREFERABLE), ends),
    st.none() | st.builds(StatusMessage, st.just("In the lab"), st.just(NOW - HOUR), st.none() | ends),
    locations,
    locations,
)


@given(states, ends)
def test_it_explains_what_everybody_sees(state: UserState, now: datetime) -> None:
    said = explain(state, now)
    assert said.presence == presence_of(state, now)
    counts = [session.shows for session in said.sessions if session.wins]
    assert (counts or [OFFLINE]) == [aggregate(state.sessions, now)]
    preferred = [state.preferred.shown] if state.preferred and said.preference is Preference.APPLIES else []
    assert said.presence.shown == (preferred or counts or [OFFLINE])[0]


@given(states, ends)
def test_each_session_is_there_once_and_before_those_it_goes_before(state: UserState, now: datetime) -> None:
    said = explain(state, now)
    assert sorted(session.session for session in said.sessions) == sorted(state.sessions)
    assert [session.live for session in said.sessions] == sorted((s.live for s in said.sessions), reverse=True)
    ended = [session.session.expires_at for session in said.sessions if not session.live]
    assert ended == sorted(ended, reverse=True)
    live = [session.session for session in said.live]
    for place, session in enumerate(said.live):
        assert aggregate(live[place:], now) == session.shows
    assert [session.wins for session in said.live] == [True, *[False] * len(live)][: len(live)]


@given(states, ends)
def test_the_rule_is_the_one_without_which_another_session_might_count(state: UserState, now: datetime) -> None:
    said = explain(state, now)
    ranks = sorted((rank(shown_at(s, now)) for s in state.sessions if s.expires_at > now), reverse=True)
    first = [s.session for s in said.live if rank(s.shows) == ranks[0]] if ranks else []
    latest = [session for session in first if session.changed_at == max(each.changed_at for each in first)]
    assert said.rule is (
        Rule.NONE_LIVE
        if not ranks
        else Rule.ONLY_ONE
        if len(ranks) == 1
        else Rule.MOST_SIGNIFICANT
        if len(first) == 1
        else Rule.SET_LAST
        if len(latest) == 1
        else Rule.SMALLER_ID
    )


@given(states, ends)
def test_nothing_visible_changes_before_the_next_change_and_something_does_at_it(
    state: UserState, now: datetime
) -> None:
    said = explain(state, now)
    moments = {now + step for step in (TICK, MINUTE, HOUR)} | {
        turn + step for turn in turning_points(state) for step in (-TICK, NONE, TICK)
    }
    expected = said.presence
    coming = list(said.ahead)
    for moment in sorted(moment for moment in moments if moment > now):
        if coming and moment >= coming[0].at:
            at, after = coming.pop(0)
            assert at == moment
            assert visible(after) != visible(expected)
            expected = after
        assert visible(presence_of(state, moment)) == visible(expected)
    assert coming == []


@given(states, ends)
def test_what_a_session_will_show_is_what_it_does_show_then(state: UserState, now: datetime) -> None:
    for session in explain(state, now).sessions:
        assert session.live == bool(session.ahead)
        shows = session.shows
        for at, after in session.ahead:
            assert aggregate([session.session], at - TICK) == shows
            assert aggregate([session.session], at) == after
            assert after != shows
            shows = after
        assert shows == OFFLINE


@given(states, ends)
def test_the_text_says_all_that_changes(state: UserState, now: datetime) -> None:
    said = explain(state, now)
    text = text_of(said, "Adele")
    assert text.startswith(f"Adele shows {said.presence.shown} at ")
    for before, after in pairwise((said.presence, *(change.presence for change in said.ahead))):
        change = next(change for change in said.ahead if change.presence == after)
        clauses = change_texts(change, before)
        assert clauses
        assert f"  {when(change.at, now)}: {', '.join(clauses)}" in text.splitlines()
    assert all(session.session_id in text for session in state.sessions)


def rule_of(*sessions: Session) -> Explanation:
    return explain(UserState(sessions, NOW), NOW)


def test_the_rules_by_example() -> None:
    busy, other = a_session(IN_A_CALL, 2 * MINUTE), a_session(IN_A_CONFERENCE_CALL, MINUTE, session_id=LARGE_ID)
    assert rule_of().rule is Rule.NONE_LIVE
    assert rule_of(a_session(IN_A_CALL, left=NONE)).rule is Rule.NONE_LIVE
    assert rule_of(busy, a_session(PRESENTING, left=NONE, session_id=LARGE_ID)).rule is Rule.ONLY_ONE
    assert rule_of(busy, a_session(AVAILABLE, session_id=LARGE_ID)).rule is Rule.MOST_SIGNIFICANT
    assert rule_of(busy, other).rule is Rule.SET_LAST
    assert rule_of(busy, a_session(IN_A_CONFERENCE_CALL, 2 * MINUTE, session_id=LARGE_ID)).rule is Rule.SMALLER_ID


@pytest.mark.parametrize(
    ("preferred", "sessions", "expected"),
    [
        (None, [IN_A_CALL], Preference.NOT_SET),
        (NONE, [IN_A_CALL], Preference.EXPIRED),
        (NONE, [], Preference.EXPIRED),
        (TICK, [], Preference.NO_LIVE_SESSION),
        (TICK, [IN_A_CALL], Preference.APPLIES),
    ],
)
def test_a_preference_applies_while_it_and_a_session_live(
    preferred: timedelta | None, sessions: list[Shown], expected: Preference
) -> None:
    said = None if preferred is None else Preferred(BUSY, NOW + preferred)
    state = UserState([a_session(shown) for shown in sessions], NOW, said)
    assert explain(state, NOW).preference is expected


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (NONE, "less than 1 s"),
        (timedelta(seconds=59.9), "59 s"),
        (MINUTE, "1 min"),
        (90 * MINUTE, "1 h 30 min"),
        (HOUR + TICK, "1 h"),
        (timedelta(hours=1, seconds=59), "1 h"),
        (timedelta(days=2, minutes=5), "2 d"),
        (timedelta(days=2, hours=5), "2 d 5 h"),
        (-MINUTE, "1 min"),
    ],
)
def test_a_length_in_words(length: timedelta, said: str) -> None:
    assert span(length) == said


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (NONE, "08:00:00 (now)"),
        (MINUTE, "08:01:00 (in 1 min)"),
        (-9 * HOUR, "2026-03-01 23:00:00 (9 h ago)"),
        (16 * HOUR, "2026-03-03 00:00:00 (in 16 h)"),
    ],
)
def test_a_moment_in_words(after: timedelta, said: str) -> None:
    assert when(NOW + after, NOW) == said


@pytest.mark.parametrize("kind", EventKind)
def test_every_kind_of_event_has_its_words(kind: EventKind) -> None:
    shown = AWAY if kind in {"set", "cleared", "expired", "preferredSet", "preferredExpired"} else None
    by_time = kind.endswith("xpired") and kind is not EventKind.EXPIRED
    said = event_text(PastEvent(1, NOW, NIL if by_time else SMALL_ID, kind, shown, None, None, None))
    assert (str(AWAY) in said) == (shown is not None)
    assert (SMALL_ID in said) != by_time
    assert NIL not in said
    assert "None" not in said


def test_an_operator_is_named_with_what_he_ended() -> None:
    event = PastEvent(1, NOW, SMALL_ID, EventKind.CLEARED, INACTIVE, NOW, None, "cli:root")
    assert event_text(event) == f"cli:root ended the session of app {SMALL_ID}, which had been set to {INACTIVE}"
