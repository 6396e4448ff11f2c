"""Presence: one table of operations, each of which every owner and every mount has."""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Unpack

from flask import Blueprint, Response, g, request
from flask.typing import ResponseReturnValue

from app.api.datetimes import graph_moment
from app.api.resources import (
    Count,
    PresenceAnswer,
    PresenceList,
    PresencePage,
    PresenceResource,
    StatusMessageResource,
)
from app.api.schemas import (
    MOST_IDS,
    ClearPresence,
    Empty,
    GetPresencesByUserId,
    SetLocation,
    SetPresence,
    SetStatusMessage,
    SetUserPreferredPresence,
)
from app.auth.caller import Caller, ForeignSession
from app.domain.aggregate import Presence
from app.domain.values import NIL, Shown, StatusMessage, WorkLocation, WorkLocationType
from app.services.presence import LOCATIONS, ExpiryPassed, Part, SessionNotFound
from app.web.answers import Answer, encode
from app.web.bodies import guid_in_path
from app.web.errors import MeWithoutUser
from app.web.guard import Access, Contract, View, presence, requires
from app.web.odata import flag, graph_answer, ids_in_filter, mount_url, number, selected, skipped_to

bp = Blueprint("presence", __name__)

READERS = ("Presence.Read.All", "Presence.ReadWrite.All")
SESSION = Access(roles=("Presence.ReadWrite.All",))
READ = Access(READERS, own=("Presence.Read", "Presence.ReadWrite"), everybody=("Presence.Read.All",))
READ_ALL = Access(READERS, everybody=("Presence.Read.All",))
WRITE_OWN = Access(roles=("Presence.ReadWrite.All",), own=("Presence.ReadWrite",))

OWNERS = {
    "users": "/users/<user_id>/presence",
    "me": "/me/presence",
    "communications": "/communications/presences/<user_id>",
}
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)

PROPERTIES = tuple(PresenceResource.__annotations__)


def operation(method: str, action: str, access: Access, **contract: Unpack[Contract]) -> Callable[[View], View]:
    """Serve a view on one user's presence under each owner; the view gets the caller and the user's id.

    Whose presence it is stands in the path, but for /me, where the token says it.
    """

    def serve(view: View) -> View:
        def enter(caller: Caller, user_id: str | None = None, **said: object) -> ResponseReturnValue:
            if user_id is not None:
                user_id = guid_in_path("userId", user_id)
            elif caller.user_id is None:
                raise MeWithoutUser
            else:
                user_id = caller.user_id
            access.check_user(caller, user_id)
            return view(caller, user_id, **said)

        enter.__doc__, enter.__name__ = view.__doc__, view.__name__
        for owner, path in OWNERS.items():
            ours = contract.copy()
            if owner == "me":
                ours["refuses"] = (*contract.get("refuses", ()), MeWithoutUser)
            passed = requires(access, **ours)(enter)
            bp.add_url_rule(path + action, f"{owner}_{view.__name__}", passed, methods=[method])
        return view

    return serve


@operation("GET", "", READ, options=("$select", "$expand"), answer=PresenceAnswer)
def get_presence(caller: Caller, user_id: str, options: Mapping[str, str]) -> ResponseReturnValue:
    """Return a user's presence."""
    names = selected(options, "presence", PROPERTIES)
    seen = presence().read(caller.tenant_id, user_id)
    in_users = "/communications/" not in request.path
    of = f"users('{user_id}')/presence" if in_users else "communications/presences"
    if names:
        of += f"({','.join(names)})"
    return graph_answer(f"{of}/$entity", written(user_id, seen, names))


@operation("POST", "/setPresence", SESSION, body=SetPresence, refuses=(ForeignSession,))
def set_presence(caller: Caller, user_id: str, body: SetPresence) -> ResponseReturnValue:
    """Set the calling application's presence session for a user."""
    presence().set(caller.session_key(user_id, body.session_id), body.shown, body.lifetime, g.request_id)
    return Answer()


