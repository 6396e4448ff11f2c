"""Why a user shows what he shows, and what time alone will make of it. docs/explain.md has examples."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from app.domain.aggregate import (
    Presence,
    UserState,
    presence_of,
    rank,
    session_turning_points,
    shown_at,
    turning_points,
    winner,
)
from app.domain.values import OFFLINE, PastEvent, Session, Shown


class Rule(StrEnum):
    """By which rule a session goes before the others."""

    NONE_LIVE = "noneLive"
    ONLY_ONE = "onlyOne"
    MOST_SIGNIFICANT = "mostSignificant"
    SET_LAST = "setLast"
    SMALLER_ID = "smallerId"


class Preference(StrEnum):
    """Whether what the user prefers shows in place of the sessions, and why it does not."""

    NOT_SET = "notSet"
    EXPIRED = "expired"
    NO_LIVE_SESSION = "noLiveSession"
    APPLIES = "applies"


class Turn(NamedTuple):
    """A moment at which time alone changes what one session shows; OFFLINE: it ends."""

    at: datetime
    shows: Shown


class SessionNow(NamedTuple):
    """What one session is at a moment, and what it will be."""

    session: Session
    live: bool
    shows: Shown
    """OFFLINE when it is not live."""
    wins: bool
    ahead: tuple[Turn, ...]
    """Its own turns, soonest first; the last is its end."""

    @property
    def faded(self) -> bool:
        """True when it is live and shows something else than it was set to."""
        return self.live and self.shows != self.session.shown


class Change(NamedTuple):
    """A moment at which time alone changes what everybody sees, and what they see from then on."""

    at: datetime
    presence: Presence


class Explanation(NamedTuple):
    """Why a user's presence is what it is at a moment."""

    now: datetime
    presence: Presence
    state: UserState
    sessions: tuple[SessionNow, ...]
    """Each before those it goes before; at the end those that are not live, the last to have ended first."""
    rule: Rule
    preference: Preference
    ahead: tuple[Change, ...]
    """All that time alone will change, soonest first."""
    history: tuple[PastEvent, ...]
    """What happened lately, newest first."""

    @property
    def live(self) -> tuple[SessionNow, ...]:
        """The sessions that count."""
        return tuple(session for session in self.sessions if session.live)


def explain(state: UserState, now: datetime, history: Sequence[PastEvent] = ()) -> Explanation:
    """Return why a user shows at `now` what `presence_of(state, now)` says."""
    live = []
    left = [session for session in state.sessions if session.expires_at > now]
    while first := winner(left, now):
        left.remove(first)
        live.append(first)
    ended = sorted((session for session in state.sessions if session.expires_at <= now), key=_end, reverse=True)
    return Explanation(
        now=now,
        presence=presence_of(state, now),
        state=state,
        sessions=tuple(_session_now(session, now, wins=session in live[:1]) for session in (*live, *ended)),
        rule=_rule(live, now),
        preference=_preference(state, now, any_live=bool(live)),
        ahead=changes(state, now),
        history=tuple(history),
    )


def changes(state: UserState, since: datetime) -> tuple[Change, ...]:
    """Return all that time alone will change of what everybody sees after `since`, soonest first."""
    found = []
    seen = visible(presence_of(state, since))
    for at in sorted({moment for moment in turning_points(state) if moment > since}):
        presence = presence_of(state, at)
        if visible(presence) != seen:
            found.append(Change(at, presence))
            seen = visible(presence)
    return tuple(found)


def visible(presence: Presence) -> tuple[object, ...]:
    """Return the part of a presence that says something of the user, and not when it was recorded."""
    return (presence.shown, presence.message, presence.location, presence.location_source)


def _session_now(session: Session, now: datetime, *, wins: bool) -> SessionNow:
    live = session.expires_at > now
    turns = sorted(moment for moment in session_turning_points(session) if moment > now)
    ahead = tuple(Turn(at, shown_at(session, at) if at < session.expires_at else OFFLINE) for at in turns)
    return SessionNow(session, live, shown_at(session, now) if live else OFFLINE, wins, ahead)


def _rule(live: Sequence[Session], now: datetime) -> Rule:
    if not live:
        return Rule.NONE_LIVE
    if len(live) == 1:
        return Rule.ONLY_ONE
    first, second = live[:2]
    if rank(shown_at(first, now)) > rank(shown_at(second, now)):
        return Rule.MOST_SIGNIFICANT
    return Rule.SET_LAST if first.changed_at > second.changed_at else Rule.SMALLER_ID


def _preference(state: UserState, now: datetime, *, any_live: bool) -> Preference:
    if state.preferred is None:
        return Preference.NOT_SET
    if state.preferred.expires_at <= now:
        return Preference.EXPIRED
    return Preference.APPLIES if any_live else Preference.NO_LIVE_SESSION


def _end(session: Session) -> tuple[datetime, str]:
    return (session.expires_at, session.session_id)
