"""The emulator's controls, under one path: time, data, faults. They exist in development only."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from flask import Blueprint
from flask.typing import ResponseReturnValue
from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from app.domain.durations import parse_duration
from app.domain.values import LONGEST_SESSION, SETTABLE, SHORTEST_SESSION, SessionKey, Shown
from app.emulator.faults import Fault, Faults
from app.emulator.hints import HintId, Hints
from app.emulator.shared import MovableClock
from app.services.emulation import Emulation, UnknownSnapshot
from app.services.presence import PresenceService, StoreUnavailable
from app.web.answers import json_answer
from app.web.bodies import GraphBody, Guid, sentence
from app.web.errors import InvalidArgument
from app.web.guard import public

PATH = "/emulator"
MOST_BYTES = 64 * 1024 * 1024
"""Of a seed or a snapshot."""


EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
"""Between these the clock can stand; a sequenceNumber's digits sort from the first to beyond the second."""
OUT_OF_RANGE = f"must be a moment from {EARLIEST.year} to {LATEST.year - 1}"


def _length(value: object) -> object:
    """Return the timedelta that is meant; a minus before it is ours."""
    if value is None:
        return None
    try:
        length = parse_duration(f"{value}".removeprefix("-")) if isinstance(value, str) else None
    except ValueError:
        length = None
    if length is None:
        raise PydanticCustomError("duration", "must be an ISO 8601 duration such as PT1H, got {got}", _got(value))
    return -length if f"{value}".startswith("-") else length


def _moment(value: object) -> object:
    """Return the moment that is meant, in UTC."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value).astimezone(UTC) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise PydanticCustomError("moment", "must be a moment such as 2026-03-02T08:00:00Z, got {got}", _got(value))
    if not EARLIEST <= moment < LATEST:
        raise PydanticCustomError("moment", OUT_OF_RANGE + ", got {got}", _got(value))
    return moment


def _got(value: object) -> dict[str, str]:
    return {"got": f"{value!r:.60}"}


class MoveClock(GraphBody):
    """How to move the clock: by a length, or to a moment; and whether it then stands still."""

    advance: Annotated[timedelta | None, BeforeValidator(_length, json_schema_input_type=str | None)] = None
    """ISO 8601, such as PT5M; -PT5M moves it back."""
    now: Annotated[datetime | None, BeforeValidator(_moment, json_schema_input_type=str | None)] = None
    frozen: bool | None = None
    """Absent: as it was."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.advance is not None and self.now is not None:
            raise sentence("[Advance], [Now]: only one of them can be given.")
        if not self.model_dump(exclude_none=True):
            raise sentence("[Advance], [Now], [Frozen]: one of them must be given.")
        return self

    def moment(self, now: datetime) -> datetime:
        """Return where this leads to from `now`.

        Raises:
            InvalidArgument: the clock cannot stand there.
        """
        try:
            moment = self.now or now + (self.advance or timedelta(0))
        except OverflowError:
            moment = LATEST
        if not EARLIEST <= moment < LATEST:
            raise InvalidArgument(f"[Advance]: the sum {OUT_OF_RANGE}.")
        return moment


class SeedSession(GraphBody):
    """A session to set, by whichever application in whichever tenant, as that application would have."""

    tenant_id: Guid = Field(alias="tenantId")
    user_id: Guid = Field(alias="userId")
    session_id: Guid = Field(alias="sessionId")
    availability: str
    activity: str
    expiration_duration: Annotated[timedelta, BeforeValidator(_length, json_schema_input_type=str)] = Field(
        timedelta(hours=1), alias="expirationDuration"
    )

    @property
    def shown(self) -> Shown:
        """The pair to show."""
        return next(shown for shown in SETTABLE if (self.availability, self.activity) == shown)

    @model_validator(mode="after")
    def _can_be_set(self) -> Self:
        if (self.availability, self.activity) not in SETTABLE:
            pairs = ", ".join(map(str, SETTABLE))
            raise PydanticCustomError("pair", "availability and activity must be one of {pairs}", {"pairs": pairs})
        if not SHORTEST_SESSION <= self.expiration_duration <= LONGEST_SESSION:
            raise PydanticCustomError("duration", "expirationDuration must be from PT5M to PT4H")
        return self


class Seed(GraphBody):
    """Sessions to set at once."""

    sessions: list[SeedSession] = Field(min_length=1)