@operation("POST", "/clearPresence", SESSION, body=ClearPresence, refuses=(ForeignSession, SessionNotFound))
def clear_presence(caller: Caller, user_id: str, body: ClearPresence) -> ResponseReturnValue:
    """End the calling application's presence session for a user."""
    presence().clear(caller.session_key(user_id, body.session_id), g.request_id)
    return Answer()


@operation("POST", "/setUserPreferredPresence", WRITE_OWN, body=SetUserPreferredPresence)
def set_user_preferred_presence(caller: Caller, user_id: str, body: SetUserPreferredPresence) -> ResponseReturnValue:
    """Set what a user shows in place of what the sessions add up to."""
    presence().prefer(caller.acting_for(user_id), body.shown, body.lifetime, g.request_id)
    return Answer()


@operation("POST", "/clearUserPreferredPresence", WRITE_OWN, body=Empty)
def clear_user_preferred_presence(caller: Caller, user_id: str) -> ResponseReturnValue:
    """Forget what a user prefers to show."""
    presence().stop_preferring(caller.acting_for(user_id), g.request_id)
    return Answer()


@operation("POST", "/setStatusMessage", WRITE_OWN, body=SetStatusMessage, refuses=(ExpiryPassed,))
def set_status_message(caller: Caller, user_id: str, body: SetStatusMessage) -> ResponseReturnValue:
    """Publish a user's status message, or take it back."""
    said = body.status_message
    content = said.message.content if said and said.message else None
    expires_at = said.expiry.moment if said and said.expiry else None
    presence().say(caller.acting_for(user_id), content or "", expires_at, g.request_id)
    return Answer()


@operation("POST", "/setManualLocation", WRITE_OWN, body=SetLocation)
def set_manual_location(caller: Caller, user_id: str, body: SetLocation) -> ResponseReturnValue:
    """Set where a user works today, as they say themselves."""
    return _locate(caller, user_id, body, Part.MANUAL_LOCATION)


@operation("POST", "/setAutomaticLocation", WRITE_OWN, body=SetLocation)
def set_automatic_location(caller: Caller, user_id: str, body: SetLocation) -> ResponseReturnValue:
    """Set where a user works today, as something else found out."""
    return _locate(caller, user_id, body, Part.AUTOMATIC_LOCATION)


@operation("POST", "/clearLocation", WRITE_OWN, body=Empty)
def clear_location(caller: Caller, user_id: str) -> ResponseReturnValue:
    """Forget where a user works, from whichever side it came."""
    presence().stop_locating(caller.acting_for(user_id), LOCATIONS, g.request_id)
    return Answer()


@operation("POST", "/clearAutomaticLocation", WRITE_OWN, body=Empty)
def clear_automatic_location(caller: Caller, user_id: str) -> ResponseReturnValue:
    """Forget where something else found a user to work."""
    presence().stop_locating(caller.acting_for(user_id), (Part.AUTOMATIC_LOCATION,), g.request_id)
    return Answer()


def _locate(caller: Caller, user_id: str, body: SetLocation, layer: Part) -> ResponseReturnValue:
    presence().locate(caller.acting_for(user_id), layer, body.work_location_type, body.place_id, g.request_id)
    return Answer()


@bp.post("/communications/getPresencesByUserId")
@requires(READ_ALL, body=GetPresencesByUserId, answer=PresenceList)
def get_presences_by_user_id(caller: Caller, body: GetPresencesByUserId) -> ResponseReturnValue:
    """Return the presence of up to 650 users, in the order asked for, each once."""
    found = presence().read_many(caller.tenant_id, body.ids)
    context = "Collection(microsoft.graph.presence)"
    return graph_answer(context, _collection({}, (written(user_id, seen) for user_id, seen in found.items())))


