"""What a request says, parsed and checked before anything is looked up."""

import gzip
import json
import re
import zlib
from collections.abc import Iterable
from io import BytesIO
from typing import Annotated, Any, NoReturn, TypeVar

from blinker import Signal
from flask import Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from app.domain.values import DASHED_GUID
from app.web.answers import JSON
from app.web.application import current_application, current_request
from app.web.errors import InvalidArgument, MalformedBody, WrongMediaType

UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""PostgreSQL stores no NUL, and no UTF-8 writes half of a character."""

body_read = Signal("A body was parsed, and is not checked yet. Sent by the application, with `model` and `members`.")
"""Nobody listens in production."""

MOST_LEVELS = 64
"""How deep a body may be nested: as deep as .NET's own JSON reader goes unless told otherwise."""

_MARK = re.compile(rb'\\.|["\[\]{}]', re.DOTALL)
_LENGTH = re.compile("[0-9]+", re.ASCII)

GUID_RULE = "must be a GUID such as 22553876-f5ab-4529-bffb-cfe50aa89f87"


def guid(value: str) -> str:
    """Return a dashed GUID in lower case."""
    if not value.strip():
        raise PydanticCustomError("missing", "blank")
    if not DASHED_GUID.fullmatch(value):  # UUID() would let braces, urn: and missing dashes through
        raise PydanticCustomError("guid", GUID_RULE + ", got {got}", {"got": f"{value!r:.60}"})
    return value.lower()


def sentence(text: str) -> PydanticCustomError:
    """Return a fault that is said as it is, with no member put before it."""
    return PydanticCustomError("sentence", "{text}", {"text": text})


def _storable(value: object) -> object:
    if isinstance(value, str) and UNSTORABLE.search(value):
        raise PydanticCustomError("unstorable", "must hold no NUL and no lone surrogate")
    return value


Text = Annotated[str, BeforeValidator(_storable)]
"""A text that is kept."""

GUID_SCHEMA = {"type": "string", "format": "uuid", "pattern": f"^{DASHED_GUID.pattern}$"}
Guid = Annotated[str, AfterValidator(guid), WithJsonSchema(GUID_SCHEMA)]


class GraphBody(BaseModel):
    """A request body: a JSON object whose unknown members pass unread, since real clients send some."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", use_attribute_docstrings=True)


Body = TypeVar("Body", bound=GraphBody)


def read_body(model: type[Body]) -> Body:
    """Return the request's body as `model`. Clients that have nothing to say send no body, which is {} here.

    Raises:
        WrongMediaType: there is a body, and it is not labelled application/json, or compressed by other than gzip.
        RequestEntityTooLarge: it is longer than the request's `max_content_length`, compressed or not.
        MalformedBody: it is cut short, not a JSON object, nested too deep, or no gzip that says it is.
        InvalidArgument: one of its members is not what the model wants.
    """
    request = current_request()
    text = received(request)
    if text and request.environ.get("CONTENT_TYPE") != JSON and request.mimetype != JSON:
        raise WrongMediaType("Content-Type must be application/json.")
    if (encoding := request.environ.get("HTTP_CONTENT_ENCODING", "identity").lower()) != "identity":
        if encoding not in {"gzip", "x-gzip"}:
            raise WrongMediaType("Content-Encoding must be gzip or identity.")
        text = _inflate(text, request.max_content_length or 0)
    members = _parse(text or b"{}")
    if body_read.receivers:
        body_read.send(current_application(), model=model, members=members)
    try:
        return model.model_validate(members)
    except ValidationError as error:
        raise InvalidArgument(" ".join(map(_say, error.errors(include_url=False)))) from None


def received(request: Request) -> bytes:
    """Return the body as it was sent, and all of it.

    One of a known length is read at a stroke: werkzeug's streams would overlook what a connection no longer brought.
    Of chunks they cut off what comes beyond the limit.

    Raises:
        RequestEntityTooLarge: it is longer than the request's `max_content_length`.
        MalformedBody: it ended too soon.
        ClientDisconnected: the client fell silent, or went away.
    """
    environ, most_bytes = request.environ, request.max_content_length
    length = environ.get("CONTENT_LENGTH", "")
    if not _LENGTH.fullmatch(length) or most_bytes is None:
        text = request.get_data()
        if len(text) == most_bytes and environ["wsgi.input"].read(1):
            raise RequestEntityTooLarge
        return text
    if int(length) > most_bytes:
        raise RequestEntityTooLarge
    try:
        whole: bytes = environ["wsgi.input"].read(int(length))
    except (OSError, ValueError) as error:
        raise ClientDisconnected from error
    if len(whole) < int(length):
        raise MalformedBody("The request body ended before its Content-Length.")
    return whole


def guid_in_path(name: str, value: str) -> str:
    """Return an id from the path in lower case.

    Raises:
        InvalidArgument: it is no GUID.
    """
    if not DASHED_GUID.fullmatch(value):
        raise InvalidArgument(f"[{name[0].upper()}{name[1:]}]: {GUID_RULE}, got {value!r:.60}.")
    return value.lower()


def _inflate(packed: bytes, max_bytes: int) -> bytes:
    """Return what gzip packed, unpacking no more than a byte over `max_bytes`."""
    try:
        text = gzip.GzipFile(fileobj=BytesIO(packed)).read(max_bytes + 1)
    except (OSError, EOFError, zlib.error):  # of no gzip or a wrong checksum, a torn one, bits that mean nothing
        raise MalformedBody("The request body is not gzip, as its Content-Encoding says.") from None
    if len(text) > max_bytes:
        raise RequestEntityTooLarge
    return text


def _parse(text: bytes) -> dict[str, object]:
    if is_deeper(text, MOST_LEVELS):  # Python's own limit would depend on who calls
        raise MalformedBody(f"The request body must not be nested deeper than {MOST_LEVELS} levels.")
    try:
        body = _decode(text.decode())
    except ValueError:  # of no JSON, no UTF-8, a number of 5,000 digits
        raise MalformedBody("The request body must be a JSON object.") from None
    if not isinstance(body, dict):
        raise MalformedBody("The request body must be a JSON object.")
    return body


def is_deeper(text: bytes, most: int) -> bool:
    """Tell whether a JSON text opens more brackets within each other than that. Linear, whatever the text is."""
    if text.count(b"[") + text.count(b"{") <= most:
        return False
    level, in_text = 0, False
    for found in _MARK.finditer(text):
        mark = found[0]
        if mark == b'"':
            in_text = not in_text
        elif not in_text and mark in b"[{":
            level += 1
            if level > most:
                return True
        elif not in_text and mark in b"]}":
            level -= 1
    return False


def _member(path: Iterable[str | int]) -> str:
    """Return a member as Graph writes it, in a form that can be sent back and logged."""
    parts = (f"{part}"[:1].upper() + f"{part}"[1:60] for part in path)
    return UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", ".".join(parts))[:200]


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members; two of one name would let two readers read two different things."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidArgument(f"[{twice[:60]}]: must not appear twice in one object.")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_no_constant).decode  # loads() makes one a call


def _say(fault: ErrorDetails) -> str:
    """Return one fault as Graph writes it: the member in brackets, then the rule."""
    member = _member(fault["loc"])
    if fault["type"] == "sentence":
        return fault["msg"]
    if fault["type"] == "missing" or fault["input"] is None:
        return f"[{member}]: The {member} field is required."
    return f"[{member}]: {fault['msg'].replace('Input should be', 'must be')}."
