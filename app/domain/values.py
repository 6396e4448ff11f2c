"""The words of presence: what can be shown, and who shows it."""

import re
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import NamedTuple
from uuid import UUID, uuid5

DASHED_GUID = re.compile(r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}", re.ASCII)
"""A GUID as Graph writes it; braces, `urn:` and missing dashes are not."""

NIL = "00000000-0000-0000-0000-000000000000"
"""Nobody's id, and before everybody's in order."""

DERIVED_USERS = UUID("3d2f9a64-0b7e-4c55-8f7a-1e6c9b52d0a8")
"""The namespace of the ids that users without a directory entry get. A new one would give all of them new ids."""


class Availability(StrEnum):
    """Graph's nine values. Clients validate against exactly these: never add one."""

    AVAILABLE = "Available"
    AVAILABLE_IDLE = "AvailableIdle"
    AWAY = "Away"
    BE_RIGHT_BACK = "BeRightBack"
    BUSY = "Busy"
    BUSY_IDLE = "BusyIdle"
    DO_NOT_DISTURB = "DoNotDisturb"
    OFFLINE = "Offline"
    PRESENCE_UNKNOWN = "PresenceUnknown"


class Activity(StrEnum):
    """Graph's activities, and AvailableInactive, which a fading session shows."""

    AVAILABLE = "Available"
    AVAILABLE_INACTIVE = "AvailableInactive"
    AWAY = "Away"
    BE_RIGHT_BACK = "BeRightBack"
    BUSY = "Busy"
    DO_NOT_DISTURB = "DoNotDisturb"
    IN_A_CALL = "InACall"
    IN_A_CONFERENCE_CALL = "InAConferenceCall"
    INACTIVE = "Inactive"
    IN_A_MEETING = "InAMeeting"
    OFFLINE = "Offline"
    OFF_WORK = "OffWork"
    OUT_OF_OFFICE = "OutOfOffice"
    PRESENCE_UNKNOWN = "PresenceUnknown"
    PRESENTING = "Presenting"
    URGENT_INTERRUPTIONS_ONLY = "UrgentInterruptionsOnly"


class Shown(NamedTuple):
    """What a reader sees of a session or of a user."""

    availability: Availability
    activity: Activity

    def __str__(self) -> str:
        return f"{self.availability}/{self.activity}"


@cache
def shown_as(availability: str, activity: str) -> Shown:
    """Return the pair that two texts name, made once: a bulk read looks up hundreds of the same few.

    Raises:
        ValueError: one of them is no such word.
    """
    return Shown(Availability(availability), Activity(activity))


AVAILABLE = Shown(Availability.AVAILABLE, Activity.AVAILABLE)
INACTIVE = Shown(Availability.AVAILABLE, Activity.AVAILABLE_INACTIVE)
AWAY = Shown(Availability.AWAY, Activity.AWAY)
IN_A_CALL = Shown(Availability.BUSY, Activity.IN_A_CALL)
IN_A_CONFERENCE_CALL = Shown(Availability.BUSY, Activity.IN_A_CONFERENCE_CALL)
PRESENTING = Shown(Availability.DO_NOT_DISTURB, Activity.PRESENTING)
OFFLINE = Shown(Availability.OFFLINE, Activity.OFFLINE)

BUSY = Shown(Availability.BUSY, Activity.BUSY)
DO_NOT_DISTURB = Shown(Availability.DO_NOT_DISTURB, Activity.DO_NOT_DISTURB)
BE_RIGHT_BACK = Shown(Availability.BE_RIGHT_BACK, Activity.BE_RIGHT_BACK)
OFF_WORK = Shown(Availability.OFFLINE, Activity.OFF_WORK)

SETTABLE = (AVAILABLE, IN_A_CALL, IN_A_CONFERENCE_CALL, AWAY, PRESENTING)
"""What an application may show in its session. Source: Graph, "presence: setPresence"."""

SHORTEST_SESSION, LONGEST_SESSION = timedelta(minutes=5), timedelta(hours=4)
"""How long a session may last without a keep-alive. Source: the same."""


class WorkLocationType(StrEnum):
    """Where a user works. Source: Graph, "workLocationType"."""

    UNSPECIFIED = "unspecified"
    OFFICE = "office"
    REMOTE = "remote"
    TIME_OFF = "timeOff"


class EventKind(StrEnum):
    """What can happen to a user's presence, as the history tells it. The first three are about a session."""

    SET = "set"
    CLEARED = "cleared"
    EXPIRED = "expired"
    PREFERRED_SET = "preferredSet"
    PREFERRED_CLEARED = "preferredCleared"
    PREFERRED_EXPIRED = "preferredExpired"
    MESSAGE_SET = "messageSet"
    MESSAGE_CLEARED = "messageCleared"
    MESSAGE_EXPIRED = "messageExpired"
    LOCATION_SET = "locationSet"
    LOCATION_CLEARED = "locationCleared"
    LOCATION_EXPIRED = "locationExpired"


PREFERABLE = (AVAILABLE, BUSY, DO_NOT_DISTURB, BE_RIGHT_BACK, AWAY, OFF_WORK)
"""What a user may prefer to show. Source: Graph, "presence: setUserPreferredPresence"."""


class SessionKey(NamedTuple):
    """Whose session it is. Build it with `Caller.session_key`, which takes tenant and application from the token."""

    tenant_id: str
    user_id: str
    session_id: str


class Session(NamedTuple):
    """What one application says about one user; it counts until `expires_at`."""

    session_id: str
    shown: Shown
    changed_at: datetime
    """When what it shows was last set to something else."""
    set_at: datetime
    """When it was last set, keep-alives included: fading counts from here."""
    expires_at: datetime


class Preferred(NamedTuple):
    """What a user prefers to show, in place of what the sessions add up to, while one of them is live."""

    shown: Shown
    expires_at: datetime


class StatusMessage(NamedTuple):
    """What a user tells those who look; it is there whether or not a session is."""

    content: str
    published_at: datetime
    expires_at: datetime | None
    """None: never."""


class WorkLocation(NamedTuple):
    """Where a user works until `expires_at`."""

    type: WorkLocationType
    place_id: str | None
    expires_at: datetime


class PastEvent(NamedTuple):
    """Something that happened to a user's presence, as the history has it."""

    id: int
    at: datetime
    session_id: str
    """The application that acted or whose session it is; NIL when what a user said expired."""
    kind: EventKind
    shown: Shown | None
    """What the session or the preference had been set to; None when it is about something else."""
    expires_at: datetime | None
    request_id: str | None
    actor: str | None
    """Who did it when it was no application, such as `cli:root`."""


def derived_user_id(tenant_id: str, user_principal_name: str) -> str:
    """Return the id, in lower case, of a user whom no directory knows: the same in every process and letter case.

    A name that is a GUID is itself the id; any other makes one together with its tenant (UUID version 5).
    """
    if DASHED_GUID.fullmatch(user_principal_name):
        return user_principal_name.lower()
    return str(uuid5(DERIVED_USERS, f"{tenant_id}/{user_principal_name}".lower()))
