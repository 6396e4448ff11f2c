"""The bodies of the presence API's answers, as Graph names their members."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from app.domain.values import Activity, Availability, WorkLocationType
from app.web.bodies import Guid


class OutOfOfficeSettings(TypedDict):
    """Whether a user is out of office: never, here."""

    message: str | None
    isOutOfOffice: bool


class ItemBodyResource(TypedDict):
    """A text."""

    content: str
    contentType: Literal["text"]


class DateTimeTimeZoneResource(TypedDict):
    """A local time and its zone: always UTC."""

    dateTime: str
    timeZone: Literal["UTC"]


class StatusMessageResource(TypedDict):
    """What a user tells those who look; without expiryDateTime it stays."""

    message: ItemBodyResource
    publishedDateTime: str
    expiryDateTime: NotRequired[DateTimeTimeZoneResource]


class UserWorkLocation(TypedDict):
    """Where a user works today."""

    placeId: str | None
    source: Annotated[str, Field(json_schema_extra={"enum": ["none", "manual", "automatic"]})]
    workLocationType: WorkLocationType


class PresenceResource(TypedDict):
    """What everybody sees of a user."""

    id: Guid
    availability: Availability
    activity: Activity
    outOfOfficeSettings: OutOfOfficeSettings
    sequenceNumber: Annotated[str, Field(pattern="^A[0-9]{32}$")]
    statusMessage: StatusMessageResource | None
    workLocation: UserWorkLocation


InContext = TypedDict("InContext", {"@odata.context": NotRequired[str]})


class PresenceAnswer(InContext, PresenceResource):
    """A user's presence."""


class PresenceList(InContext):
    """The presence of the users asked for."""

    value: list[PresenceResource]


Paged = TypedDict("Paged", {"@odata.count": NotRequired[int], "@odata.nextLink": NotRequired[str]})


class PresencePage(Paged, PresenceList):
    """The presence of users, in the order of their ids, and where the next ones are."""


Count = Annotated[str, Field(pattern="^[0-9]+$", examples=["650"])]
"""As text/plain."""


class UserResource(TypedDict):
    """A user, as far as it takes to get from a name to an id."""

    id: Guid
    userPrincipalName: str
    displayName: str | None


class UserAnswer(InContext, UserResource):
    """A user."""


class BatchAnswerItem(TypedDict):
    """What one request of a batch would have been answered alone; without a body there is none."""

    id: str
    status: int
    headers: dict[str, str]
    body: NotRequired[Any]


class BatchAnswer(TypedDict):
    """The answers, in the order of the requests."""

    responses: list[BatchAnswerItem]
