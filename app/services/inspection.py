"""The use cases of those who operate the service: why a user is what he is, and ending a session for somebody else."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from app.db.inspection import Inspector, Minute, StoredSession
from app.db.store import Store
from app.domain.aggregate import aggregate, presence_of
from app.domain.explain import Explanation, explain
from app.domain.values import Availability, PastEvent, SessionKey, Shown
from app.services.presence import Clock, SessionNotFound

__all__ = ["InspectionService", "Minute", "Stats", "StoredSession"]

LATELY = 5
"""Events that an explanation ends with."""
READ_AT_ONCE = 500
ENDS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 240))
"""In how long sessions end: those between two are counted together. None lasts for longer than the last."""
SOONEST = 10
MOST_ACTOR_CHARACTERS = 256


class Stats(NamedTuple):
    """What the store holds at a moment, in figures."""

    now: datetime
    live_sessions: int
    users: Mapping[Availability, int]
    """How many of those with a live session show what, the most first. Offline is who prefers to look so."""
    sessions: Mapping[str, int]
    """Live sessions by application, the most first."""
    looked_at: int | None
    """Live sessions that these three are estimated from; None: they are exact."""
    minutes: Sequence[Minute]
    """Events of each full minute of the last hour, oldest first; fewer minutes when there were very many events."""
    ending: Mapping[timedelta, int]
    """How many sessions end within each of ENDS, and within none that is shorter."""
    soonest: Sequence[StoredSession]
    """Which of the sessions that were looked at end first."""

    @property
    def events_per_minute(self) -> float:
        """The mean of these minutes."""
        return sum(minute.events for minute in self.minutes) / max(1, len(self.minutes))


class InspectionService:
    """Looks into the store of all tenants. Who may use it may see everything."""

    def __init__(self, store: Store, inspector: Inspector, clock: Clock) -> None:
        self._store = store
        self._inspector = inspector
        self._clock = clock

    def explain(self, tenant_id: str, user_id: str) -> Explanation:
        """Return why a user's presence is what it is."""
        lately = self._inspector.history(tenant_id, user_id, LATELY)
        return explain(self._store.read_user(tenant_id, user_id), self._clock(), lately)

    def end_session(self, key: SessionKey, actor: str, request_id: str | None = None) -> Shown:
        """End a live session in its application's place and return what the sessions that remain add up to.

        The history tells it as `cleared`, with `actor` (such as `cli:root`) as who did it.

        Raises:
            SessionNotFound: there is none, or it has expired.
            ValueError: `actor` is empty, too long or unprintable.
        """
        if not actor.isprintable() or not 0 < len(actor) <= MOST_ACTOR_CHARACTERS:
            raise ValueError(f"who does it must be 1 to {MOST_ACTOR_CHARACTERS} printable characters: {actor!r:.60}")
        now = self._clock()
        remaining = self._store.end_session(key, now, request_id, actor)
        if remaining is None:
            raise SessionNotFound(key)
        return aggregate(remaining, now)

    def history(
        self, tenant_id: str, user_id: str, most: int, before: tuple[datetime, int] | None = None
    ) -> list[PastEvent]:
        """Return a user's events, newest first; `before` is the moment and id of the last one of the page before."""
        return self._inspector.history(tenant_id, user_id, most, before)

    def sessions(
        self,
        most: int,
        *,
        tenant_id: str | None = None,
        user_id: str | None = None,
        app_id: str | None = None,
        after: SessionKey | None = None,
    ) -> list[StoredSession]:
        """Return live sessions in the order of their keys; `after` is the key of the last one of the page before."""
        return self._inspector.live_sessions(
            self._clock(), most, tenant_id=tenant_id, user_id=user_id, app_id=app_id, after=after
        )

    def stats(self, tenant_id: str | None = None) -> Stats:
        """Return figures of a tenant, or of all. Of many sessions a sample is read, and the figures are estimates."""
        now = self._clock()
        sample = self._inspector.sample(now, tenant_id)
        users: dict[Availability, float] = defaultdict(float)
        sessions = sorted(sample.sessions, key=lambda stored: stored.session.expires_at)
        for availability, live in self._shown([stored.key for stored in sessions], now):
            users[availability] += sample.each_stands_for / live  # a user of several sessions is as often in the sample
        apps = Counter(stored.session.session_id for stored in sessions)
        ending = Counter(_ends_within(stored.session.expires_at - now) for stored in sessions)
        this_minute = now.replace(second=0, microsecond=0)
        return Stats(
            now=now,
            live_sessions=round(len(sessions) * sample.each_stands_for),
            users={each: round(users[each]) for each in sorted(users, key=lambda each: (-users[each], each))},
            sessions={app_id: round(count * sample.each_stands_for) for app_id, count in apps.most_common()},
            looked_at=len(sessions) if sample.each_stands_for > 1 else None,
            minutes=self._inspector.minutes(this_minute - timedelta(hours=1), this_minute, tenant_id),
            ending={within: round(ending[within] * sample.each_stands_for) for within in ENDS},
            soonest=sessions[:SOONEST],
        )

    def _shown(self, keys: Iterable[SessionKey], now: datetime) -> Iterator[tuple[Availability, int]]:
        """Return for each session what its user shows, and how many live sessions he has."""
        by_tenant: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            by_tenant[key.tenant_id].append(key.user_id)
        for tenant_id, user_ids in by_tenant.items():
            times = Counter(user_ids)
            different = list(times)
            for start in range(0, len(different), READ_AT_ONCE):
                states = self._store.read_users(tenant_id, different[start : start + READ_AT_ONCE])
                for user_id, state in states.items():
                    live = sum(session.expires_at > now for session in state.sessions)
                    shown = presence_of(state, now).shown.availability
                    yield from [(shown, live)] * (times[user_id] if live else 0)


def _ends_within(left: timedelta) -> timedelta:
    return next((within for within in ENDS if left <= within), ENDS[-1])
