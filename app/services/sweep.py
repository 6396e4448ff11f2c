"""Removing what nobody needs any more. Presence is right without it: it only keeps the tables small."""

from collections.abc import Iterator
from datetime import timedelta
from typing import NamedTuple

from app.db.sweeping import EVENTS, PARTS, SESSIONS, USERS, Stale, Sweeper
from app.services.presence import Clock

GRACE = timedelta(minutes=10)
"""How long something stays after its end, since to a worker whose clock is behind it may still be live."""


class Swept(NamedTuple):
    """What a sweep has removed so far."""

    sessions: int = 0
    said: int = 0
    """Preferences, status messages and work locations."""
    users: int = 0
    """Rows of users of whom nothing is said any more."""
    events: int = 0


class SweepService:
    """Sweeps the tables, at any time and from several places; no request waits for longer than a batch takes."""

    def __init__(self, sweeper: Sweeper, clock: Clock) -> None:
        self._sweeper = sweeper
        self._clock = clock

    def sweep(self, keep_events: timedelta, batch: int = 500) -> Iterator[Swept]:
        """Remove what has expired, recording each end, and the events older than `keep_events`.

        A user's newest event stays however old. Yields after each batch of rows looked at; nothing happens until the
        next one is asked for, and a sweep that is left where it is has done what it told of.

        Raises:
            StoreUnavailable: the database does not answer, or not in time.
        """
        now = self._clock()
        swept = Swept()
        yield swept
        for counter, what in _WALKS:
            cutoff = now - (keep_events if what is EVENTS else GRACE)
            for count in self._sweeper.batches(what, cutoff, batch):
                swept = swept._replace(**{counter: getattr(swept, counter) + count})
                yield swept


_WALKS: tuple[tuple[str, Stale], ...] = (
    ("sessions", SESSIONS),
    *(("said", part) for part in PARTS),
    ("users", USERS),
    ("events", EVENTS),
)
