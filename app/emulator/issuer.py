"""A token issuer as Entra ID is one, for development: it believes every application and every secret."""

from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from typing import NamedTuple
from uuid import uuid4

from flask import Blueprint, Response, g, request
from flask.typing import ResponseReturnValue

from app.auth.tokens import ENTRA_V2_ISSUER
from app.domain.values import DASHED_GUID
from app.emulator.keys import SigningKey
from app.emulator.tokens import app_only_claims, mint
from app.services.presence import Clock
from app.web.answers import json_answer
from app.web.guard import public

LIFETIME = timedelta(hours=1)
DEFAULT_ROLES = ["Presence.ReadWrite.All"]
ANY_TENANT = frozenset({"common", "organizations", "consumers"})


class Refused(Exception):
    """A token request that Entra would refuse, with its own number for the reason.

    Source: "Microsoft Entra authentication and authorization error codes".
    """

    def __init__(self, error: str, number: int, text: str) -> None:
        super().__init__(f"AADSTS{number}: {text}")
        self.error = error
        self.number = number


class Granted(NamedTuple):
    """What a token request may have: for which application, with which roles, on the word of which resource."""

    client_id: str
    roles: list[str]


def blueprint(signing_key: Callable[[], SigningKey], audience: str, clock: Clock) -> Blueprint:
    """Return the issuer's routes. Its tokens carry `audience` whatever scope was asked for."""
    bp = Blueprint("issuer", __name__)

    @bp.get("/<tenant>/v2.0/.well-known/openid-configuration")
    @bp.get("/<tenant>/.well-known/openid-configuration")
    @public
    def discovery(tenant: str) -> ResponseReturnValue:
        """Return the OpenID Connect discovery document."""
        return _discovery(tenant)

    @bp.get("/<tenant>/discovery/v2.0/keys")
    @bp.get("/<tenant>/discovery/keys")
    @public
    def keys(tenant: str) -> ResponseReturnValue:  # noqa: ARG001  # every tenant has the same keys
        """Return the JWKS document."""
        return signing_key().jwks()

    @bp.post("/<tenant>/oauth2/v2.0/token")
    @bp.post("/<tenant>/oauth2/token")
    @public
    def token(tenant: str) -> ResponseReturnValue:
        """Return an app-only access token (client_credentials), as the v2 or the v1 endpoint answers."""
        is_v1 = "/v2.0/" not in request.path
        granted = _judge(tenant, "resource" if is_v1 else "scope")
        now = clock()
        claims = app_only_claims(tenant.lower(), granted.client_id, audience, granted.roles, now, lifetime=LIFETIME)
        seconds = int(LIFETIME.total_seconds()) - 1
        body: dict[str, object] = {"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds}
        if is_v1:
            issued = int(now.timestamp())
            body = {
                **{name: str(value) for name, value in body.items()},
                "expires_on": str(issued + seconds),
                "not_before": str(issued),
                "resource": request.form["resource"],
            }
        return _answer({**body, "access_token": mint(claims, signing_key())}, HTTPStatus.OK)

    @bp.errorhandler(Refused)
    def refuse(refusal: Refused) -> ResponseReturnValue:
        trace, stamp = str(uuid4()), clock().strftime("%Y-%m-%d %H:%M:%SZ")
        body = {
            "error": refusal.error,
            "error_description": f"{refusal}\r\nTrace ID: {trace}\r\n"
            f"Correlation ID: {g.client_request_id}\r\nTimestamp: {stamp}",
            "error_codes": [refusal.number],
            "timestamp": stamp,
            "trace_id": trace,
            "correlation_id": g.client_request_id,
            "error_uri": f"{request.url_root}error?code={refusal.number}",
        }
        return _answer(body, HTTPStatus.UNAUTHORIZED if refusal.error == "invalid_client" else HTTPStatus.BAD_REQUEST)

    return bp


def _judge(tenant: str, target: str) -> Granted:
    """Return what the token request in hand may have. `target` is the parameter that names the resource.

    Raises:
        Refused: it may have nothing.
    """
    form, basic = request.form, request.authorization
    client_id = form.get("client_id") or (basic and basic.username) or ""
    secret = form.get("client_secret") or form.get("client_assertion") or (basic and basic.password)
    if not DASHED_GUID.fullmatch(tenant):
        raise Refused("invalid_request", 900023, f"Tenant '{tenant:.60}' is no GUID: any GUID is a tenant here.")
    for name, value in (("grant_type", form.get("grant_type")), ("client_id", client_id), (target, form.get(target))):
        if not value:
            raise Refused("invalid_request", 900144, f"The request body must contain the parameter '{name}'.")
    if form["grant_type"] != "client_credentials":
        raise Refused("unsupported_grant_type", 70003, "The grant_type must be client_credentials.")
    if not DASHED_GUID.fullmatch(client_id):
        raise Refused(
            "unauthorized_client", 700016, f"Application '{client_id:.60}' is no GUID: any GUID will do here."
        )
    if not secret:
        raise Refused("invalid_client", 7000218, "client_secret or client_assertion is missing: any value will do.")
    if target == "scope" and not form["scope"].endswith("/.default"):
        raise Refused("invalid_scope", 70011, "The scope must be one resource followed by /.default.")
    asked = " ".join(form.getlist("roles")).replace(",", " ").split()
    return Granted(client_id.lower(), asked if "roles" in form else DEFAULT_ROLES)


def _answer(body: dict[str, object], status: HTTPStatus) -> Response:
    return json_answer(body, status, Cache_Control="no-store, no-cache", Pragma="no-cache")


def _discovery(tenant: str) -> dict[str, object]:
    here = f"{request.url_root}{tenant}"
    return {
        "token_endpoint": f"{here}/oauth2/v2.0/token",
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        "jwks_uri": f"{here}/discovery/v2.0/keys",
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "issuer": ENTRA_V2_ISSUER.replace("{tenantid}", "{tenantid}" if tenant in ANY_TENANT else tenant.lower()),
        "request_uri_parameter_supported": False,
        "authorization_endpoint": f"{here}/oauth2/v2.0/authorize",
        "end_session_endpoint": f"{here}/oauth2/v2.0/logout",
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nbf", "tid", "ver", "azp", "oid", "roles"],
        "tenant_region_scope": None,
        "cloud_instance_name": "localhost",
    }
