"""A token issuer as Entra ID is one, for development: its endpoints, discovery document and pages."""

import base64
import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from io import BytesIO
from urllib.parse import quote, urlencode
from uuid import uuid4

from flask import Blueprint, Response, g, make_response, redirect, render_template, request
from flask.typing import ResponseReturnValue

from app.auth.tokens import ENTRA_V2_ISSUER
from app.emulator.grants import (
    ANY_TENANT,
    MAX_NAME_LENGTH,
    OIDC_SCOPES,
    RESPONSE_MODES,
    Issuer,
    Refused,
    Reply,
    user_name,
    web_address,
)
from app.web.answers import json_answer
from app.web.application import current_request
from app.web.bodies import received
from app.web.guard import public

SUBMIT = "document.forms[0].submit()"
SUBMIT_HASH = base64.b64encode(hashlib.sha256(SUBMIT.encode()).digest()).decode()
PAGE_POLICY = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{SUBMIT_HASH}'; base-uri 'none'"

CLAIMS = "sub iss aud exp iat nbf tid ver azp oid name preferred_username nonce roles scp"


def blueprint(issuer: Issuer) -> Blueprint:
    """Return the issuer's routes."""
    bp = Blueprint("issuer", __name__, template_folder="templates")

    @bp.get("/<tenant>/v2.0/.well-known/openid-configuration")
    @bp.get("/<tenant>/.well-known/openid-configuration")
    @public()
    def discovery(tenant: str) -> ResponseReturnValue:
        """Return the OpenID Connect discovery document."""
        return _discovery(tenant)

    @bp.get("/<tenant>/discovery/v2.0/keys")
    @bp.get("/<tenant>/discovery/keys")
    @public()
    def keys(tenant: str) -> ResponseReturnValue:  # noqa: ARG001  # of the path; all have the same keys
        """Return the JWKS document."""
        return issuer.signing_key().jwks()

    @bp.post("/<tenant>/oauth2/v2.0/token")
    @public()
    def token(tenant: str) -> ResponseReturnValue:
        """Return tokens for client_credentials, password, authorization_code or refresh_token."""
        return _answer(issuer.tokens(tenant, _form()))

    @bp.post("/<tenant>/oauth2/token")
    @public()
    def v1_token(tenant: str) -> ResponseReturnValue:
        """Return an app-only access token (client_credentials), as the v1 endpoint answers."""
        form = _form()
        body = issuer.app_token(tenant, form, target="resource")
        issued_at = int(issuer.clock().timestamp())
        told = {
            **body,
            "expires_on": issued_at + int(str(body["expires_in"])),
            "not_before": issued_at,
            "resource": form["resource"],
        }
        return _answer({name: str(value) for name, value in told.items()})

    @bp.route("/<tenant>/oauth2/v2.0/authorize", methods=["GET", "POST"])
    @public()
    def authorize(tenant: str) -> ResponseReturnValue:
        """Ask who signs in, on a page that posts back here, and send the browser to the application with a code.

        `login_hint` fills the page in. `prompt=none` shows no page: `login_hint` is then who signs in, and without
        one nobody is signed in, since there are no cookies.
        """
        query = request.args.to_dict()
        reply = issuer.reply(tenant, query)
        try:
            asked = issuer.asked(tenant, query)
        except Refused as refusal:
            return _send(reply, {"error": refusal.error, "error_description": str(refusal)})
        name = asked.user_name or user_name(_form().get("username", ""))
        if name:
            return _send(reply, {"code": issuer.code(asked._replace(user_name=name))})
        refused = request.method == "POST"
        status = HTTPStatus.BAD_REQUEST if refused else HTTPStatus.OK
        hint = query.get("login_hint", "")
        return _page("sign_in.html", status, asked=asked, hint=hint, refused=refused, longest=MAX_NAME_LENGTH)

    @bp.get("/<tenant>/oauth2/v2.0/logout")
    @public()
    def logout(tenant: str) -> ResponseReturnValue:  # noqa: ARG001  # of the path; none has a session to end
        """Send the browser back, or tell it that nobody is signed in."""
        uri = request.args.get("post_logout_redirect_uri")
        if uri is None:
            return Response("Nobody is signed in.\n", content_type="text/plain; charset=utf-8")
        reply = Reply(web_address("post_logout_redirect_uri", uri), "query", request.args.get("state"))
        return _send(reply, {})

    @bp.errorhandler(Refused)
    def refuse(refusal: Refused) -> ResponseReturnValue:
        trace, stamp = str(uuid4()), issuer.clock().strftime("%Y-%m-%d %H:%M:%SZ")
        body = {
            "error": refusal.error,
            "error_description": f"{refusal}\r\nTrace ID: {trace}\r\n"
            f"Correlation ID: {g.client_request_id}\r\nTimestamp: {stamp}",
            "error_codes": [refusal.number],
            "timestamp": stamp,
            "trace_id": trace,
            "correlation_id": g.client_request_id,
            "error_uri": f"https://login.microsoftonline.com/error?code={refusal.number}",
        }
        return _answer(body, HTTPStatus.UNAUTHORIZED if refusal.error == "invalid_client" else HTTPStatus.BAD_REQUEST)

    return bp


