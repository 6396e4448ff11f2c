"""Lengths of time as OData writes them (Edm.Duration): days and below, no months, weeks or signs."""

import re
from datetime import timedelta

_EDM_DURATION = re.compile(
    r"P(?=.)(?:(?P<days>\d{1,9})D)?"
    r"(?:T(?=.)(?:(?P<hours>\d{1,9})H)?(?:(?P<minutes>\d{1,9})M)?(?:(?P<seconds>\d{1,9})(?:\.(?P<fraction>\d{1,12}))?S)?)?",
    re.ASCII,
)


def parse_duration(text: str) -> timedelta:
    """Return the length that an Edm.Duration such as "PT1H30M" or "P1DT0.5S" stands for, to the microsecond.

    Raises:
        ValueError: `text` is not of that form, or longer than a timedelta can be.

    Source: OData 4.01 ABNF, durationValue. Ours: no sign, at most nine digits a part.
    """
    match = _EDM_DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"not an ISO 8601 duration such as PT1H: {text!r:.60}")
    days, hours, minutes, seconds = (int(match[part] or 0) for part in ("days", "hours", "minutes", "seconds"))
    microseconds = int((match["fraction"] or "").ljust(6, "0")[:6])
    try:
        return timedelta(days, seconds, microseconds, minutes=minutes, hours=hours)
    except OverflowError:
        raise ValueError(f"too long a duration: {text!r:.60}") from None
