"""JSON batching: up to 20 requests in one. Source: Graph, "Combine multiple HTTP requests using JSON batching"."""

import json
from contextvars import Context
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from flask import Blueprint, current_app, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound
from werkzeug.sansio.utils import get_host
from werkzeug.test import run_wsgi_app

from app.api.resources import BatchAnswer, BatchAnswerItem
from app.api.schemas import Batch, BatchRequest
from app.auth.caller import Caller
from app.services.presence import StoreUnavailable
from app.web.answers import JSON, ODATA_JSON, json_answer
from app.web.errors import ENDED_IN, FailedDependency, InvalidArgument
from app.web.guard import ANY_TOKEN, Access, requires

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

bp = Blueprint("batch", __name__)

PATH = "/$batch"
MAX_BODY_BYTES = 1024 * 1024
FAILED = 400
"""The lowest status that a dependant is not made after."""

IN_BATCH = "app.batch"
"""The environ's mark of a request that a batch makes; it holds what the request is refused with unmade, or None."""

PASSED_ON = (
    *("SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "SCRIPT_NAME", "REMOTE_ADDR", "REMOTE_PORT", "HTTP_HOST"),
    *("HTTP_AUTHORIZATION", "HTTP_CLIENT_REQUEST_ID", "HTTP_USER_AGENT", "HTTP_TRACEPARENT", "HTTP_TRACESTATE"),
    *("wsgi.version", "wsgi.url_scheme", "wsgi.errors", "wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once"),
)
"""What of the batch's own environ holds for each of its requests."""

NOT_TAKEN = ("authorization", "host", "transfer-encoding", "forwarded", "x-forwarded-")
"""Beginnings of headers that a request cannot bring itself: its connection, or the proxy on that, says them."""


@bp.post(PATH)
@requires(ANY_TOKEN, body=Batch, most_bytes=MAX_BODY_BYTES, answer=BatchAnswer, counted=False)
def batch(_caller: Caller, body: Batch) -> ResponseReturnValue:
    """Answer each request of a batch as if it came alone, in the order that the dependencies ask for.

    Once the store did not answer one of them, those behind it are not made: each would wait as long.
    """
    if IN_BATCH in request.environ:
        raise InvalidArgument("[Url]: must not be a $batch inside a $batch.")
    answers: dict[str, BatchAnswerItem] = {}
    faults: list[Exception] = []
    for inner in body.in_order:
        environ = _environ(inner) | {ENDED_IN: faults}
        if failed := [answers[key]["id"] for key in inner.depends_on_keys if answers[key]["status"] >= FAILED]:
            environ[IN_BATCH] = FailedDependency(f"Request {failed[0]!r:.60}, on which this one depends, failed.")
        elif any(isinstance(fault, StoreUnavailable) for fault in faults):
            environ[IN_BATCH] = environ[IN_BATCH] or StoreUnavailable("an earlier request of the batch met this")
        answers[inner.key] = _answer(inner.id, environ)
    responses = [answers[inner.key] for inner in body.requests]
    return json_answer({"responses": responses}, content_type=ODATA_JSON, OData_Version="4.0")


@bp.before_app_request
def refuse() -> None:
    """Refuse what a batch cannot make; inside, so that it is answered as all requests are, with ids of its own.

    Only what asks for a bearer token is there for a batch: a proxy that closes the admin site, the emulator or the
    health routes to the world by their paths sees no path in here.
    """
    if IN_BATCH not in request.environ:
        return
    if refusal := request.environ[IN_BATCH]:
        raise refusal
    view = current_app.view_functions.get(request.endpoint or "")
    if view and not isinstance(getattr(view, "access", None), Access):
        request.url_rule, request.routing_exception = None, NotFound()


def _answer(part_id: str, environ: "WSGIEnvironment") -> BatchAnswerItem:
    """Send one request through the application's own door.

    It gets an empty context, as it would in a thread of its own: Flask shares `g` among the requests of one context.
    """
    chunks, status, headers = Context().run(run_wsgi_app, current_app.wsgi_app, environ, buffered=True)
    said = {name: text for name, text in headers if name != "Content-Length"}
    answer: BatchAnswerItem = {"id": part_id, "status": int(status.split()[0]), "headers": said}
    if content := b"".join(chunks).decode():
        answer["body"] = json.loads(content) if said["Content-Type"].startswith(JSON) else content
    return answer


def _environ(inner: BatchRequest) -> "WSGIEnvironment":
    """Return what a server would hand the application for this request. Source: PEP 3333."""
    try:
        target, refusal = _target(inner.url), None
    except InvalidArgument as error:
        target, refusal = SplitResult("", "", "", "", ""), error
    return {
        **{key: request.environ[key] for key in PASSED_ON if key in request.environ},
        **{
            f"HTTP_{name.upper().replace('-', '_')}": text
            for name, text in (inner.headers or {}).items()
            if _taken(name)
        },
        "REQUEST_METHOD": inner.method,
        "PATH_INFO": unquote_to_bytes(target.path).decode("latin-1"),
        "QUERY_STRING": target.query.encode().decode("latin-1"),
        "CONTENT_TYPE": inner.content_type,
        "CONTENT_LENGTH": str(len(inner.content)),
        "wsgi.input": BytesIO(inner.content),
        IN_BATCH: refusal,
    }


def _taken(name: str) -> bool:
    """Say whether a request may bring this header. One with an underscore would pass for one with a dash."""
    return "_" not in name and not name.lower().startswith(NOT_TAKEN)


def _target(url: str) -> SplitResult:
    """Return the path and query of a request: relative to the mount of the batch, or absolute and below it.

    Raises:
        InvalidArgument: the url is another host's or mount's, or is none.
    """
    mount = f"{request.url_rule}".removesuffix(PATH)
    try:
        parts = urlsplit(url)
        if not (parts.scheme or parts.netloc):
            return parts._replace(path=f"{mount}/{parts.path.removeprefix('/')}")
        base = f"{request.root_path}{mount}/"
        same_host = get_host(parts.scheme, parts.netloc.lower()) == request.host.lower()
        if same_host and parts.path.lower().startswith(base.lower()):
            return parts._replace(path=f"{mount}/{parts.path[len(base) :]}")
    except ValueError:
        pass
    here = f"{request.host_url.rstrip('/')}{mount}/"
    raise InvalidArgument(f"[Url]: must be relative or begin with {here}, got {url!r:.60}.")