@bp.get("/communications/presences")
@requires(READ_ALL, options=("$filter", "$select", "$top", "$count", "$skiptoken"), answer=PresencePage)
def list_presences(caller: Caller, options: Mapping[str, str]) -> ResponseReturnValue:
    """Return the presence of the users asked for, or a page of all of whom anything is known."""
    names = selected(options, "presence", PROPERTIES)
    most = number(options, "$top", MOST_IDS, MOST_IDS)
    counted = flag(options, "$count")
    after = skipped_to(options) or NIL
    filtered = ids_in_filter(options)
    if filtered is None:
        ids = presence().list_users(caller.tenant_id, after, most)
        total = presence().count_users(caller.tenant_id) if counted else None
    else:
        ids = list(dict.fromkeys(filtered))[:most]
        total = len(set(filtered)) if counted else None
    about: dict[str, object] = {} if total is None else {"@odata.count": total}
    if filtered is None and len(ids) == most:
        carried = f"&$select={','.join(names)}" if "$select" in options else ""
        about["@odata.nextLink"] = f"{mount_url()}communications/presences?$top={most}&$skiptoken={ids[-1]}{carried}"
    found = presence().read_many(caller.tenant_id, ids)
    value = (written(user_id, seen, names) for user_id, seen in found.items())
    return graph_answer("communications/presences", _collection(about, value))


@bp.get("/communications/presences/$count")
@requires(READ_ALL, options=("$filter",), answer=Count, media_type="text/plain")
def count_presences(caller: Caller, options: Mapping[str, str]) -> ResponseReturnValue:
    """Return of how many users anything is known, as text."""
    filtered = ids_in_filter(options)
    count = presence().count_users(caller.tenant_id) if filtered is None else len(set(filtered))
    return Response(str(count), content_type="text/plain")


def written(user_id: str, seen: Presence, names: Collection[str] = ()) -> str:
    """Return the JSON of a presence as Graph's resource of that name, or of the properties named."""
    if names:
        whole: Mapping[str, object] = resource(user_id, seen)
        return encode({name: whole[name] for name in names})
    start, middle, end = _around(seen.shown, seen.message, seen.location, seen.location_source)
    return f"{start}{user_id}{middle}{sequence_number(seen)}{end}"


@lru_cache(1024)
def _around(
    shown: Shown, message: StatusMessage | None, location: WorkLocation | None, source: str
) -> tuple[str, str, str]:
    """Return what is written before, between and after the id and the sequence number: for many users the same."""
    seen = Presence(shown, message, location, source, None, None)
    start, _, rest = encode(resource(NIL, seen)).partition(NIL)
    middle, _, end = rest.partition(sequence_number(seen))
    return start, middle, end


def _collection(about: Mapping[str, object], value: Iterable[str]) -> str:
    """Return the JSON of a collection: what is said about it, and what is in it."""
    return f"{encode({**about, 'value': []})[:-2]}{','.join(value)}]}}"


def resource(user_id: str, seen: Presence) -> PresenceResource:
    """Return a presence as Graph's resource of that name."""
    return {
        "id": user_id,
        "availability": seen.shown.availability,
        "activity": seen.shown.activity,
        "outOfOfficeSettings": {"message": None, "isOutOfOffice": False},
        "sequenceNumber": sequence_number(seen),
        "statusMessage": _status_message(seen),
        "workLocation": {
            "placeId": seen.location.place_id if seen.location else None,
            "source": seen.location_source,
            "workLocationType": seen.location.type if seen.location else WorkLocationType.UNSPECIFIED,
        },
    }


def _status_message(seen: Presence) -> StatusMessageResource | None:
    if seen.message is None:
        return None
    said: StatusMessageResource = {
        "message": {"content": seen.message.content, "contentType": "text"},
        "publishedDateTime": f"{graph_moment(seen.message.published_at)}Z",
    }
    if seen.message.expires_at is not None:
        said["expiryDateTime"] = {"dateTime": graph_moment(seen.message.expires_at), "timeZone": "UTC"}
    return said


def sequence_number(seen: Presence) -> str:
    """Return a version that sorts as text: it grows with every event, and between two events with time's own changes.

    "A", then the microseconds since 1970 of the newest event and of the latest moment at which the presence may have
    changed, 16 digits each. One number would not do: an event and an expiry can fall on the same microsecond.
    """
    return f"A{_microseconds(seen.recorded_at):016}{_microseconds(seen.turned_at):016}"


def _microseconds(moment: datetime | None) -> int:
    return (moment - EPOCH) // MICROSECOND if moment else 0
