"""How moments, lengths of time and numbers are written on the pages."""

from datetime import UTC, datetime

from app.domain.explain_text import event_text, span
from app.domain.values import NIL, Availability

AVAILABILITIES = (
    Availability.AVAILABLE,
    Availability.BUSY,
    Availability.DO_NOT_DISTURB,
    Availability.BE_RIGHT_BACK,
    Availability.AWAY,
    Availability.OFFLINE,
)
"""Those that anybody can show."""


def moment(at: datetime, now: datetime) -> str:
    """Return a moment in UTC to the second, with the date when it is not today's."""
    at = at.astimezone(UTC)
    return f"{at:%H:%M:%S}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M:%S}"


def from_now(at: datetime, now: datetime) -> str:
    """Return how far off a moment is, such as in 3 min 20 s."""
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"


def number(count: float, *, exact: bool = True) -> str:
    """Return a count, or an estimate to two digits."""
    if exact:
        return f"{count:,.0f}"
    return f"≈ {float(f'{count:.2g}'):,.0f}"


VOCABULARY = {
    "AVAILABILITIES": AVAILABILITIES,
    "NIL": NIL,
    "moment": moment,
    "span": span,
    "event_text": event_text,
    "from_now": from_now,
    "number": number,
}
