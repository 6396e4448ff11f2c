"""How many sessions there are, for the metrics."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from sqlalchemy import Engine, and_, bindparam, case, func, select

from app.db.database import Database
from app.db.models import PresenceSession
from app.domain.aggregate import FADE_STEP
from app.domain.values import AVAILABLE, AWAY, SETTABLE

SESSION = PresenceSession.__table__.c
STEPS_BETWEEN_LOOKS = 10_000
"""Of SQLite's machine, from one look at the clock to the next: far less than a millisecond."""


class SessionCount(Database):
    """Counts in one statement, which walks the whole table and ends after `timeout` at the latest."""

    def __init__(self, engine: Engine, timeout: timedelta) -> None:
        super().__init__(engine)
        self._timeout_seconds = timeout.total_seconds()
        faded = and_(SESSION.availability == AVAILABLE.availability, SESSION.set_at <= bindparam("away_if_set_by"))
        shown = case((faded, AWAY.availability), else_=SESSION.availability).label("availability")
        live = SESSION.expires_at > bindparam("now")
        self._count = self._prepared(select(shown, func.count()).where(live).group_by(shown))

    def by_availability(self, now: datetime) -> Mapping[str, int]:
        """Return the live sessions by the availability that each shows; those that none shows are 0.

        Raises:
            StoreUnavailable: the database does not answer, or not in time.
        """
        with self._cursor() as cursor:
            if self._dialect.name == "sqlite":  # which has no time-out for a statement
                late = _after(self._timeout_seconds)
                cursor.connection.set_progress_handler(late, STEPS_BETWEEN_LOOKS)
            try:
                rows = self._count.run(cursor, {"now": now, "away_if_set_by": now - 2 * FADE_STEP})
            finally:
                if self._dialect.name == "sqlite":
                    cursor.connection.set_progress_handler(None, 0)
        return {shown.availability.value: 0 for shown in SETTABLE} | dict(rows)


def _after(seconds: float) -> Callable[[], bool]:
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() > deadline
