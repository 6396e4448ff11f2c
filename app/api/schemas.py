"""The bodies of the presence API, as Graph names their members."""

from base64 import b64decode
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.api.datetimes import utc_moment
from app.domain.durations import parse_duration
from app.domain.values import PREFERABLE, SETTABLE, Availability, Shown, WorkLocationType
from app.web.answers import JSON, encode
from app.web.bodies import GraphBody, Guid, sentence

SHORTEST, LONGEST = timedelta(minutes=5), timedelta(hours=4)
"""Source: Graph, "presence: setPresence": expirationDuration is PT5M to PT4H, and PT5M when absent."""
LONGEST_PREFERRED = timedelta(days=365)
"""Ours; Graph documents no bound."""
MOST_IDS = 650
"""Source: Graph, "cloudCommunications: getPresencesByUserId"."""
LONGEST_MESSAGE = 280
"""Teams' own limit, in characters; Graph documents none."""
MOST_IN_A_BATCH = 20
"""Source: Graph, "JSON batching"."""

HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
HeaderText = Annotated[str, StringConstraints(pattern=r"^[\t\x20-\x7e\xa0-\xff]*$")]
"""What a header can be. Source: RFC 9110, sections 5.1 and 5.5."""


def _duration(value: object) -> timedelta | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise PydanticCustomError("duration", "must be a string with an ISO 8601 duration such as PT1H")
    try:
        return parse_duration(value)
    except ValueError:
        rule = "must be an ISO 8601 duration such as PT1H, got {got}"
        raise PydanticCustomError("duration", rule, {"got": f"{value!r:.60}"}) from None


def _pair(availability: str, activity: str, allowed: Mapping[tuple[str, str], Shown]) -> Shown:
    """Return the pair in Graph's spelling, whatever the case that it was sent in."""
    shown = allowed.get((availability.lower(), activity.lower()))
    if shown is None:
        pairs, got = ", ".join(map(str, allowed.values())), f"{availability:.30}/{activity:.30}"
        raise sentence(f"[Availability], [Activity]: must be one of {pairs}, got {got!r}.")
    return shown


def _by_name(pairs: Iterable[Shown]) -> Mapping[tuple[str, str], Shown]:
    return {(shown.availability.lower(), shown.activity.lower()): shown for shown in pairs}


_SETTABLE, _PREFERABLE = _by_name(SETTABLE), _by_name(PREFERABLE)


def _in_range(duration: timedelta, shortest: timedelta, longest: timedelta, said: str) -> timedelta:
    if not shortest <= duration <= longest:
        raise sentence(f"The provided [ExpirationDuration] is out of range. It must be {said}.")
    return duration


Duration = Annotated[timedelta | None, BeforeValidator(_duration, json_schema_input_type=str | None)]
"""ISO 8601 (Edm.Duration), such as PT1H; null or absent: the default."""


class ClearPresence(GraphBody):
    """Which of the caller's sessions to end."""

    session_id: Guid = Field(alias="sessionId")


class SetPresence(GraphBody):
    """What the caller's session shows from now on, and for how long."""

    session_id: Guid = Field(alias="sessionId")
    availability: str
    activity: str
    expiration_duration: Duration = Field(None, alias="expirationDuration")

    @property
    def shown(self) -> Shown:
        """The pair to show."""
        return _pair(self.availability, self.activity, _SETTABLE)

    @property
    def lifetime(self) -> timedelta:
        """How long the session lasts without a keep-alive."""
        return self.expiration_duration if self.expiration_duration is not None else SHORTEST

    @model_validator(mode="after")
    def _can_be_set(self) -> Self:
        _ = self.shown
        _in_range(self.lifetime, SHORTEST, LONGEST, "from PT5M to PT4H")
        return self


class SetUserPreferredPresence(GraphBody):
    """What a user prefers to show, and for how long."""

    availability: str
    activity: str
    expiration_duration: Duration = Field(None, alias="expirationDuration")

    @property
    def shown(self) -> Shown:
        """The pair to show."""
        return _pair(self.availability, self.activity, _PREFERABLE)

    @property
    def lifetime(self) -> timedelta:
        """How long it counts. Source: Graph, "presence: setUserPreferredPresence", for the defaults."""
        if self.expiration_duration is not None:
            return self.expiration_duration
        brief = self.shown.availability in {Availability.BUSY, Availability.DO_NOT_DISTURB}
        return timedelta(days=1 if brief else 7)

    @model_validator(mode="after")
    def _can_be_preferred(self) -> Self:
        _ = self.shown
        _in_range(self.lifetime, timedelta(microseconds=1), LONGEST_PREFERRED, "more than PT0S, and at most P365D")
        return self


class Empty(GraphBody):
    """Nothing: clients send no body, or {}."""


