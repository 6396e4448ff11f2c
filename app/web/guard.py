"""The door that every request comes through: ids and headers for each answer, and who may pass."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any
from uuid import uuid4

from flask import Flask, Response, current_app, g, request
from flask.typing import ResponseReturnValue

from app.auth.caller import Caller
from app.auth.tokens import InvalidToken, TokenVerifier
from app.domain.values import DASHED_GUID
from app.services.presence import PresenceService
from app.web.errors import PermissionMissing

View = Callable[..., ResponseReturnValue]


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the factory built for the views to call."""

    presence: PresenceService
    verifier: TokenVerifier


def mount(app: Flask, wiring: Wiring) -> None:
    """Give every request its ids and every answer its headers, errors and unknown paths included."""
    app.extensions["wiring"] = wiring
    app.before_request(_open)
    app.after_request(_close)


def presence() -> PresenceService:
    """Return the presence service of this worker."""
    return _wiring().presence


def requires_app_role(*roles: str) -> Callable[[View], View]:
    """Let an application pass that holds one of `roles`, and hand its Caller to the view.

    A delegated token is refused whatever it holds. Source: Graph, "presence: clearPresence", "Permissions".
    """

    def guarded(view: View) -> View:
        @wraps(view)
        def enter(**path: Any) -> ResponseReturnValue:
            caller = _caller()
            if not caller.app_only:
                raise PermissionMissing("Delegated tokens are not supported here: use an application's own token.")
            if caller.roles.isdisjoint(roles):
                raise PermissionMissing(f"The token's roles must contain {' or '.join(roles)}.")
            return view(caller, **path)

        return _declare(enter, " | ".join(roles))

    return guarded


def public(view: View) -> View:
    """Let everybody pass."""
    return _declare(view, "public")


def _declare(view: View, access: str) -> View:
    """Note who may pass on the view; a test walks all routes and wants to find it on each."""
    view.access = access  # type: ignore[attr-defined]  # a function takes attributes, but its type cannot say so
    return view


def _caller() -> Caller:
    """Return who the request's bearer token says is calling.

    Raises:
        InvalidToken: there is none, or it does not hold.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise InvalidToken("Access token is empty.")
    return _wiring().verifier.verify(token.strip())


def _wiring() -> Wiring:
    wiring: Wiring = current_app.extensions["wiring"]
    return wiring


def _open() -> ResponseReturnValue | None:
    g.request_id = str(uuid4())
    sent = request.headers.get("client-request-id", "")
    g.client_request_id = sent if DASHED_GUID.fullmatch(sent) else g.request_id
    return Response(status=204) if request.method == "OPTIONS" else None


def _close(response: Response) -> Response:
    headers = response.headers
    headers["request-id"] = g.request_id
    headers["client-request-id"] = g.client_request_id
    headers.setdefault("Cache-Control", "no-store")
    headers["X-Content-Type-Options"] = "nosniff"
    if not response.calculate_content_length():
        headers.pop("Content-Type", None)  # clients parse what is labelled, and choke on an empty text
    return response
