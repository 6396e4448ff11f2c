"""The use cases of presence."""

from collections.abc import Callable
from datetime import datetime, timedelta

from app.db.store import Store, StoreUnavailable
from app.domain.aggregate import Presence, aggregate, presence_of
from app.domain.values import SessionKey, Shown

__all__ = ["Clock", "PresenceService", "SessionNotFound", "StoreUnavailable"]

Clock = Callable[[], datetime]
"""The time now, aware and in UTC."""


class SessionNotFound(Exception):
    """There is no such session: never set, expired, or cleared before."""


class PresenceService:
    """Reads and changes presence; what a reader sees is derived from the sessions at the instant of the call."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def set(self, key: SessionKey, shown: Shown, lifetime: timedelta, request_id: str) -> Shown:
        """Create or replace the session under `key` for `lifetime` and return what the user shows then."""
        now = self._clock()
        return aggregate(self._store.set_session(key, shown, lifetime, now, request_id), now)

    def clear(self, key: SessionKey, request_id: str) -> Shown:
        """End the session under `key` and recompute what the user shows from the sessions that remain.

        Raises:
            SessionNotFound: there is none, or it has expired.
        """
        now = self._clock()
        remaining = self._store.end_session(key, now, request_id)
        if remaining is None:
            raise SessionNotFound(key)
        return aggregate(remaining, now)

    def read(self, tenant_id: str, user_id: str) -> Presence:
        """Return a user's presence; a user whom nobody has set presence for is Offline/Offline."""
        now = self._clock()
        return presence_of(self._store.read_user(tenant_id, user_id), now)
