"""The bodies of the presence API's requests, as Graph names their members."""

from base64 import b64decode
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.api.datetimes import utc_moment
from app.domain.durations import EDM_DURATION, parse_duration
from app.domain.values import (
    LONGEST_SESSION,
    PREFERABLE,
    SETTABLE,
    SHORTEST_SESSION,
    Availability,
    Shown,
    WorkLocationType,
)
from app.web.answers import JSON, encode
from app.web.bodies import GraphBody, Guid, Text, sentence

LONGEST_PREFERRED = timedelta(days=365)
"""Ours; Graph documents no bound."""
MOST_IDS = 650
"""Source: Graph, "cloudCommunications: getPresencesByUserId"."""
EXAMPLE_APP, EXAMPLE_USER = "22553876-f5ab-4529-bffb-cfe50aa89f87", "fa8bf3dc-eca7-46b7-bad1-db199b62afc3"
"""Source: Graph, "presence: clearPresence", "Example 1"."""
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


def _must_be_in_range(duration: timedelta, shortest: timedelta, longest: timedelta) -> None:
    if not shortest <= duration <= longest:
        raise sentence("The provided [ExpirationDuration] is out of range.")  # Graph's own words, to the letter


EDM_DURATION_SCHEMA = {"type": "string", "pattern": f"^{EDM_DURATION}$"}
"""Not of `format` duration, which is RFC 3339's: that knows no fractions and no zeros in front."""
Duration = Annotated[
    timedelta | None,
    BeforeValidator(_duration, json_schema_input_type=Annotated[str, WithJsonSchema(EDM_DURATION_SCHEMA)] | None),
]
"""ISO 8601 (Edm.Duration), such as PT1H; null or absent: the default."""


def _one_of(allowed: Iterable[Shown]) -> ConfigDict:
    """Return what a model's schema says of its availability and activity: that they come in pairs."""
    pairs: list[JsonValue] = [
        {"properties": {name: {"const": word} for name, word in shown._asdict().items()}} for shown in allowed
    ]
    return ConfigDict(json_schema_extra={"anyOf": pairs})


class ClearPresence(GraphBody):
    """Which of the caller's sessions to end."""

    session_id: Guid = Field(alias="sessionId", examples=[EXAMPLE_APP])
    """The calling application's id."""


class SetPresence(GraphBody):
    """What the caller's session shows from now on, and for how long; availability and activity come in pairs."""

    model_config = _one_of(SETTABLE)

    session_id: Guid = Field(alias="sessionId", examples=[EXAMPLE_APP])
    """The calling application's id."""
    availability: str = Field(examples=["Busy"])
    """In any letter case."""
    activity: str = Field(examples=["InACall"])
    """In any letter case."""
    expiration_duration: Duration = Field(None, alias="expirationDuration", examples=["PT1H"])
    """PT5M to PT4H, and PT5M when absent or null."""

    @property
    def shown(self) -> Shown:
        """The pair to show."""
        return _pair(self.availability, self.activity, _SETTABLE)

    @property
    def lifetime(self) -> timedelta:
        """How long the session lasts without a keep-alive."""
        return self.expiration_duration if self.expiration_duration is not None else SHORTEST_SESSION

    @model_validator(mode="after")
    def _can_be_set(self) -> Self:
        _ = self.shown
        _must_be_in_range(self.lifetime, SHORTEST_SESSION, LONGEST_SESSION)
        return self


class SetUserPreferredPresence(GraphBody):
    """What a user prefers to show, and for how long; availability and activity come in pairs."""

    model_config = _one_of(PREFERABLE)

    availability: str = Field(examples=["DoNotDisturb"])
    """In any letter case."""
    activity: str = Field(examples=["DoNotDisturb"])
    """In any letter case."""
    expiration_duration: Duration = Field(None, alias="expirationDuration", examples=["PT8H"])
    """At most P365D; absent or null, it is P1D for Busy and DoNotDisturb, and P7D for the others."""

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
        _must_be_in_range(self.lifetime, timedelta(microseconds=1), LONGEST_PREFERRED)
        return self


class Empty(GraphBody):
    """Nothing: clients send no body, or {}."""


class ItemBody(GraphBody):
    """A text."""

    content: Text | None = Field(None, examples=["Back at nine"], json_schema_extra={"maxLength": LONGEST_MESSAGE})
    """Without one, the last message is taken back."""
    content_type: str | None = Field("text", alias="contentType", examples=["text"])
    """`text`, in any letter case."""

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

    date_time: str = Field(alias="dateTime", examples=["2099-09-01T08:00:00"])
    """Without an offset; up to seven digits after the second."""
    time_zone: str | None = Field(None, alias="timeZone", examples=["Pacific Standard Time"])
    """Its Windows or its IANA name; absent or null, it is UTC."""

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
    """In the future; absent or null, the message stays."""


class SetStatusMessage(GraphBody):
    """The status message to publish; null takes the last one back."""

    status_message: StatusMessageBody | None = Field(alias="statusMessage")


class SetLocation(GraphBody):
    """Where a user works today."""

    work_location_type: WorkLocationType = Field(alias="workLocationType", strict=False, examples=["office"])
    place_id: Text | None = Field(None, alias="placeId", max_length=256, examples=[None])


class GetPresencesByUserId(GraphBody):
    """Whose presence to return."""

    ids: list[Guid] = Field(max_length=MOST_IDS, examples=[[EXAMPLE_USER]])


class BatchRequest(GraphBody):
    """One request of a batch."""

    id: str = Field(min_length=1, examples=["1"])
    """Unique in the batch, whatever its letter case."""
    method: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]+$", to_upper=True)] = Field(examples=["POST"])
    url: str = Field(min_length=1, examples=[f"/users/{EXAMPLE_USER}/presence/clearPresence"])
    """Relative to the batch's own mount, or absolute and below it."""
    headers: dict[HeaderName, HeaderText] | None = Field(None, examples=[{"Content-Type": "application/json"}])
    """Content-Type is among them when there is a body. Authorization is the batch's own."""
    body: Any = Field(None, examples=[{"sessionId": EXAMPLE_APP}])
    """A JSON object, or base64 text beside another Content-Type."""
    depends_on: list[str] | None = Field(None, alias="dependsOn", examples=[[]])
    """Ids of requests of this batch; when one of them fails, this one is answered 424."""

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
        except ValueError:
            rule = "body must be a JSON object, or base64 text beside a Content-Type that is not JSON's"
            raise PydanticCustomError("body", rule) from None
        return self


class Batch(GraphBody):
    """Requests to be made one after the other. Source: Graph, "JSON batching"."""

    requests: Annotated[list[BatchRequest], Field(json_schema_extra={"minItems": 1, "maxItems": MOST_IN_A_BATCH})]

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
