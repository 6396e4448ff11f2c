"""What a request for a page or an export asks for, and how a page's routes are told."""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from flask import request
from flask.typing import ResponseReturnValue

from app.domain.values import DASHED_GUID, Availability
from app.services.browsing import UserKey, Wanted
from app.web.errors import InvalidArgument

View = Callable[..., ResponseReturnValue]


class Route(NamedTuple):
    """A path, below that of the site, and what answers there."""

    rule: str
    methods: Sequence[str]
    view: View


def wanted() -> Wanted:
    """Return what the query narrows the list to.

    Raises:
        InvalidArgument: a value is not what it must be.
    """
    availability = request.args.get("availability", "")
    if availability and availability not in set(Availability):
        raise InvalidArgument(f"availability: must be one of {', '.join(Availability)}")
    ids = (guid(name, request.args.get(name, "").strip()) or None for name in ("tenant", "app", "user"))
    return Wanted(Availability(availability) if availability else None, *ids)


def guid(name: str, value: str) -> str:
    """Return a GUID in lower case, or nothing for nothing."""
    if value and not DASHED_GUID.fullmatch(value):
        raise InvalidArgument(f"{name}: must be a GUID such as 22553876-f5ab-4529-bffb-cfe50aa89f87")
    return value.lower()


def user_key(tenant_id: str, user_id: str) -> UserKey:
    """Return whom a path names."""
    return UserKey(guid("tenant", tenant_id), guid("user", user_id))


def after(length: int) -> list[str] | None:
    """Return the key that the query says to go on after; None: none."""
    ids = request.args.get("after", "").lower().split("/")
    if ids == [""]:
        return None
    if len(ids) != length or not all(map(DASHED_GUID.fullmatch, ids)):
        raise InvalidArgument(f"after: must be {length} ids with slashes between them")
    return ids


def later(**where: str) -> str:
    """Return the URL of the next page of this list."""
    kept = {name: value for name, value in request.args.items() if value}
    return f"{request.script_root}{request.path}?{urlencode({**kept, **where})}"
