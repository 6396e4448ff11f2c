"""Presence that says why a change which was made is not seen."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from typing_extensions import override

from app.domain.aggregate import UserState, presence_of, shown_at, winner
from app.domain.values import OFFLINE, Session, SessionKey, Shown
from app.emulator.hints import Hint, HintId, note
from app.services.presence import PresenceService


class ExplainedPresence(PresenceService):
    """Looks at a user before each change, which costs a read, and notes a hint when nobody sees it."""

    @override
    def set(self, key: SessionKey, shown: Shown, lifetime: timedelta, request_id: str) -> Sequence[Session]:
        before = self._look(key)
        sessions = super().set(key, shown, lifetime, request_id)
        self._note(why_session_unseen(key.session_id, shown, before, sessions, self._clock()))
        return sessions

    @override
    def clear(self, key: SessionKey, request_id: str) -> Sequence[Session]:
        before = self._look(key)
        remaining = super().clear(key, request_id)
        self._note(why_session_unseen(key.session_id, None, before, remaining, self._clock()))
        return remaining

    @override
    def prefer(self, key: SessionKey, shown: Shown, lifetime: timedelta, request_id: str) -> None:
        before = self._look(key)
        super().prefer(key, shown, lifetime, request_id)
        seen = presence_of(before, self._clock()).shown
        if seen == OFFLINE:
            text = f"{shown} shows only while a session is live, and none is: the user is {seen}"
            self._note(Hint(HintId.NO_LIVE_SESSION, text))
        elif seen == shown:
            self._note(Hint(HintId.ALREADY_SHOWN, f"the user showed {seen} already"))

    @override
    def stop_preferring(self, key: SessionKey, request_id: str) -> None:
        preferred = self._look(key).preferred
        super().stop_preferring(key, request_id)
        if preferred is None or preferred.expires_at <= self._clock():
            self._note(Hint(HintId.NOTHING_TO_CLEAR, "the user had no preferred presence"))

    def _look(self, key: SessionKey) -> UserState:
        return self._store.read_user(key.tenant_id, key.user_id)

    def _note(self, hint: Hint | None) -> None:
        if hint is not None:
            note(hint)


def why_session_unseen(
    session_id: str, wanted: Shown | None, before: UserState, sessions: Sequence[Session], now: datetime
) -> Hint | None:
    """Return why nobody sees that a session was set to `wanted`, or cleared (None); None when it is seen.

    `sessions` are the user's afterwards.
    """
    after = before._replace(sessions=sessions)
    was, seen = presence_of(before, now).shown, presence_of(after, now).shown
    if seen != was and wanted in {None, seen}:
        return None
    preferred = after.preferred
    if preferred is not None and preferred.expires_at > now and preferred.shown == seen:
        return Hint(
            HintId.HIDDEN_BY_PREFERRED,
            f"the user prefers {seen} until {_moment(preferred.expires_at)}, which shows in place of the sessions",
        )
    for session in sorted(before.sessions):
        if session.session_id == session_id and session.expires_at > now and wanted == seen == shown_at(session, now):
            return Hint(HintId.KEEP_ALIVE, f"the session showed {seen} already: only its end moved")
    other = winner([session for session in after.sessions if session.session_id != session_id], now)
    if other is not None and shown_at(other, now) == seen:
        of = f"{seen} of session {other.session_id}, which lasts until {_moment(other.expires_at)}"
        if wanted == seen:
            return Hint(HintId.ALREADY_SHOWN, f"the user showed it already: {of}")
        return Hint(HintId.OUTRANKED, f"{f'not {wanted} shows, but' if wanted else 'what shows is'} {of}")
    return None


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