class ItemBody(GraphBody):
    """A text."""

    content: str | None = None
    content_type: str | None = Field("text", alias="contentType")

    @field_validator("content")
    @classmethod
    def _short(cls, content: str | None) -> str | None:
        if content is not None and len(content) > LONGEST_MESSAGE:
            raise PydanticCustomError("long", f"must have {LONGEST_MESSAGE} characters at most, got {len(content)}")
        return content

    @field_validator("content_type")
    @classmethod
    def _text(cls, content_type: str | None) -> str | None:
        if content_type is not None and content_type.lower() != "text":
            raise PydanticCustomError("type", "must be text, got {got}", {"got": f"{content_type!r:.30}"})
        return content_type


class DateTimeTimeZone(GraphBody):
    """A local time and its zone."""

    date_time: str = Field(alias="dateTime")
    time_zone: str | None = Field(None, alias="timeZone")

    @property
    def moment(self) -> datetime:
        """The moment that the two name."""
        return utc_moment(self.date_time, self.time_zone)

    @model_validator(mode="after")
    def _a_moment(self) -> Self:
        try:
            _ = self.moment
        except ValueError as error:
            raise PydanticCustomError("moment", "{why}", {"why": str(error)}) from None
        return self


class StatusMessageBody(GraphBody):
    """A user's status message; without content it takes the last one back."""

    message: ItemBody | None = None
    expiry: DateTimeTimeZone | None = Field(None, alias="expiryDateTime")


class SetStatusMessage(GraphBody):
    """The status message to publish; null takes the last one back."""

    status_message: StatusMessageBody | None = Field(alias="statusMessage")


class SetLocation(GraphBody):
    """Where a user works today."""

    work_location_type: Literal[*(kind.value for kind in WorkLocationType)] = Field(alias="workLocationType")  # type: ignore[valid-type]
    place_id: str | None = Field(None, alias="placeId", max_length=256)


class GetPresencesByUserId(GraphBody):
    """Whose presence to return."""

    ids: list[Guid] = Field(max_length=MOST_IDS)


class BatchRequest(GraphBody):
    """One request of a batch."""

    id: str = Field(min_length=1)
    method: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]+$", to_upper=True)]
    url: str = Field(min_length=1)
    headers: dict[HeaderName, HeaderText] | None = None
    body: Any = None
    depends_on: list[str] | None = Field(None, alias="dependsOn")

    @property
    def key(self) -> str:
        """The id as it is compared: its letter case does not count."""
        return self.id.casefold()

    @property
    def depends_on_keys(self) -> list[str]:
        """The keys of the requests that have to succeed before this one is made."""
        return [name.casefold() for name in self.depends_on or ()]

    @property
    def content_type(self) -> str:
        """The header of that name, or nothing."""
        return next((text for name, text in (self.headers or {}).items() if name.lower() == "content-type"), "")

    @cached_property
    def content(self) -> bytes:
        """The body as it would come alone: text beside another type than JSON's is base64, all else is JSON.

        Raises:
            ValueError: it is no base64.
        """
        if self.body is None:
            return b""
        if isinstance(self.body, str) and not self.content_type.lower().startswith(JSON):
            return b64decode(self.body, validate=True)
        return encode(self.body).encode()

    @model_validator(mode="after")
    def _a_body_that_can_be_sent(self) -> Self:
        if self.body is not None and not self.content_type:
            raise PydanticCustomError("body", "a body needs a Content-Type among the headers")
        try:
            _ = self.content
        except (ValueError, RecursionError):
            rule = "body must be a JSON object, or base64 text beside a Content-Type that is not JSON's"
            raise PydanticCustomError("body", rule) from None
        return self


class Batch(GraphBody):
    """Requests to be made one after the other. Source: Graph, "JSON batching"."""

    requests: list[BatchRequest]

    @cached_property
    def in_order(self) -> list[BatchRequest]:
        """The requests as they came, but for those that depend on a later one.

        Raises:
            CycleError: some depend on one another.
        """
        by_key = {request.key: request for request in self.requests}
        graph = {key: request.depends_on_keys for key, request in by_key.items()}
        return [by_key[key] for key in TopologicalSorter(graph).static_order()]

    @model_validator(mode="after")
    def _a_batch_that_can_be_run(self) -> Self:
        if not 1 <= len(self.requests) <= MOST_IN_A_BATCH:
            raise sentence(f"[Requests]: must be 1 to {MOST_IN_A_BATCH} requests, got {len(self.requests)}.")
        keys = [request.key for request in self.requests]
        for at, request in enumerate(self.requests):
            if request.key in keys[:at]:
                raise sentence(
                    f"[Requests.{at}.Id]: must be unique whatever its letter case, got {request.id!r:.60} again."
                )
            if unknown := [name for name in request.depends_on or () if name.casefold() not in keys]:
                raise sentence(f"[Requests.{at}.DependsOn]: must be ids of this batch, got {unknown[0]!r:.60}.")
        try:
            _ = self.in_order
        except CycleError as error:
            circle = " -> ".join(f"{key:.36}" for key in error.args[1])
            raise sentence(f"[Requests]: dependsOn must not go in a circle, got {circle}.") from None
        return self
