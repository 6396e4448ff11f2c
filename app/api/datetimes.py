"""Graph's dateTimeTimeZone: a local time and the zone it is in, under its Windows or its IANA name."""

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from tzlocal.windows_tz import win_tz

_LOCAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,7})?)?", re.ASCII)
_ZONES = {name.lower(): zone for name, zone in win_tz.items()}


def utc_moment(local: str, zone: str | None) -> datetime:
    """Return the moment, to the microsecond, that clocks in a zone show as `local`; without a zone, in UTC.

    A time that the zone's clocks show twice is the first of the two.

    Raises:
        ValueError: `local` is no date and time without an offset, or the zone is unknown; the message says which.
    """
    try:
        naive = datetime.fromisoformat(local) if _LOCAL.fullmatch(local) else None
    except ValueError:
        naive = None
    if naive is None:
        raise ValueError(f"DateTime must be like 2026-09-01T08:00:00, without an offset, got {local!r:.60}")
    name = zone or "UTC"
    try:
        return naive.replace(tzinfo=ZoneInfo(_ZONES.get(name.lower(), name))).astimezone(UTC)
    except (
        KeyError,
        OSError,
        ValueError,
        OverflowError,
    ):  # of a name that is none, a folder's, or odd to a file system
        raise ValueError(f"TimeZone must be a Windows or IANA name such as UTC, got {name!r:.60}") from None


def graph_moment(moment: datetime) -> str:
    """Return a moment in UTC as Graph writes it in a dateTimeTimeZone: seven digits after the second, no offset."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f0")
