"""The door that every request comes through: ids and headers for each answer, and who may pass."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from random import getrandbits
from typing import Any, TypedDict, Unpack

from flask import Flask, current_app, g, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadRequest

from app.auth.caller import Caller
from app.auth.tokens import InvalidToken, TokenVerifier
from app.services.directory import DirectoryService
from app.services.presence import PresenceService
from app.web.answers import IDS, Answer
from app.web.bodies import GraphBody, read_body
from app.web.errors import PermissionMissing
from app.web.odata import must_accept_json, options
from app.web.quota import Quota

View = Callable[..., ResponseReturnValue]

CLIENTS_ID = re.compile("[!-~]{1,128}")
"""What is echoed of a client-request-id: Microsoft's clients send GUIDs, others what they like."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the factory built for the views to call."""

    presence: PresenceService
    directory: DirectoryService
    verifier: TokenVerifier
    quota: Quota | None = None
    """None: everybody may ask as much as they like."""


def mount(app: Flask, wiring: Wiring) -> None:
    """Give every request its ids, those of unknown paths included."""
    app.extensions["wiring"] = wiring
    app.before_request(_open)


def presence() -> PresenceService:
    """Return the presence service of this worker."""
    return _wiring().presence


def directory() -> DirectoryService:
    """Return the directory service of this worker."""
    return _wiring().directory


@dataclass(frozen=True, slots=True)
class Access:
    """Who may do a thing. Source: Graph, "permissions reference", "Presence permissions"."""

    roles: tuple[str, ...]
    """An application needs one of these (`roles`)."""
    own: tuple[str, ...] = ()
    """A signed-in user needs one of these (`scp`), for what is their own."""
    everybody: tuple[str, ...] = ()
    """A signed-in user needs one of these for what is anybody's."""
    signed_in: bool = False
    """A signed-in user needs none of them."""

    any_token: bool = False
    """Whatever the caller holds, it is enough."""

    def check(self, caller: Caller) -> None:
        """Raise PermissionMissing unless the caller may do the thing to anybody at all."""
        if self.any_token or (self.signed_in and not caller.app_only):
            return
        held, wanted = (caller.roles, self.roles) if caller.app_only else (caller.scopes, self.own + self.everybody)
        if not held.isdisjoint(wanted):
            return
        if not wanted:
            raise PermissionMissing("Delegated tokens are not supported here: use an application's own token.")
        kind = "roles" if caller.app_only else "scp"
        raise PermissionMissing(f"The token's {kind} must contain {_any(wanted)}.", held)

    def check_user(self, caller: Caller, user_id: str) -> None:
        """Raise PermissionMissing when a signed-in user may do it for themselves only, and this is somebody else."""
        if not caller.app_only and user_id != caller.user_id and caller.scopes.isdisjoint(self.everybody):
            if not self.everybody:
                raise PermissionMissing("Cannot set the presence of another user.")
            wanted = _any(self.everybody)
            raise PermissionMissing(
                f"The token's scp must contain {wanted} to read another user's presence.", caller.scopes
            )


ANY_TOKEN = Access(roles=(), any_token=True)


class Contract(TypedDict, total=False):
    """What a view is asked and answers. The door reads the request by it, and the OpenAPI document tells it."""

    body: type[GraphBody]
    """Handed to the view as `body`, unless it has no members."""
    options: tuple[str, ...]
    """The query options that are taken, all others being refused; handed to the view as `options`."""
    counted: bool
    """False: it takes nothing of the caller's quota; what it makes does. Source: Graph, "JSON batching"."""
    most_bytes: int
    """The bound of the body; without one it is the application's MAX_CONTENT_LENGTH."""
    selectable: tuple[str, ...]
    """What `$select` takes; without it, the properties of the answer."""
    answer: object
    """The type of the answer's body; without one it is empty."""
    media_type: str
    """What the body is labelled as; without one it is JSON, which the caller has to accept."""
    refuses: tuple[type[Exception], ...]
    """The facts that only this view states, besides those that the door itself does."""


