"""Presence of one user: read it, set the caller's session, clear it."""

from datetime import UTC, datetime, timedelta

from flask import Blueprint, g, request
from flask.typing import ResponseReturnValue

from app.api.schemas import ClearPresence, SetPresence
from app.auth.caller import Caller
from app.domain.aggregate import Presence
from app.web.answers import ODATA_JSON, json_answer
from app.web.bodies import guid_in_path, read_body
from app.web.guard import presence, requires_app_role

bp = Blueprint("presence", __name__)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@bp.get("/users/<user_id>/presence")
@requires_app_role("Presence.Read.All", "Presence.ReadWrite.All")
def get_presence(caller: Caller, user_id: str) -> ResponseReturnValue:
    """Return a user's presence."""
    user = guid_in_path("userId", user_id)
    mount = request.url_root + request.path.removeprefix("/").partition("users")[0]
    body = {
        "@odata.context": f"{mount}$metadata#users('{user}')/presence/$entity",
        **resource(user, presence().read(caller.tenant_id, user)),
    }
    return json_answer(body, content_type=ODATA_JSON, OData_Version="4.0")


@bp.post("/users/<user_id>/presence/setPresence")
@requires_app_role("Presence.ReadWrite.All")
def set_presence(caller: Caller, user_id: str) -> ResponseReturnValue:
    """Set the calling application's presence session for a user."""
    body = read_body(SetPresence)
    key = caller.session_key(guid_in_path("userId", user_id), body.session_id)
    presence().set(key, body.shown, body.lifetime, g.request_id)
    return "", 200


@bp.post("/users/<user_id>/presence/clearPresence")
@requires_app_role("Presence.ReadWrite.All")
def clear_presence(caller: Caller, user_id: str) -> ResponseReturnValue:
    """End the calling application's presence session for a user."""
    body = read_body(ClearPresence)
    presence().clear(caller.session_key(guid_in_path("userId", user_id), body.session_id), g.request_id)
    return "", 200


def resource(user_id: str, seen: Presence) -> dict[str, object]:
    """Return a presence as Graph's resource of that name."""
    return {
        "id": user_id,
        "availability": seen.shown.availability,
        "activity": seen.shown.activity,
        "outOfOfficeSettings": {"message": None, "isOutOfOffice": False},
        "sequenceNumber": sequence_number(seen),
        "statusMessage": None,
        "workLocation": None,
    }


def sequence_number(seen: Presence) -> str:
    """Return a version that sorts as text: it grows with every event, and between two events with time's own changes.

    "A", then the microseconds since 1970 of the newest event and of the latest moment at which time alone changed the
    presence, 16 digits each. One number would not do: an event and an expiry can fall on the same microsecond.
    """
    return f"A{_microseconds(seen.recorded_at)}{_microseconds(seen.turned_at)}"


def _microseconds(moment: datetime | None) -> str:
    return f"{(moment - EPOCH) // timedelta(microseconds=1) if moment else 0:016}"
