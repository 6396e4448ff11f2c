"""What a user and each of his sessions showed over time, as far as the history tells."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from app.domain.aggregate import UserState, presence_of, session_turning_points, shown_at
from app.domain.values import OFFLINE, EventKind, PastEvent, Preferred, Session, Shown


class Span(NamedTuple):
    """Something is shown from one moment until just before another."""

    start: datetime
    end: datetime
    shown: Shown


class Timeline(NamedTuple):
    """A user's presence between two moments; what lies after `now` comes if nobody sets or clears anything."""

    start: datetime
    now: datetime
    end: datetime
    presence: Sequence[Span]
    """Without a gap from start to end."""
    sessions: Sequence[tuple[str, Sequence[Span]]]
    """By application, in the order in which they first show something; an application's own do not overlap."""
    preferred: Sequence[Span]
    """What the user preferred, whether or not a session was live."""


class _Stretch(NamedTuple):
    """A session while it stays set to one thing. Its `expires_at` is the end, whatever ended it."""

    start: datetime
    session: Session


def timeline(
    state: UserState, history: Sequence[PastEvent], now: datetime, back: timedelta, ahead: timedelta
) -> Timeline:
    """Return what a user showed from `back` before now on, and will show until `ahead` after it.

    `history` is newest first, and tells all that happened since its oldest event.

    A keep-alive leaves no event, but just before a turn. When the last one was is known of a session that is stored,
    and follows from the expiry that its end recorded, provided that all asked for the same duration. Of a session that
    was set again while it lasted it is not known: set again to the same, it had faded or was about to turn, and counts
    as never kept alive; set to something else, as kept alive to the end.
    """
    start, end = now - back, now + ahead
    stretches = sorted(_stretches(state.sessions, history, start))
    stretches = [each for each in stretches if each.start < end and each.session.expires_at > start]
    preferred = [each for each in _preferred(state.preferred, history) if each.start < end and each.end > start]
    by_app: dict[str, list[Span]] = {}
    for stretch in stretches:
        spans = by_app.setdefault(stretch.session.session_id, [])
        spans += _clipped(_spans(stretch), start, end)
    return Timeline(
        start, now, end, list(_presence(stretches, preferred, start, end)), list(by_app.items()),
        list(_clipped(preferred, start, end)),
    )  # fmt: skip


def _stretches(sessions: Iterable[Session], history: Sequence[PastEvent], start: datetime) -> Iterator[_Stretch]:
    begun: dict[str, PastEvent] = {}
    for event in reversed(history):
        if event.kind not in {EventKind.SET, EventKind.CLEARED, EventKind.EXPIRED} or event.shown is None:
            continue
        before = begun.pop(event.session_id, None)
        if event.kind is EventKind.SET:
            begun[event.session_id] = event
            if before:
                yield _replaced(before, event)
        elif event.expires_at is not None:
            end = event.at if event.kind is EventKind.CLEARED else event.expires_at
            yield _ended(before, event, end, start)
    for session in sessions:
        yield _Stretch(session.changed_at, session)


def _replaced(before: PastEvent, after: PastEvent) -> _Stretch:
    kept_alive = before.at if after.shown == before.shown else after.at
    return _stretch(before, before.at, kept_alive, after.at)


def _ended(before: PastEvent | None, event: PastEvent, end: datetime, start: datetime) -> _Stretch:
    """Return the stretch that an event ended; from `start` on when the history does not reach back to its own."""
    if before is None or before.expires_at is None or event.expires_at is None:
        return _stretch(event, min(start, end), end, end)
    kept_alive = event.expires_at - (before.expires_at - before.at)
    return _stretch(before, before.at, min(max(kept_alive, before.at), end), end)


def _stretch(event: PastEvent, start: datetime, kept_alive: datetime, end: datetime) -> _Stretch:
    return _Stretch(start, Session(event.session_id, event.shown or OFFLINE, start, kept_alive, end))


def _spans(stretch: _Stretch) -> Iterator[Span]:
    """Return what a session shows from its start to its end, one span for each step of its fading."""
    start, session = stretch
    turns = [moment for moment in session_turning_points(session) if moment > start]
    for begin, finish in pairwise([start, *turns]):
        yield Span(begin, finish, shown_at(session, begin))


def _preferred(last: Preferred | None, history: Sequence[PastEvent]) -> Iterator[Span]:
    begun: PastEvent | None = None
    for event in reversed(history):
        if event.kind in {EventKind.PREFERRED_SET, EventKind.PREFERRED_CLEARED}:
            if begun and begun.shown and begun.expires_at:
                yield Span(begun.at, min(begun.expires_at, event.at), begun.shown)
            begun = event if event.kind is EventKind.PREFERRED_SET else None
    if last:
        yield Span(begun.at if begun else last.expires_at, last.expires_at, last.shown)
    elif begun and begun.shown and begun.expires_at:
        yield Span(begun.at, begun.expires_at, begun.shown)


def _presence(
    stretches: Sequence[_Stretch], preferred: Sequence[Span], start: datetime, end: datetime
) -> Iterator[Span]:
    """Return what the user showed, by the same rules as at any other moment, at each moment at which it may change."""
    turns = {start, *(span.start for span in preferred), *(span.end for span in preferred)}
    for stretch in stretches:
        turns |= {stretch.start, *session_turning_points(stretch.session)}
    moments = [*sorted(moment for moment in turns if start <= moment < end), end]
    spans: list[Span] = []
    for begin, finish in pairwise(moments):
        live = [session for since, session in stretches if since <= begin < session.expires_at]
        wish = next((Preferred(span.shown, span.end) for span in preferred if span.start <= begin < span.end), None)
        shown = presence_of(UserState(live, None, wish), begin).shown
        if spans and spans[-1].shown == shown:
            spans[-1] = spans[-1]._replace(end=finish)
        else:
            spans.append(Span(begin, finish, shown))
    return iter(spans)


def _clipped(spans: Iterable[Span], start: datetime, end: datetime) -> Iterator[Span]:
    for span in spans:
        if span.start < end and span.end > start:
            yield Span(max(span.start, start), min(span.end, end), span.shown)