def requires(access: Access, **contract: Unpack[Contract]) -> Callable[[View], View]:
    """Let a caller pass whom `access` allows the thing; hand the view the Caller and what the contract asks for."""
    model, allowed, counted = contract.get("body"), contract.get("options"), contract.get("counted", True)

    def guarded(view: View) -> View:
        @wraps(view)
        def enter(**said: Any) -> ResponseReturnValue:
            caller = _caller(counted=counted)
            access.check(caller)
            if "answer" in contract and "media_type" not in contract:
                must_accept_json()
            if "most_bytes" in contract:
                request.max_content_length = contract["most_bytes"]
            if model is not None:
                parsed = read_body(model)
                if model.model_fields:
                    said["body"] = parsed
            if allowed is not None:
                said["options"] = options(*allowed)
            return view(caller, **said)

        return declare(enter, access, contract)

    return guarded


def public(**contract: Unpack[Contract]) -> Callable[[View], View]:
    """Let everybody pass; hand the view the body and the options that the contract asks for."""

    def opened(view: View) -> View:
        @wraps(view)
        def enter(**said: Any) -> ResponseReturnValue:
            if "most_bytes" in contract:
                request.max_content_length = contract["most_bytes"]
            if "body" in contract:
                said["body"] = read_body(contract["body"])
            if "options" in contract:
                said["options"] = {name: request.args[name] for name in contract["options"] if name in request.args}
            return view(**said)

        return declare(enter, "public", contract)

    return opened


def _any(permissions: tuple[str, ...]) -> str:
    return " or ".join(dict.fromkeys(permissions))


def declare(view: View, access: Access | str, contract: Contract | None = None) -> View:
    """Note on the view who may pass, and what it asks for and answers; a test wants to find the one on every route."""
    for name, said in (("access", access), ("contract", contract)):
        if said is not None:
            setattr(view, name, said)
    return view


def _caller(*, counted: bool) -> Caller:
    """Return who the request's bearer token says is calling.

    Raises:
        InvalidToken: there is none, or it does not hold.
        TooManyRequests: the caller has asked too much.
    """
    scheme, _, token = request.environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    token = token.strip()
    if not token or scheme.lower() != "bearer":
        raise InvalidToken("Access token is empty.")
    wiring = _wiring()
    caller: Caller = wiring.verifier.verify(token)
    g.caller = caller  # for the log
    if wiring.quota and counted:
        wiring.quota.spend(caller)
    return caller


def _wiring() -> Wiring:
    wiring: Wiring = current_app.extensions["wiring"]
    return wiring


def _new_id() -> str:
    """Return a random GUID (version 4) that tells requests apart. It is no secret, so it costs no system call."""
    digits = f"{getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{8 + getrandbits(2):x}{digits[17:20]}-{digits[20:]}"


def _open() -> ResponseReturnValue | None:
    environ = request.environ
    request_id = _new_id()
    sent = environ.get("HTTP_CLIENT_REQUEST_ID", "")
    client_request_id = sent if CLIENTS_ID.fullmatch(sent) else request_id
    g.request_id, g.client_request_id = request_id, client_request_id
    environ[IDS] = (("request-id", request_id), ("client-request-id", client_request_id))
    _check_framing(environ)
    return Answer(status=204) if environ["REQUEST_METHOD"] == "OPTIONS" else None


def _check_framing(environ: Mapping[str, str]) -> None:
    """Raise BadRequest for what gunicorn lets pass and two servers in a row may understand in two ways.

    Source: RFC 9112, sections 3.2 (Host) and 6.1 (a coding that nobody undoes).
    """
    if "HTTP_HOST" not in environ and environ["SERVER_PROTOCOL"] == "HTTP/1.1":
        raise BadRequest("A request in HTTP/1.1 must have a Host.")
    if environ.get("HTTP_TRANSFER_ENCODING", "chunked").lower() != "chunked":
        raise BadRequest("Transfer-Encoding must be chunked and nothing else.")
