"""Every error of every route, in Graph's envelope. One table says which fact has which status and code."""

import logging
from datetime import UTC, datetime
from http import HTTPStatus
from typing import NamedTuple

from flask import Flask, Response, current_app, g, request
from gunicorn.http.errors import ParseException
from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from app.auth.caller import ForeignSession
from app.auth.keys import KeysUnavailable
from app.auth.tokens import InvalidToken
from app.services.directory import UserNotFound
from app.services.emulation import UnknownSnapshot
from app.services.presence import ExpiryPassed, SessionNotFound, StoreUnavailable
from app.web.answers import json_answer

log = logging.getLogger(__name__)


class InvalidArgument(Exception):
    """A member, a path part or a query option is not what it must be; the message names it."""


class MalformedBody(Exception):
    """The body is not a JSON object."""


class WrongMediaType(Exception):
    """The body is there, but is not labelled as JSON or is encoded in an unknown way."""


class PermissionMissing(Exception):
    """The token is good but does not allow this. `held` are the permissions that it has, where others would do."""

    def __init__(self, message: str, held: frozenset[str] | None = None) -> None:
        super().__init__(message)
        self.held = held


class InvalidQuery(Exception):
    """A query option is unknown here, or is not what it must be; the message names it."""


class NotAcceptable(Exception):
    """The caller accepts nothing that can be served."""


class MeWithoutUser(Exception):
    """/me was asked for with a token that no user signed in for."""


class TooManyRequests(Exception):
    """The caller has used up what it may ask for; ask again after `retry_after_seconds`."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("Too many requests: wait as long as Retry-After says.")
        self.retry_after_seconds = retry_after_seconds


class FailedDependency(Exception):
    """A request of a batch was not made, since one that it depends on failed."""


class NotReady(Exception):
    """The database cannot serve this code now."""


class Refusal(NamedTuple):
    """What a fact becomes on the wire."""

    status: HTTPStatus
    code: str
    message: str | None = None
    """None: the exception says it."""


REFUSALS: dict[type[Exception], Refusal] = {
    InvalidArgument: Refusal(HTTPStatus.BAD_REQUEST, "InvalidArgument"),
    MalformedBody: Refusal(HTTPStatus.BAD_REQUEST, "BadRequest"),
    HTTPException: Refusal(HTTPStatus.BAD_REQUEST, "BadRequest"),
    ParseException: Refusal(HTTPStatus.BAD_REQUEST, "BadRequest", "The request body is not framed as HTTP asks for."),
    InvalidQuery: Refusal(HTTPStatus.BAD_REQUEST, "BadRequest"),
    UnknownSnapshot: Refusal(HTTPStatus.BAD_REQUEST, "InvalidArgument", "[Tables]: must be those of a snapshot."),
    MeWithoutUser: Refusal(
        HTTPStatus.BAD_REQUEST, "BadRequest", "/me request is only valid with delegated authentication flow."
    ),
    ExpiryPassed: Refusal(
        HTTPStatus.BAD_REQUEST, "InvalidArgument", "[StatusMessage.ExpiryDateTime]: must be in the future."
    ),
    InvalidToken: Refusal(HTTPStatus.UNAUTHORIZED, "InvalidAuthenticationToken"),
    PermissionMissing: Refusal(HTTPStatus.FORBIDDEN, "Forbidden"),
    ForeignSession: Refusal(
        HTTPStatus.FORBIDDEN, "Forbidden", "[SessionId]: must be the id of the calling application (azp or appid)."
    ),
    NotFound: Refusal(HTTPStatus.NOT_FOUND, "ResourceNotFound", "Resource not found for the segment '{segment}'."),
    UserNotFound: Refusal(HTTPStatus.NOT_FOUND, "Request_ResourceNotFound"),
    SessionNotFound: Refusal(HTTPStatus.NOT_FOUND, "NotFound", "Presence session not found."),
    MethodNotAllowed: Refusal(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "Request_BadRequest",
        "Specified HTTP method is not allowed for the request target.",
    ),
    RequestEntityTooLarge: Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "RequestEntityTooLarge",
        "The request body must be {max_bytes} bytes or less.",
    ),
    NotAcceptable: Refusal(HTTPStatus.NOT_ACCEPTABLE, "NotAcceptable"),
    WrongMediaType: Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType"),
    FailedDependency: Refusal(HTTPStatus.FAILED_DEPENDENCY, "FailedDependency"),
    TooManyRequests: Refusal(HTTPStatus.TOO_MANY_REQUESTS, "TooManyRequests"),
    Exception: Refusal(
        HTTPStatus.INTERNAL_SERVER_ERROR, "InternalServerError", "The server failed to answer; its log tells more."
    ),
    KeysUnavailable: Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable", "The token issuer's keys cannot be had now."
    ),
    NotReady: Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable"),
    StoreUnavailable: Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable", "The presence store did not answer in time."
    ),
}

RETRY_AFTER_SECONDS = 2

ENDED_IN = "app.ended_in"
"""The environ's list for the exception that a request ends in, when somebody inside made it and wants to know."""


def mount(app: Flask) -> None:
    """Answer every exception that a request ends in, the framework's own included."""
    app.register_error_handler(Exception, answer)


def answer(error: Exception) -> Response:
    """Return the envelope for an exception, with the headers that its status asks for."""
    status, code, message = REFUSALS[next(kind for kind in type(error).__mro__ if kind in REFUSALS)]
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        g.cause = type(error.__cause__ or error).__name__  # for the metrics
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("request failed", extra={"request_id": g.request_id}, exc_info=error)
    if isinstance(error, KeysUnavailable | StoreUnavailable):
        cause = error.__cause__ or error
        said = next(iter(f"{cause}".splitlines()), "")[:300]  # a driver's first line; those behind it may hold values
        log.warning("request refused", extra={"request_id": g.request_id, "cause": f"{type(cause).__name__}: {said}"})
    request.environ.get(ENDED_IN, []).append(error)
    if message is None:
        message = str(error.description if isinstance(error, HTTPException) else error)
    else:
        segment = request.path.rstrip("/").rpartition("/")[2]
        message = message.format(segment=segment, max_bytes=request.max_content_length)
    response = envelope(status, code, message)
    if status is HTTPStatus.UNAUTHORIZED:
        challenge: str = current_app.config["WWW_AUTHENTICATE"]
        response.headers["WWW-Authenticate"] = challenge.replace("{root}", request.url_root)
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        response.headers["Retry-After"] = str(getattr(error, "retry_after_seconds", RETRY_AFTER_SECONDS))
    if isinstance(error, MethodNotAllowed):
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
    return response


InnerError = TypedDict("InnerError", {"date": str, "request-id": str, "client-request-id": str})


class GraphError(TypedDict):
    """What went wrong: a code for programs, a message for people, and the ids that the server's log has."""

    code: str
    message: str
    innerError: InnerError


class ErrorBody(TypedDict):
    """The body of every error."""

    error: GraphError


def envelope(status: HTTPStatus, code: str, message: str) -> Response:
    """Return an error in Graph's form. Source: Graph, "error responses"; `innerError` as its live answers spell it."""
    inner: InnerError = {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "request-id": g.request_id,
        "client-request-id": g.client_request_id,
    }
    body: ErrorBody = {"error": {"code": code, "message": message, "innerError": inner}}
    return json_answer(body, status)
