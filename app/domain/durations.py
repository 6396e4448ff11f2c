"""Lengths of time as OData writes them (Edm.Duration): days and below, no months, weeks or signs."""

import re
from datetime import timedelta

EDM_DURATION = (
    r"P(?=.)(?:([0-9]{1,9})D)?"
    r"(?:T(?=.)(?:([0-9]{1,9})H)?(?:([0-9]{1,9})M)?(?:([0-9]{1,9})(?:\.([0-9]{1,12}))?S)?)?"
)
"""A regular expression, as Python and ECMAScript write it."""
_EDM_DURATION = re.compile(EDM_DURATION)


def parse_duration(text: str) -> timedelta:
    """Return the length that an Edm.Duration such as "PT1H30M" or "P1DT0.5S" stands for, to the microsecond.

    Raises:
        ValueError: `text` is not of that form, or longer than a timedelta can be.

    Source: OData 4.01 ABNF, durationValue. Ours: no sign, at most nine digits a part.
    """
    match = _EDM_DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"not an ISO 8601 duration such as PT1H: {text!r:.60}")
    *whole, fraction = match.groups()
    days, hours, minutes, seconds = (int(part or 0) for part in whole)
    microseconds = int((fraction or "").ljust(6, "0")[:6])
    try:
        return timedelta(days, seconds, microseconds, minutes=minutes, hours=hours)
    except OverflowError:
        raise ValueError(f"too long a duration: {text!r:.60}") from None
