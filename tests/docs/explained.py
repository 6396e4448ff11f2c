"""The worked examples of docs/explain.md: what is known of Adele at eight o'clock. `make docs` prints them there."""

from datetime import timedelta
from typing import NamedTuple

from app.domain.aggregate import UserState
from app.domain.explain import explain
from app.domain.explain_text import text_of
from app.domain.values import (
    AVAILABLE,
    AWAY,
    BUSY,
    DO_NOT_DISTURB,
    IN_A_CALL,
    IN_A_CONFERENCE_CALL,
    EventKind,
    PastEvent,
    Preferred,
    Session,
    Shown,
    StatusMessage,
    WorkLocation,
    WorkLocationType,
)
from tests.builders import START as NOW

MINUTE = timedelta(minutes=1)
PHONE, DESK = "22553876-f5ab-4529-bffb-cfe50aa89f87", "6b7a1f0e-3c58-4d0b-9b3f-7f2d1f5c0a11"
"""The telephone exchange and the contact centre, as applications."""


class Example(NamedTuple):
    """What is known of Adele."""

    state: UserState
    history: tuple[PastEvent, ...] = ()

    def text(self) -> str:
        return text_of(explain(self.state, NOW, self.history), "adele@contoso.com")


def session(app: str, shown: Shown, *, changed: float, kept: float | None = None, left: float) -> Session:
    """A session that was set and kept alive so many minutes ago, with so many to live."""
    kept = changed if kept is None else kept
    return Session(app, shown, NOW - changed * MINUTE, NOW - kept * MINUTE, NOW + left * MINUTE)


def known(*sessions: Session, preferred: Preferred | None = None, message: StatusMessage | None = None) -> UserState:
    return UserState(sessions, NOW - MINUTE, preferred, message)


def happened(ago: float, app: str, kind: EventKind, shown: Shown, actor: str | None = None) -> PastEvent:
    at = NOW - ago * MINUTE
    return PastEvent(0, at, app, kind, shown, None, None, actor)


EXAMPLES = {
    "One application says something": Example(known(session(PHONE, IN_A_CALL, changed=10, kept=2, left=58))),
    "The most significant session counts": Example(
        known(session(DESK, AVAILABLE, changed=1, left=59), session(PHONE, IN_A_CALL, changed=10, left=50))
    ),
    "Of two equal ones the one set last counts, and a keep-alive sets nothing": Example(
        known(
            session(PHONE, IN_A_CALL, changed=30, kept=1, left=59),
            session(DESK, IN_A_CONFERENCE_CALL, changed=5, left=55),
        )
    ),
    "Set at the same moment: the smaller id counts": Example(
        known(
            session(PHONE, IN_A_CALL, changed=5, left=55),
            session(DESK, IN_A_CONFERENCE_CALL, changed=5, left=55),
        )
    ),
    "Available fades": Example(known(session(PHONE, AVAILABLE, changed=7, left=53))),
    "A session has expired": Example(
        known(session(PHONE, IN_A_CALL, changed=6, left=-1), session(DESK, AWAY, changed=20, left=40)),
        (
            happened(6, PHONE, EventKind.SET, IN_A_CALL),
            happened(20, DESK, EventKind.SET, AWAY),
        ),
    ),
    "A preference goes over the sessions": Example(
        known(
            session(PHONE, IN_A_CALL, changed=10, left=30),
            preferred=Preferred(DO_NOT_DISTURB, NOW + 45 * MINUTE),
            message=StatusMessage("In the lab until nine", NOW - 10 * MINUTE, NOW + 60 * MINUTE),
        )
    ),
    "A preference alone shows nothing": Example(
        known(preferred=Preferred(BUSY, NOW + 45 * MINUTE))._replace(
            manual_location=WorkLocation(WorkLocationType.OFFICE, "Building 7", NOW + 16 * 60 * MINUTE),
            automatic_location=WorkLocation(WorkLocationType.REMOTE, None, NOW + 16 * 60 * MINUTE),
        )
    ),
    "It was cleared a minute ago, and nothing changed": Example(
        known(session(DESK, IN_A_CONFERENCE_CALL, changed=25, left=35)),
        (
            happened(1, PHONE, EventKind.CLEARED, IN_A_CALL),
            happened(10, PHONE, EventKind.SET, IN_A_CALL),
            happened(25, DESK, EventKind.SET, IN_A_CONFERENCE_CALL),
        ),
    ),
    "An operator ended it": Example(
        known(),
        (
            happened(1, PHONE, EventKind.CLEARED, IN_A_CALL, "admin:eve"),
            happened(10, PHONE, EventKind.SET, IN_A_CALL),
        ),
    ),
}
"""By their headings in the page."""
