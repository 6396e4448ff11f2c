"""The geometry of the pictures: pure. The templates draw them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from app.domain.timeline import Span, Timeline

ROW, BAR, AXIS = 46, 20, 24
"""Pixels: from one row to the next, of a row's bar, of the axis."""
STEPS = tuple(timedelta(minutes=minutes) for minutes in (5, 15, 30, 60, 120, 360, 720))
MOST_TICKS = 6


class Bar(NamedTuple):
    """One column of a bar chart."""

    at: datetime
    value: int
    x: float
    width: float
    height: float
    """Percent of the picture's."""


class Piece(NamedTuple):
    """A part of a row that shows one thing."""

    x: float
    width: float
    """Percent of the picture's width."""
    span: Span
    to_come: bool


class Row(NamedTuple):
    """What something showed over time."""

    name: str
    """Whose: presence, preferred, or an application's id."""
    y: int
    """Pixels from the top to its bar; the name stands above that."""
    pieces: list[Piece]


class Picture(NamedTuple):
    """A timeline, drawn: pixels from the top, percent from the left."""

    height: int
    rows: list[Row]
    now: float
    ticks: list[tuple[float, datetime]]


def bars(counted: Sequence[tuple[datetime, int]]) -> list[Bar]:
    """Return the columns of a chart as high as its largest count."""
    most = max((count for _, count in counted), default=0) or 1
    width = 100 / max(len(counted), 1)
    return [
        Bar(at, count, round(place * width, 3), round(width * 0.8, 3), round(100 * count / most, 3))
        for place, (at, count) in enumerate(counted)
    ]


def picture(timeline: Timeline) -> Picture:
    """Return the rows of a timeline: the presence, what is preferred, and each application's session."""
    named = [("presence", timeline.presence), ("preferred", timeline.preferred), *timeline.sessions]
    shown = [(name, spans) for name, spans in named if spans]
    rows = [
        Row(name, place * ROW + ROW - BAR - 6, list(_pieces(timeline, spans)))
        for place, (name, spans) in enumerate(shown)
    ]
    ticks = [(_x(timeline, at), at) for at in _ticks(timeline.start, timeline.end)]
    return Picture(len(rows) * ROW + AXIS, rows, _x(timeline, timeline.now), ticks)


def _pieces(timeline: Timeline, spans: Sequence[Span]) -> Iterator[Piece]:
    for span in spans:
        until = min(span.end, timeline.now)
        since = max(span.start, timeline.now)
        for start, end, to_come in ((span.start, until, False), (since, span.end, True)):
            if start < end:
                x = _x(timeline, start)
                yield Piece(x, round(_x(timeline, end) - x, 3), span, to_come)


def _ticks(start: datetime, end: datetime) -> Iterator[datetime]:
    """Return the round moments (UTC) between two, MOST_TICKS at most."""
    step = next((each for each in STEPS if (end - start) / each <= MOST_TICKS), STEPS[-1])
    midnight = start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    at = midnight + step * -((midnight - start) // step)
    while at < end:
        yield at
        at += step


def _x(timeline: Timeline, at: datetime) -> float:
    return round(100 * ((at - timeline.start) / (timeline.end - timeline.start)), 3)
