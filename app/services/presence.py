"""The use cases of presence."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from app.db.database import StoreUnavailable
from app.db.statements import LOCATIONS, Part
from app.db.store import Event, Store
from app.domain.aggregate import Presence, presence_of
from app.domain.values import NIL, EventKind, Session, SessionKey, Shown, WorkLocationType

__all__ = [
    "LOCATIONS",
    "Clock",
    "ExpiryPassed",
    "Part",
    "PresenceService",
    "SessionNotFound",
    "StoreUnavailable",
]

Clock = Callable[[], datetime]
"""The time now, aware and in UTC."""


class SessionNotFound(Exception):
    """There is no such session: never set, expired, or cleared before."""


class ExpiryPassed(Exception):
    """What is to be published has expired already."""


class PresenceService:
    """Reads and changes presence; what a reader sees is derived from the sessions at the instant of the call."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def set(self, key: SessionKey, shown: Shown, lifetime: timedelta, request_id: str) -> Sequence[Session]:
        """Create or replace the session under `key` for `lifetime`, and return the user's sessions.

        What they add up to from now on, each reader works out at his own instant.
        """
        return self._store.set_session(key, shown, lifetime, self._clock(), request_id)

    def clear(self, key: SessionKey, request_id: str) -> Sequence[Session]:
        """End the session under `key`, and return the user's sessions that remain: what he shows from now on.

        Raises:
            SessionNotFound: there is none, or it has expired.
        """
        remaining = self._store.end_session(key, self._clock(), request_id)
        if remaining is None:
            raise SessionNotFound(key)
        return remaining

    def read(self, tenant_id: str, user_id: str) -> Presence:
        """Return a user's presence; a user whom nobody has set presence for is Offline/Offline."""
        now = self._clock()
        return presence_of(self._store.read_user(tenant_id, user_id), now)

    def read_many(self, tenant_id: str, user_ids: Iterable[str]) -> dict[str, Presence]:
        """Return the presence of each of some users, in the order given, each once."""
        now = self._clock()
        states = self._store.read_users(tenant_id, list(dict.fromkeys(user_ids)))
        return {user_id: presence_of(state, now) for user_id, state in states.items()}

    def list_users(self, tenant_id: str, after: str, most: int) -> list[str]:
        """Return the ids of the next users after one of whom anything is known, in order."""
        return self._store.list_users(tenant_id, after, most)

    def count_users(self, tenant_id: str) -> int:
        """Return of how many users anything is known."""
        return self._store.count_users(tenant_id, NIL)

    def prefer(self, key: SessionKey, shown: Shown, lifetime: timedelta, request_id: str) -> None:
        """Let a user show `shown` in place of what the sessions add up to, while one of them is live."""
        now = self._clock()
        until = now + lifetime
        event = Event(*key, EventKind.PREFERRED_SET, now, request_id, *shown, until)
        values = dict(zip(Part.PREFERRED.value, (*shown, until), strict=True))
        self._store.set_part(Part.PREFERRED, values, event)

    def stop_preferring(self, key: SessionKey, request_id: str) -> None:
        """Forget the user's preference, if there is one."""
        event = Event(*key, EventKind.PREFERRED_CLEARED, self._clock(), request_id)
        self._store.clear_parts((Part.PREFERRED,), event)

    def say(self, key: SessionKey, content: str, expires_at: datetime | None, request_id: str) -> None:
        """Publish a user's status message; an empty one takes the last one back.

        Raises:
            ExpiryPassed: `expires_at` is not in the future.
        """
        now = self._clock()
        if expires_at is not None and expires_at <= now:
            raise ExpiryPassed(expires_at)
        if not content:
            self._store.clear_parts((Part.MESSAGE,), Event(*key, EventKind.MESSAGE_CLEARED, now, request_id))
            return
        event = Event(*key, EventKind.MESSAGE_SET, now, request_id, expires_at=expires_at)
        self._store.set_part(
            Part.MESSAGE, dict(zip(Part.MESSAGE.value, (content, now, expires_at), strict=True)), event
        )

    def locate(
        self, key: SessionKey, layer: Part, where: WorkLocationType, place_id: str | None, request_id: str
    ) -> None:
        """Set where a user works, by hand or automatically, until the day ends (in UTC)."""
        now = self._clock()
        until = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        event = Event(*key, EventKind.LOCATION_SET, now, request_id, expires_at=until)
        self._store.set_part(layer, dict(zip(layer.value, (where, place_id, until), strict=True)), event)

    def stop_locating(self, key: SessionKey, layers: tuple[Part, ...], request_id: str) -> None:
        """Forget where a user works, in the layers named, if anything is known."""
        self._store.clear_parts(layers, Event(*key, EventKind.LOCATION_CLEARED, self._clock(), request_id))