class Snapshot(GraphBody):
    """What GET snapshot returned."""

    now: Annotated[datetime, BeforeValidator(_moment, json_schema_input_type=str)]
    frozen: bool
    tables: dict[str, list[dict[str, Any]]]

    @field_validator("tables")
    @classmethod
    def _not_empty(cls, tables: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
        if not tables:
            raise sentence("[Tables]: must be those of a snapshot.")
        return tables


class Clock(TypedDict):
    """The server's time."""

    now: str
    frozen: bool


class FaultList(TypedDict):
    """The faults that are still to come."""

    value: list[Fault]


class GivenHint(TypedDict):
    """A hint, and the request that it was given to."""

    id: HintId
    text: str
    level: Literal["warning", "info"]
    at: str
    method: str
    path: str
    requestId: str


class HintList(TypedDict):
    """Hints, oldest first."""

    value: list[GivenHint]
    next: int
    """What `since` takes to go on from here."""


def blueprint(
    clock: MovableClock, faults: Faults, hints: Hints, emulation: Emulation, presence: PresenceService
) -> Blueprint:
    """Return the emulator's routes. `presence` is what seeds are set with, and says nothing of them."""
    bp = Blueprint("emulator", __name__, url_prefix=PATH)

    def time_now() -> Clock:
        return {"now": clock().isoformat(), "frozen": clock.frozen}

    @bp.get("/clock")
    @public(answer=Clock)
    def get_clock() -> ResponseReturnValue:
        """Return the server's time, and whether it stands still."""
        return json_answer(time_now())

    @bp.post("/clock")
    @public(body=MoveClock, answer=Clock)
    def move_clock(body: MoveClock) -> ResponseReturnValue:
        """Move the clock of all workers at once: presence and tokens follow."""
        clock.set(body.moment(clock()), frozen=clock.frozen if body.frozen is None else body.frozen)
        return json_answer(time_now())

    @bp.post("/reset")
    @public(refuses=(StoreUnavailable,))
    def reset() -> ResponseReturnValue:
        """Forget everything: rows, faults, hints, and the clock's offset."""
        emulation.reset()
        faults.clear()
        hints.clear()
        clock.reset()
        return "", 200

    @bp.post("/seed")
    @public(body=Seed, most_bytes=MOST_BYTES, refuses=(StoreUnavailable,))
    def seed(body: Seed) -> ResponseReturnValue:
        """Set many sessions; one that makes no sense stops all."""
        for session in body.sessions:
            key = SessionKey(session.tenant_id, session.user_id, session.session_id)
            presence.set(key, session.shown, session.expiration_duration, key.session_id)
        return "", 200

    @bp.get("/snapshot")
    @public(answer=Snapshot, refuses=(StoreUnavailable,))
    def snapshot() -> ResponseReturnValue:
        """Return all rows and the time, to be restored later."""
        return json_answer({**time_now(), "tables": emulation.snapshot()})

    @bp.put("/snapshot")
    @public(body=Snapshot, most_bytes=MOST_BYTES, refuses=(UnknownSnapshot, StoreUnavailable))
    def restore(body: Snapshot) -> ResponseReturnValue:
        """Bring rows and time back to a snapshot."""
        emulation.restore(body.tables)
        clock.set(body.now, frozen=body.frozen)
        return "", 200

    @bp.get("/faults")
    @public(answer=FaultList)
    def list_faults() -> ResponseReturnValue:
        """Return the faults that are still to come."""
        return json_answer({"value": faults.waiting()})

    @bp.post("/faults")
    @public(body=Fault)
    def add_fault(body: Fault) -> ResponseReturnValue:
        """Let the next requests that match fail."""
        faults.add(body)
        return "", 200

    @bp.delete("/faults")
    @public()
    def clear_faults() -> ResponseReturnValue:
        """Let no request fail any more."""
        faults.clear()
        return "", 200

    @bp.get("/hints")
    @public(options=("since",), answer=HintList, refuses=(InvalidArgument,))
    def list_hints(options: dict[str, str]) -> ResponseReturnValue:
        """Return the hints that were given, oldest first; `since` an earlier answer's `next`, only newer ones.

        Once they have been forgotten, a `next` that lies further on is answered with all that came since.
        """
        since = options.get("since", "0")
        if not re.fullmatch(r"\d{1,9}", since, re.ASCII):
            raise InvalidArgument(f"[Since]: must be a number, the `next` of an earlier answer, got {since!r:.30}.")
        found, following = hints.since(int(since))
        return json_answer({"value": found, "next": following})

    @bp.delete("/hints")
    @public()
    def clear_hints() -> ResponseReturnValue:
        """Forget the hints, and count from 0 again."""
        hints.clear()
        return "", 200

    return bp
