"""The bodies of the presence API, as Graph names their members."""

from datetime import timedelta
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from app.domain.durations import parse_duration
from app.domain.values import SETTABLE, Shown
from app.web.bodies import GraphBody, Guid, sentence

SHORTEST, LONGEST = timedelta(minutes=5), timedelta(hours=4)
"""Source: Graph, "presence: setPresence": expirationDuration is PT5M to PT4H, and PT5M when absent."""

_SETTABLE = {(shown.availability.lower(), shown.activity.lower()): shown for shown in SETTABLE}


def _session_lifetime(value: object) -> timedelta:
    if value is None:
        return SHORTEST
    if not isinstance(value, str):
        raise PydanticCustomError("duration", "must be a string with an ISO 8601 duration such as PT1H")
    try:
        lifetime = parse_duration(value)
    except ValueError:
        rule = "must be an ISO 8601 duration such as PT1H, got {got}"
        raise PydanticCustomError("duration", rule, {"got": f"{value!r:.60}"}) from None
    if not SHORTEST <= lifetime <= LONGEST:
        raise sentence("The provided [ExpirationDuration] is out of range. It must be from PT5M to PT4H.")
    return lifetime


class ClearPresence(GraphBody):
    """Which of the caller's sessions to end."""

    session_id: Guid = Field(alias="sessionId")


class SetPresence(GraphBody):
    """What the caller's session shows from now on, and for how long."""

    session_id: Guid = Field(alias="sessionId")
    availability: str
    activity: str
    lifetime: Annotated[timedelta, BeforeValidator(_session_lifetime)] = Field(SHORTEST, alias="expirationDuration")

    @property
    def shown(self) -> Shown:
        """The pair in Graph's spelling, whatever the case that it was sent in."""
        return _SETTABLE[self.availability.lower(), self.activity.lower()]

    @model_validator(mode="after")
    def _a_pair_that_can_be_set(self) -> Self:
        if (self.availability.lower(), self.activity.lower()) not in _SETTABLE:
            pairs, got = ", ".join(map(str, SETTABLE)), f"{self.availability:.30}/{self.activity:.30}"
            raise sentence(f"[Availability], [Activity]: must be one of {pairs}, got {got!r}.")
        return self
