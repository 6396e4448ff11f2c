"""What people who run the service look through: users, sessions and changes of all tenants, part by part."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple, TypeVar

from app.db.browsing import FIRST, Browser, Change, UserKey
from app.db.inspection import StoredSession
from app.db.store import Store
from app.domain.aggregate import Presence, UserState, presence_of, shown_at
from app.domain.directory import User
from app.domain.explain import Explanation
from app.domain.timeline import Timeline, timeline
from app.domain.values import DASHED_GUID, Availability, PastEvent, Session, SessionKey, Shown, derived_user_id
from app.services.inspection import InspectionService, Stats
from app.services.presence import Clock

__all__ = ["FIRST", "BrowsingService", "Change", "SeenChange", "SeenSession", "SeenUser", "UserKey", "Wanted"]

PAGE = 50
"""Rows on a page."""
LOOKED_AT = 2000
"""Users of whom a page looks at no more, however few of them it is to show."""
AT_ONCE = 250
"""Users or changes read by one query where many are."""
EXPORTED = 100_000
"""Rows of an export."""
HISTORY = 200
"""Events of a user."""
AHEAD = 0.25
"""How much of the time to come a picture shows, beside the time that has passed."""


class Wanted(NamedTuple):
    """What a list is narrowed to; None: it is not."""

    availability: Availability | None = None
    tenant_id: str | None = None
    app_id: str | None = None
    user_id: str | None = None
    """Of changes alone."""


class SeenUser(NamedTuple):
    """A user, and what they show."""

    key: UserKey
    user: User | None
    """None: the directory does not know them."""
    state: UserState
    presence: Presence
    live: tuple[Session, ...]


class SeenSession(NamedTuple):
    """A live session, and what it shows."""

    key: UserKey
    user: User | None
    session: Session
    shows: Shown


class SeenChange(NamedTuple):
    """An event, and whom it is about."""

    change: Change
    user: User | None


class UserInFull(NamedTuple):
    """All there is to tell of a user."""

    key: UserKey
    user: User | None
    explanation: Explanation
    history: Sequence[PastEvent]
    """The HISTORY newest events, newest first."""
    timeline: Timeline


class Users(NamedTuple):
    """Some of the users of a list."""

    rows: list[SeenUser]
    later: UserKey | None
    """After whom to go on; None: that is all."""
    looked_at: int


Named = TypeVar("Named", SeenUser, SeenSession)


class BrowsingService:
    """Reads what the store holds of anybody, and derives what they show at the instant of the call."""

    def __init__(self, inspection: InspectionService, browser: Browser, store: Store, clock: Clock) -> None:
        self.inspection = inspection
        self._browser = browser
        self._store = store
        self._clock = clock

    def users(self, wanted: Wanted, after: UserKey = FIRST, most: int = PAGE) -> Users:
        """Return the next users after one, in order of tenant and id, looking at LOOKED_AT of them at most."""
        now = self._clock()
        rows: list[SeenUser] = []
        last, looked_at = after, 0
        at_once = most + 1 if wanted.availability is None else max(most, AT_ONCE)
        while looked_at < LOOKED_AT:
            keys = self._browser.users(last, wanted.tenant_id, wanted.app_id, at_once)
            for seen in self._seen(keys, now):
                if len(rows) == most:
                    return Users(self._named(rows), last, looked_at)
                looked_at, last = looked_at + 1, seen.key
                if _fits(seen, wanted):
                    rows.append(seen)
            if len(keys) < at_once:
                return Users(self._named(rows), None, looked_at)
        return Users(self._named(rows), last, looked_at)

    def sessions(
        self, wanted: Wanted, after: SessionKey | None = None, most: int = PAGE
    ) -> tuple[list[SeenSession], SessionKey | None]:
        """Return the next live sessions after one, in the order of their keys, and after which to go on."""
        found = self.inspection.sessions(most + 1, tenant_id=wanted.tenant_id, app_id=wanted.app_id, after=after)
        later = found[most - 1].key if len(found) > most else None
        return self._seen_sessions(found[:most]), later

    def changes(
        self, wanted: Wanted, before: int | None = None, most: int = 2 * PAGE
    ) -> tuple[list[SeenChange], int | None]:
        """Return what happened before an event, the newest first, and before which to go on; None: that is all."""
        found, later = self._browser.changes(before, wanted.tenant_id, wanted.user_id, wanted.app_id, most)
        names = self._browser.names(list(dict.fromkeys(change.key for change in found)))
        return [SeenChange(each, names.get(each.key)) for each in found], later

    def all_users(self, wanted: Wanted) -> Iterator[SeenUser]:
        """Return users, EXPORTED at most; the database is asked for some at a time."""

        def each() -> Iterator[SeenUser]:
            later: UserKey | None = FIRST
            while later is not None:
                rows, later, _ = self.users(wanted, later, AT_ONCE)
                yield from rows

        return islice(each(), EXPORTED)

    def all_sessions(self, wanted: Wanted) -> Iterator[SeenSession]:
        """Return live sessions, EXPORTED at most; the database is asked for some at a time."""

        def each() -> Iterator[SeenSession]:
            rows, later = self.sessions(wanted, None, AT_ONCE)
            yield from rows
            while later is not None:
                rows, later = self.sessions(wanted, later, AT_ONCE)
                yield from rows

        return islice(each(), EXPORTED)

    def all_changes(self, wanted: Wanted) -> Iterator[SeenChange]:
        """Return the newest changes, EXPORTED at most; the database is asked for some at a time."""

        def each() -> Iterator[SeenChange]:
            rows, later = self.changes(wanted, None, AT_ONCE)
            yield from rows
            while later is not None:
                rows, later = self.changes(wanted, later, AT_ONCE)
                yield from rows

        return islice(each(), EXPORTED)

    def find(self, text: str, tenant_id: str | None = None) -> list[SeenUser]:
        """Return the users whose id `text` is, or whose userPrincipalName begins like it; PAGE of them at most.

        An id is somebody's when anything is stored of it. A name that the directory does not know may be one that an
        id was derived from.
        """
        tenants = [tenant_id] if tenant_id else self._browser.tenants()
        if DASHED_GUID.fullmatch(text):
            keys = self._browser.known([UserKey(tenant, text.lower()) for tenant in tenants])
        elif not (text.isascii() and text.isprintable()):
            keys = []  # no name begins like that, and PostgreSQL would not take a NUL
        else:
            keys = self._browser.named(text, tenant_id, PAGE)
            if not keys and "@" in text:
                keys = self._browser.known([UserKey(tenant, derived_user_id(tenant, text)) for tenant in tenants])
        return self._named(self._seen(keys[:PAGE], self._clock()))

    def user(self, key: UserKey, back: timedelta) -> UserInFull:
        """Return all about a user, with a picture of so long until now; one of whom nothing is stored is offline."""
        explanation = self.inspection.explain(*key)
        history = self.inspection.history(*key, HISTORY)
        if len(history) == HISTORY:  # what happened before these is not known here
            back = min(back, max(explanation.now - history[-1].at, AHEAD * back))
        pictured = timeline(explanation.state, history, explanation.now, back, AHEAD * back)
        return UserInFull(key, self._browser.names([key]).get(key), explanation, history, pictured)

    def overview(self) -> tuple[Stats, list[SeenSession]]:
        """Return how it all adds up, and the sessions that end soonest."""
        stats = self.inspection.stats()
        return stats, self._seen_sessions(stats.soonest)

    def _seen(self, keys: Sequence[UserKey], now: datetime) -> list[SeenUser]:
        """Return some users, whose names are still to be looked up."""
        states: dict[UserKey, UserState] = {}
        for tenant_id in dict.fromkeys(key.tenant_id for key in keys):
            user_ids = [key.user_id for key in keys if key.tenant_id == tenant_id]
            found = self._store.read_users(tenant_id, user_ids)
            states.update({UserKey(tenant_id, user_id): state for user_id, state in found.items()})
        return [_seen_user(key, states[key], now) for key in keys]

    def _seen_sessions(self, found: Iterable[StoredSession]) -> list[SeenSession]:
        now = self._clock()
        return self._named(
            [
                SeenSession(UserKey(each.tenant_id, each.user_id), None, each.session, shown_at(each.session, now))
                for each in found
            ]
        )

    def _named(self, rows: Sequence[Named]) -> list[Named]:
        names = self._browser.names(list(dict.fromkeys(row.key for row in rows)))
        return [row._replace(user=names.get(row.key)) for row in rows]


def _seen_user(key: UserKey, state: UserState, now: datetime) -> SeenUser:
    live = tuple(session for session in state.sessions if session.expires_at > now)
    return SeenUser(key, None, state, presence_of(state, now), live)


def _fits(seen: SeenUser, wanted: Wanted) -> bool:
    shows = wanted.availability in {None, seen.presence.shown.availability}
    return shows and wanted.app_id in {None, *(session.session_id for session in seen.live)}
