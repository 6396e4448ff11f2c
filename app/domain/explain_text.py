"""An explanation in words, for who has never seen the code. docs/explain.md shows what comes out."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from app.domain.aggregate import Presence
from app.domain.explain import Change, Explanation, Preference, Rule, SessionNow
from app.domain.values import INACTIVE, OFFLINE, EventKind, PastEvent, Shown, StatusMessage, WorkLocation

UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
EVENTS = {
    EventKind.SET: "{who} set its session to {shown}",
    EventKind.CLEARED: "{who} cleared its session, which had been set to {shown}",
    EventKind.EXPIRED: "the session of {who}, which had been set to {shown}, expired",
    EventKind.PREFERRED_SET: "{who} set the preferred presence to {shown}",
    EventKind.PREFERRED_CLEARED: "{who} cleared the preferred presence",
    EventKind.PREFERRED_EXPIRED: "the preferred presence, {shown}, expired",
    EventKind.MESSAGE_SET: "{who} set the status message",
    EventKind.MESSAGE_CLEARED: "{who} cleared the status message",
    EventKind.MESSAGE_EXPIRED: "the status message expired",
    EventKind.LOCATION_SET: "{who} set the work location",
    EventKind.LOCATION_CLEARED: "{who} cleared the work location",
    EventKind.LOCATION_EXPIRED: "the work location expired",
}
ENDED = "{actor} ended the session of {who}, which had been set to {shown}"


def text_of(explanation: Explanation, user: str) -> str:
    """Return the explanation as lines of text; `user` is what to call the user."""
    return "\n".join(_lines(explanation, user))


def span(length: timedelta) -> str:
    """Return a length of time in its two largest units, rounded down to a second: "1 h 20 min"."""
    seconds = int(abs(length).total_seconds())
    parts: list[tuple[int, str]] = []
    for size, unit in UNITS:
        count, seconds = divmod(seconds, size)
        if count or parts:
            parts.append((count, unit))
    said = [f"{count} {unit}" for count, unit in parts[:2] if count]
    return " ".join(said) or "less than 1 s"


def when(moment: datetime, now: datetime) -> str:
    """Return a moment in UTC as seen from another: "08:05:00 (in 5 min)"; with its date when that is another one."""
    if moment == now:
        return f"{_clock(moment, now)} (now)"
    said = f"in {span(moment - now)}" if moment > now else f"{span(now - moment)} ago"
    return f"{_clock(moment, now)} ({said})"


def event_text(event: PastEvent) -> str:
    """Return what happened, as a clause without its moment."""
    form = EVENTS[event.kind] if event.actor is None else ENDED
    return form.format(who=f"app {event.session_id}", shown=event.shown, actor=event.actor)


def change_texts(change: Change, before: Presence) -> list[str]:
    """Return what a change makes different from the presence before it, each as a clause."""
    after, said = change.presence, []
    if after.shown != before.shown:
        said.append(f"shows {after.shown}")
    if after.message != before.message:
        said.append("the status message ends")
    if (after.location, after.location_source) != (before.location, before.location_source):
        said.append(f"the work location becomes {_place(after.location)}" if after.location else "no work location")
    return said


def _lines(explanation: Explanation, user: str) -> Iterator[str]:
    now = explanation.now
    yield f"{user} shows {explanation.presence.shown} at {now.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC."
    yield ""
    yield f"Why: {_why(explanation)}"
    yield ""
    yield "Sessions, the one that goes before the others first:" if explanation.sessions else "Sessions: none."
    counts = "would count without the preference" if explanation.preference is Preference.APPLIES else "counts"
    for session in explanation.sessions:
        yield from _session_lines(session, now, counts)
    yield ""
    yield f"Preferred presence: {_preferred(explanation)}"
    yield f"Status message: {_message(explanation.state.message, now)}"
    yield f"Work location: {_location(explanation)}"
    yield ""
    yield (
        "Next, if nobody sets or clears anything:"
        if explanation.ahead
        else "Next: nothing changes until somebody sets something."
    )
    before = explanation.presence
    for change in explanation.ahead:
        yield f"  {when(change.at, now)}: {', '.join(change_texts(change, before))}"
        before = change.presence
    if explanation.history:
        yield ""
        yield "Lately:"
        for event in explanation.history:
            yield f"  {when(event.at, now)}: {event_text(event)}"


def _why(explanation: Explanation) -> str:
    if explanation.preference is not Preference.APPLIES:
        return _why_sessions(explanation)
    return (
        f"the user prefers {explanation.presence.shown}, which shows in place of the sessions while one is live.\n"
        f"Without that it would be {explanation.live[0].shows}: {_why_sessions(explanation)}"
    )


def _why_sessions(explanation: Explanation) -> str:
    live = explanation.live
    match explanation.rule:
        case Rule.NONE_LIVE:
            return f"no session is live, and a user without one shows {OFFLINE}."
        case Rule.ONLY_ONE:
            return "one session is live, and it counts."
        case Rule.MOST_SIGNIFICANT:
            higher, lower = (_significance(session.shows) for session in live[:2])
            return f"of {len(live)} live sessions the most significant counts, and {higher} goes before {lower}."
        case Rule.SET_LAST:
            return (
                f"of {len(live)} live sessions none is more significant than the first two, and of those the one whose"
                " state was set last counts."
            )
        case Rule.SMALLER_ID:
            return (
                f"of {len(live)} live sessions none is more significant than the first two, which were set at the same"
                " moment, and of those the one with the smaller id counts."
            )


def _significance(shown: Shown) -> str:
    """Return what ranks: the availability; what an Available session fades to first has a rank of its own."""
    return str(shown.activity if shown == INACTIVE else shown.availability)


def _session_lines(session_now: SessionNow, now: datetime, counts: str) -> Iterator[str]:
    session = session_now.session
    was_set = f"set to {session.shown} at {when(session.changed_at, now)}"
    if not session_now.live:
        yield f"  app {session.session_id}: expired, and counts for nothing"
        yield f"      {was_set}, expired at {when(session.expires_at, now)}"
        return
    faded = f", faded from {session.shown}" if session_now.faded else ""
    yield f"  app {session.session_id}: shows {session_now.shows}{faded}{f', and {counts}' if session_now.wins else ''}"
    kept = f", last kept alive at {when(session.set_at, now)}" if session.set_at > session.changed_at else ""
    yield f"      {was_set}{kept}"
    *fades, end = session_now.ahead
    for turn in fades:
        yield f"      fades to {turn.shows} at {when(turn.at, now)}"
    yield f"      ends at {when(end.at, now)}"


def _preferred(explanation: Explanation) -> str:
    preferred, now = explanation.state.preferred, explanation.now
    match explanation.preference:
        case Preference.APPLIES if preferred:
            return f"{preferred.shown} applies, until {when(preferred.expires_at, now)}."
        case Preference.NO_LIVE_SESSION if preferred:
            return (
                f"{preferred.shown}, until {when(preferred.expires_at, now)}, does not apply: a preference shows only"
                " while a session is live."
            )
        case Preference.EXPIRED if preferred:
            return f"{preferred.shown} does not apply: it expired at {when(preferred.expires_at, now)}."
    return "none."


def _message(message: StatusMessage | None, now: datetime) -> str:
    if message is None:
        return "none."
    if message.expires_at is None:
        return f'"{message.content}", for good.'
    if message.expires_at <= now:
        return f"none; the last one expired at {when(message.expires_at, now)}."
    return f'"{message.content}", until {when(message.expires_at, now)}.'


def _location(explanation: Explanation) -> str:
    presence, state = explanation.presence, explanation.state
    if presence.location is None:
        return "none."
    how = "set by hand" if presence.location_source == "manual" else "found automatically"
    said = f"{_place(presence.location)}, {how}, until {when(presence.location.expires_at, explanation.now)}."
    automatic = state.automatic_location
    if presence.location_source == "manual" and automatic is not None and automatic.expires_at > explanation.now:
        return f"{said} It goes before {_place(automatic)}, found automatically."
    return said


def _place(location: WorkLocation) -> str:
    return f"{location.type}{f' ({location.place_id})' if location.place_id else ''}"


def _clock(moment: datetime, now: datetime) -> str:
    moment, now = moment.astimezone(UTC), now.astimezone(UTC)
    return f"{moment:%H:%M:%S}" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M:%S}"
