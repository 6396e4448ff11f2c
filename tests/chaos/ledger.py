"""What clients were told, held against what the database says afterwards."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Engine, select

from app.db.models import PresenceEvent, PresenceSession
from app.domain.values import EventKind, Shown


class Key(NamedTuple):
    """Whose session, of which application."""

    user_id: str
    session_id: str


@dataclass(frozen=True)
class Request:
    """One request that was sent, and how it ended. A client sends the requests about one key in order, one by one."""

    key: Key
    shown: Shown | None
    """What was set; None: it was a clear."""
    sent_at: float
    ended_at: float
    status: int | None
    """None: the connection dropped before the answer was there."""
    request_id: str | None = None

    def __str__(self) -> str:
        what = f"set {self.shown.availability}" if self.shown else "clear"
        return f"{what} of {self.key.user_id} by {self.key.session_id}, answered {self.status}"


class Event(NamedTuple):
    """A row of presence_event, as far as it says what a session became."""

    key: Key
    shown: Shown | None
    """None: the session ended."""
    request_id: str | None


Sessions = Mapping[Key, Shown]


@dataclass(frozen=True)
class Verdict:
    """What was found; each entry is a sentence."""

    lost: list[str] = field(default_factory=list)
    """Acknowledged, and not there."""
    disagreements: list[str] = field(default_factory=list)
    """There, though refused or never asked for; or the clients, the events and the sessions contradict each other."""


def read(engine: Engine, tenant_id: str) -> tuple[list[Event], Sessions]:
    """Return a tenant's events in their order, and its sessions."""
    event, session = PresenceEvent.__table__.c, PresenceSession.__table__.c
    with engine.connect() as connection:
        events = [
            Event(
                Key(user_id, session_id),
                Shown(availability, activity) if kind is EventKind.SET else None,
                request_id,
            )
            for user_id, session_id, kind, availability, activity, request_id in connection.execute(
                select(
                    event.user_id,
                    event.session_id,
                    event.kind,
                    event.availability,
                    event.activity,
                    event.request_id,
                )
                .where(event.tenant_id == tenant_id)
                .order_by(event.id)
            )
        ]
        sessions = {
            Key(user_id, session_id): Shown(availability, activity)
            for user_id, session_id, availability, activity in connection.execute(
                select(session.user_id, session.session_id, session.availability, session.activity).where(
                    session.tenant_id == tenant_id
                )
            )
        }
    return events, sessions


def is_unknown(request: Request, *, refusal_is_final: bool) -> bool:
    """Tell whether a request may have happened or not: nobody said, or the database was lost on the way."""
    return request.status is None or (request.status == 503 and not refusal_is_final)


def judge(  # noqa: PLR0912  # a branch for each thing that can be wrong
    requests: Sequence[Request], events: Sequence[Event], sessions: Sessions, *, refusal_is_final: bool
) -> Verdict:
    """Compare. A key's last request alone may be unknown; `refusal_is_final`: a 503 says that nothing happened."""
    verdict = Verdict()
    recorded: dict[str | None, Event] = {event.request_id: event for event in events}
    if len(recorded) < len(events):
        verdict.disagreements.append("one request has two events")

    stands: dict[Key, Shown | None] = {}
    unknown: dict[Key, Request] = {}
    for request in requests:
        event = recorded.pop(request.request_id, None)
        live = stands.get(request.key) is not None
        if event is not None and (event.key, event.shown) != (request.key, request.shown):
            verdict.disagreements.append(f"another event than asked for: {request}")
        elif is_unknown(request, refusal_is_final=refusal_is_final):
            unknown[request.key] = request
        elif request.status == 200:
            if event is None:
                verdict.lost.append(f"acknowledged, without an event: {request}")
            if request.shown is None and not live:
                verdict.disagreements.append(f"cleared what was not there: {request}")
            stands[request.key] = request.shown
        elif event is not None:
            verdict.disagreements.append(f"refused, and happened: {request}")
        elif request.status == 404 and live:
            verdict.lost.append(f"not found, though acknowledged before: {request}")
        elif request.status != 503 and (request.status != 404 or request.shown):
            verdict.disagreements.append(f"a status that nobody expects: {request}")
        if event is not None and request.key in unknown:
            stands[request.key] = event.shown

    for event in recorded.values():  # of requests whose answer, and so whose id, no client saw
        asked = unknown.pop(event.key, None)
        if asked is None or asked.status is not None or asked.shown != event.shown:
            verdict.disagreements.append(f"an event that nobody asked for: {event}")
        stands[event.key] = event.shown

    told = {key: shown for key, shown in stands.items() if shown is not None}
    verdict.lost.extend(f"what clients were told does not stand: {key}" for key in _different(told, sessions))
    verdict.disagreements.extend(
        f"the events do not replay to the session: {key}" for key in _different(_replay(events), sessions)
    )
    return verdict


def _replay(events: Iterable[Event]) -> Sessions:
    last = {event.key: event.shown for event in events}
    return {key: shown for key, shown in last.items() if shown is not None}


def _different(some: Sessions, others: Sessions) -> list[Key]:
    return [key for key in some.keys() | others.keys() if some.get(key) != others.get(key)]
