"""OData's query options and media type, as far as they apply to what is served here."""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache

from flask import Response, request
from werkzeug.sansio.utils import get_current_url

from app.domain.values import DASHED_GUID
from app.web.answers import ODATA_JSON, Answer, encode
from app.web.application import current_request
from app.web.errors import InvalidQuery, NotAcceptable

JSON_TYPES = {"application/json", "application/*", "*/*"}
_MOUNT = re.compile(r"/(v1\.0/|beta/)?", re.IGNORECASE)
_ID_LIST = re.compile(r"\s*id\s+in\s*\(\s*('[^']*'(?:\s*,\s*'[^']*')*)\s*\)\s*", re.ASCII | re.IGNORECASE)
_ID_EQUALS = re.compile(r"\s*id\s+eq\s+('[^']*')\s*", re.ASCII | re.IGNORECASE)


def mount_url() -> str:
    """Return where the request's mount begins, with a slash at the end: what `@odata.context` starts with."""
    request = current_request()
    mount = _MOUNT.match(request.path)
    return _root_url(request.scheme, request.host, request.root_path) + (mount[1] or "" if mount else "")


_root_url = lru_cache(256)(get_current_url)
"""werkzeug's `request.url_root`, remembered: quoting it anew was a tenth of a read's time in Python."""


def must_accept_json() -> None:
    """Raise NotAcceptable when the caller accepts no JSON."""
    accept = request.environ.get("HTTP_ACCEPT", "").lower() or "*/*"
    if accept != "*/*" and JSON_TYPES.isdisjoint(part.partition(";")[0].strip() for part in accept.split(",")):
        raise NotAcceptable("The answer is application/json, which the request's Accept leaves out.")


def graph_answer(context: str, body: str) -> Response:
    """Return a resource's JSON as Graph does: labelled, and under its context unless the caller wants none."""
    bare = "odata.metadata=none" in request.environ.get("HTTP_ACCEPT", "").lower()
    label = ODATA_JSON.replace("minimal", "none") if bare else ODATA_JSON
    if not bare:
        body = f'{{"@odata.context":{encode(f"{mount_url()}$metadata#{context}")},{body[1:]}'
    response = Answer([body.encode()], content_type=label)
    response.headers["OData-Version"] = "4.0"
    return response


def options(*allowed: str) -> dict[str, str]:
    """Return the request's query options; what does not begin with a dollar sign is none.

    Raises:
        InvalidQuery: one is not among `allowed`.
    """
    if not request.query_string:
        return {}
    given = {name: value for name, value in request.args.items() if name.startswith("$")}
    for name in given:
        if name not in allowed:
            raise InvalidQuery(f"The query option '{name}' is not supported here; {', '.join(allowed)} are.")
    return given


def selected(given: Mapping[str, str], type_name: str, properties: Collection[str]) -> tuple[str, ...]:
    """Return the properties that `$select` names; none of them: all. What `$expand` names is there anyway.

    Raises:
        InvalidQuery: one is no property of the type. Source: Graph's own words.
    """
    if not given:
        return ()
    select, expand = (
        [name.strip() for name in given.get(option, "").split(",") if name.strip()] for option in ("$select", "$expand")
    )
    for name in select + expand:
        if name not in properties:
            raise InvalidQuery(f"Could not find a property named '{name[:60]}' on type 'microsoft.graph.{type_name}'.")
    return tuple(select)


def ids_in_filter(given: Mapping[str, str]) -> list[str] | None:
    """Return the ids of `$filter=id in ('…','…')` or `id eq '…'` in lower case; None without a filter.

    Raises:
        InvalidQuery: it is another filter, or an id is no GUID.
    """
    text = given.get("$filter")
    if text is None:
        return None
    match = _ID_LIST.fullmatch(text) or _ID_EQUALS.fullmatch(text)
    if match is None:
        raise InvalidQuery("$filter must be id in ('…','…') or id eq '…'.")
    ids = re.findall(r"'([^']*)'", match[1])
    for one in ids:
        if not DASHED_GUID.fullmatch(one):
            raise InvalidQuery(f"$filter: every id must be a GUID, got {one!r:.60}.")
    return [one.lower() for one in ids]


def number(given: Mapping[str, str], option: str, default: int, most: int) -> int:
    """Return an option that is a number of at least 1; one above `most` counts as `most`.

    Raises:
        InvalidQuery: it is no such number.
    """
    text = given.get(option)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or int(text) < 1:
        raise InvalidQuery(f"{option} must be a number of at least 1, got {text!r:.30}.")
    return min(int(text), most)


def flag(given: Mapping[str, str], option: str) -> bool:
    """Return an option that is true or false; absent, it is false.

    Raises:
        InvalidQuery: it is neither.
    """
    text = given.get(option, "false")
    if text not in {"true", "false"}:
        raise InvalidQuery(f"{option} must be true or false, got {text!r:.30}.")
    return text == "true"


def skipped_to(given: Mapping[str, str]) -> str | None:
    """Return the id that `$skiptoken` holds, in lower case; None without one.

    Raises:
        InvalidQuery: it holds none.
    """
    text = given.get("$skiptoken")
    if text is not None and not DASHED_GUID.fullmatch(text):
        raise InvalidQuery(f"$skiptoken must be as an @odata.nextLink has it, got {text!r:.60}.")
    return text and text.lower()