def _form() -> dict[str, str]:
    """Return the fields of a token request, those of its Authorization header included."""
    try:
        basic = request.authorization
    except ValueError:  # werkzeug lets pass what is no base64 and no ASCII, either
        basic = None
    request.environ["wsgi.input"] = BytesIO(received(current_request()))  # all of it, or none
    credentials = {"client_id": basic.username or "", "client_secret": basic.password or ""} if basic else {}
    return {**credentials, **{name: " ".join(values) for name, values in request.form.lists()}}


def _answer(body: Mapping[str, object], status: HTTPStatus = HTTPStatus.OK) -> Response:
    return json_answer(body, status, Cache_Control="no-store, no-cache", Pragma="no-cache")


def _send(reply: Reply, answer: Mapping[str, str]) -> Response:
    """Send the browser to the application with an answer. Source: OAuth 2.0 Form Post and Multiple Response Types."""
    told = dict(answer) if reply.state is None else {**answer, "state": reply.state}
    uri = reply.redirect_uri
    if reply.response_mode == "form_post":
        return _page("form_post.html", HTTPStatus.OK, address=uri, answer=told, script=SUBMIT)
    if told:
        mark = "#" if reply.response_mode == "fragment" else "&" if "?" in uri else "?"
        uri += mark + urlencode(told, quote_via=quote)
    return make_response(redirect(uri, HTTPStatus.SEE_OTHER))


def _page(template: str, status: HTTPStatus, **shown: object) -> Response:
    response = make_response(render_template(template, **shown), status)
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    return response


def _discovery(tenant: str) -> dict[str, object]:
    here = f"{request.url_root}{tenant}"
    return {
        "token_endpoint": f"{here}/oauth2/v2.0/token",
        "token_endpoint_auth_methods_supported": [
            "client_secret_post",
            "private_key_jwt",
            "client_secret_basic",
            "none",
        ],
        "jwks_uri": f"{here}/discovery/v2.0/keys",
        "response_modes_supported": list(RESPONSE_MODES),
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code"],
        "grant_types_supported": ["client_credentials", "password", "authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": sorted(OIDC_SCOPES),
        "issuer": ENTRA_V2_ISSUER.replace(
            "{tenantid}", "{tenantid}" if tenant.lower() in ANY_TENANT else tenant.lower()
        ),
        "request_uri_parameter_supported": False,
        "authorization_endpoint": f"{here}/oauth2/v2.0/authorize",
        "end_session_endpoint": f"{here}/oauth2/v2.0/logout",
        "claims_supported": CLAIMS.split(),
        "tenant_region_scope": None,
        "cloud_instance_name": "localhost",
    }
