"""What a user's sessions add up to at one instant. Nothing here reads a clock or a database."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from app.domain.values import (
    AVAILABLE,
    AWAY,
    INACTIVE,
    OFFLINE,
    Availability,
    Preferred,
    Session,
    Shown,
    StatusMessage,
    WorkLocation,
)

NO_TIME = timedelta(0)
FADE_STEP = timedelta(minutes=5)
SKEW = timedelta(minutes=1)
"""How far apart the clocks of workers may be. Ours; as much as a token's times are given."""

IMMINENT = timedelta(seconds=10)
"""How long a change may take from its instant until it is kept; a turn that it undoes may be seen meanwhile. Ours."""

RANK = {Availability.DO_NOT_DISTURB: 4, Availability.BUSY: 3, Availability.AVAILABLE: 2, Availability.AWAY: 0}
"""Source: Graph, "presence: setPresence": DoNotDisturb > Busy > Available > Away. Ours: AvailableInactive is 1."""


class UserState(NamedTuple):
    """All that the store holds about one user's presence."""

    sessions: Sequence[Session]
    """Live or not; those that have expired count for nothing but `Presence.turned_at`."""
    recorded_at: datetime | None
    """When the newest event about the user was recorded; None when there has been none."""
    preferred: Preferred | None = None
    message: StatusMessage | None = None
    manual_location: WorkLocation | None = None
    automatic_location: WorkLocation | None = None
    """Each of these, too, live or not."""


class Presence(NamedTuple):
    """What everybody sees of a user at one instant."""

    shown: Shown
    message: StatusMessage | None
    location: WorkLocation | None
    location_source: str
    """Source: Graph, "userWorkLocation": manual, automatic, or none."""
    recorded_at: datetime | None
    """When the newest event about the user was recorded; None when there has been none."""
    turned_at: datetime | None
    """The latest moment, at or before that instant, at which this may have changed; None: nothing has happened yet.

    The newest event counts although a reader's clock may be behind it; by more than SKEW, and it is the instant itself.
    """


def fade(shown: Shown, idle: timedelta) -> Shown:
    """Return what a session shows after `idle` without a keep-alive.

    Available fades in two steps of FADE_STEP (5 minutes): to AvailableInactive, then to Away. Nothing else fades.

    Raises:
        ValueError: `idle` is negative.

    Source: Graph, "presence: setPresence", "Timeout, expiration, and keep alive".
    Ours: a step is taken at exactly 5 minutes; the source does not say.
    """
    if idle < NO_TIME:
        raise ValueError(f"idle time is negative: {idle}")
    if shown != AVAILABLE or idle < FADE_STEP:
        return shown
    return INACTIVE if idle < 2 * FADE_STEP else AWAY


def shown_at(session: Session, now: datetime) -> Shown:
    """Return what a live session shows at `now`.

    A session set by a worker whose clock is ahead of `now` counts as set just now.
    """
    return session.shown if now <= session.set_at else fade(session.shown, now - session.set_at)


def stands(session: Session, shown: Shown, now: datetime) -> bool:
    """Tell whether a session is live and shows `shown`, unfaded: to set it once more is a keep-alive."""
    return session.expires_at > now and session.shown == shown == shown_at(session, now)


def rank(shown: Shown) -> int:
    """Return how significant what a session shows is: more is more."""
    return 1 if shown == INACTIVE else RANK[shown.availability]


def winner(sessions: Iterable[Session], now: datetime) -> Session | None:
    """Return the live session that goes before all others at `now`: the most significant one; None when none is live.

    Of two that rank the same, the one whose state was set last wins, then the smaller session id, so that the result
    is one function of the rows. A faded session ranks where its faded state ranks.
    """
    first: Session | None = None
    for session in sessions:
        if session.expires_at > now and (first is None or _goes_before(session, first, now)):
            first = session
    return first


def _goes_before(one: Session, other: Session, now: datetime) -> bool:
    ours = (rank(shown_at(one, now)), one.changed_at, other.session_id)  # the ids change sides: the smaller one wins
    return ours > (rank(shown_at(other, now)), other.changed_at, one.session_id)


def aggregate(sessions: Iterable[Session], now: datetime) -> Shown:
    """Return what the live sessions add up to at `now`: what the winner shows, or Offline/Offline."""
    first = winner(sessions, now)
    return OFFLINE if first is None else shown_at(first, now)


def presence_of(state: UserState, now: datetime) -> Presence:
    """Return the user's presence at `now`, and the two moments that tell this state from every earlier one.

    A preference shows only while a session is live. Of two work locations the manual one shows.
    Source: Graph, "manage presence state using the cloud communications API"; "userWorkLocation".
    """
    shown = aggregate(state.sessions, now)
    if shown != OFFLINE and state.preferred is not None and state.preferred.expires_at > now:
        shown = state.preferred.shown
    message = state.message
    if message is not None and message.expires_at is not None and message.expires_at <= now:
        message = None
    location, source = state.manual_location, "manual"
    if location is None or location.expires_at <= now:
        location, source = state.automatic_location, "automatic"
    if location is None or location.expires_at <= now:
        location, source = None, "none"
    turned_at = state.recorded_at
    if turned_at is not None and turned_at > now + SKEW:
        turned_at = now
    for moment in turning_points(state):
        if moment <= now and (turned_at is None or moment > turned_at):
            turned_at = moment
    return Presence(shown, message, location, source, state.recorded_at, turned_at)


def turning_points(state: UserState) -> list[datetime]:
    """Return the moments at which time alone changes what the user shows: fades, and ends."""
    moments = []
    for session in state.sessions:
        moments += session_turning_points(session)
    for other in (state.preferred, state.message, state.manual_location, state.automatic_location):
        if other is not None and other.expires_at is not None:
            moments.append(other.expires_at)
    return moments


def session_turning_points(session: Session) -> list[datetime]:
    """Return the moments at which time alone changes what a session shows: its fades, and its end."""
    if session.shown != AVAILABLE:
        return [session.expires_at]
    inactive_at = session.set_at + FADE_STEP
    fades = [moment for moment in (inactive_at, inactive_at + FADE_STEP) if moment < session.expires_at]
    return [*fades, session.expires_at]
