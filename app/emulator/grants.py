"""What an OAuth request may have, by its fields alone: every application, secret, user and password is believed."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import jwt

from app.domain.values import DASHED_GUID, derived_user_id
from app.emulator.keys import SigningKey
from app.emulator.tokens import User, app_only_claims, delegated_claims, id_claims, mint
from app.services.presence import Clock

DEVELOPMENT_TENANT = "8fe37d9e-6d4d-4a0c-b4e8-9fb5a6d7e2a1"
"""Where those sign in who name no tenant but `common` or `organizations`, unless AUTH_TENANTS names another first."""

ANY_TENANT = ("common", "organizations")

LIFETIME = timedelta(hours=1)
CODE_LIFETIME = timedelta(minutes=10)
REFRESH_TOKEN_LIFETIME = timedelta(days=90)

CODE, REFRESH_TOKEN = "urn:graph-presence:authorization-code", "urn:graph-presence:refresh-token"
"""The `aud` of what is signed for nobody but this issuer: no API takes it for a token, nor one for the other."""

DEFAULT_ROLES = ["Presence.ReadWrite.All"]
DEFAULT_SCOPES = ["Presence.ReadWrite", "Presence.Read.All"]
"""What `.default` gives: an application's roles, or all that a user may let it do with presence."""

OIDC_SCOPES = frozenset({"openid", "profile", "email", "offline_access"})
SCOPE_NAMES = {name.lower(): name for name in ("Presence.Read", "Presence.Read.All", "Presence.ReadWrite")}
"""Entra takes a scope in any letter case, and grants it in its own."""

DEFAULT_SCOPE = re.compile(r"(?:\S+/)?\.default")
"""All that an application may do with one resource; Graph when it names none."""

RESPONSE_MODES = ("query", "fragment", "form_post")
S256_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
WEB_ADDRESS = re.compile(r"https?://[!-~]+", re.ASCII)
MAX_NAME_LENGTH = 256


class Refused(Exception):
    """A request that Entra would refuse, with its own number for the reason.

    Source: "Microsoft Entra authentication and authorization error codes".
    """

    def __init__(self, error: str, number: int, text: str) -> None:
        super().__init__(f"AADSTS{number}: {text}")
        self.error = error
        self.number = number


class SignIn(NamedTuple):
    """That a user lets an application act for them, and how far: what a code or a refresh token stands for."""

    tenant_id: str
    client_id: str
    user_name: str
    scope: str
    """As it was asked for, separated by blanks."""
    nonce: str | None = None
    """What the application wants to find in the ID token."""
    redirect_uri: str | None = None
    code_challenge: str | None = None


class Reply(NamedTuple):
    """Where the answer to an authorization request goes."""

    redirect_uri: str
    response_mode: str
    state: str | None


@dataclass(frozen=True)
class Issuer:
    """Gives tokens to whoever asks in the right form.

    `audience` is in all access tokens, whatever resource was asked for; `home_tenant_id` is the tenant of users who
    name none; `user_id` gives the id of whoever signs in to a tenant with a name.
    """

    signing_key: Callable[[], SigningKey]
    audience: str
    home_tenant_id: str
    clock: Clock
    user_id: Callable[[str, str], str] = derived_user_id

    def app_token(self, tenant: str, form: Mapping[str, str], target: str = "scope") -> dict[str, object]:
        """Return the answer to client_credentials. `target` is the field that names the resource.

        Raises:
            Refused: it makes no sense.
        """
        if not DASHED_GUID.fullmatch(tenant):
            raise Refused("invalid_request", 900023, f"Tenant '{tenant:.60}' is no GUID: any GUID is a tenant here.")
        if _wanted(form, "grant_type") != "client_credentials":
            raise Refused("unsupported_grant_type", 70003, "The grant_type must be client_credentials.")
        client_id, asked = _client_id(form), _wanted(form, target)
        if not _secret(form):
            raise Refused("invalid_client", 7000218, "client_secret or client_assertion is missing: any value will do.")
        if target == "scope" and not DEFAULT_SCOPE.fullmatch(asked):
            raise Refused(
                "invalid_scope", 70011, "The scope must be one resource followed by /.default, or .default alone."
            )
        roles = form["roles"].replace(",", " ").split() if "roles" in form else DEFAULT_ROLES
        claims = app_only_claims(tenant.lower(), client_id, self.audience, roles, self.clock(), LIFETIME)
        return self._access_token(claims)

    def tokens(self, tenant: str, form: Mapping[str, str]) -> dict[str, object]:
        """Return the answer to client_credentials, password, authorization_code or refresh_token.

        Raises:
            Refused: it makes no sense, or the code or refresh token is not good (any more).
        """
        grant_type = _wanted(form, "grant_type")
        if grant_type == "client_credentials":
            return self.app_token(tenant, form)
        tenant_id, client_id = self._tenant_id(tenant), _client_id(form)
        if grant_type == "password":
            name = user_name(form.get("username", ""))
            if not name or not form.get("password"):
                raise Refused("invalid_grant", 50126, "username and password must not be empty: any others will do.")
            sign_in = SignIn(tenant_id, client_id, name, _wanted(form, "scope"))
            return self._user_tokens(sign_in, sign_in.scope, form)
        if grant_type == "authorization_code":
            sign_in = self._opened(CODE, _wanted(form, "code"), tenant_id, client_id)
            _prove_origin(sign_in, form)
            return self._user_tokens(sign_in, sign_in.scope, form)
        if grant_type == "refresh_token":
            sign_in = self._opened(REFRESH_TOKEN, _wanted(form, "refresh_token"), tenant_id, client_id)
            return self._user_tokens(sign_in, form.get("scope") or sign_in.scope, form)
        known = "client_credentials, password, authorization_code or refresh_token"
        raise Refused("unsupported_grant_type", 70003, f"The grant_type must be {known}.")

    def reply(self, tenant: str, query: Mapping[str, str]) -> Reply:
        """Return where the answer to an authorization request goes.

        No application is registered here, so that any web address will do.

        Raises:
            Refused: there is no telling, so this must be shown to the user.
        """
        self._tenant_id(tenant)
        _client_id(query)
        mode = query.get("response_mode", RESPONSE_MODES[0])
        if mode not in RESPONSE_MODES:
            raise Refused(
                "unsupported_response_mode", 70007, f"The response_mode must be {' or '.join(RESPONSE_MODES)}."
            )
        return Reply(web_address("redirect_uri", _wanted(query, "redirect_uri")), mode, query.get("state"))

    def asked(self, tenant: str, query: Mapping[str, str]) -> SignIn:
        """Return what an authorization request asks for.

        The user is still to be named, unless nobody may be asked (`prompt=none`): then `login_hint` names them.

        Raises:
            Refused: the application is to be told so.
        """
        if _wanted(query, "response_type") != "code":
            raise Refused("unsupported_response_type", 70005, "The response_type must be code.")
        challenge = query.get("code_challenge")
        if challenge is not None and query.get("code_challenge_method") != "S256":
            raise Refused("invalid_request", 501491, "The code_challenge_method must be S256.")
        if challenge is not None and not S256_CHALLENGE.fullmatch(challenge):
            raise Refused("invalid_request", 501491, "The code_challenge must be 43 letters of base64url.")
        scope = _wanted(query, "scope")
        _scope_names(scope)
        silent = query.get("prompt") == "none"
        name = user_name(query.get("login_hint", "")) if silent else ""
        if silent and not name:
            raise Refused("login_required", 50058, "prompt=none needs a login_hint: nobody is signed in here.")
        return SignIn(
            self._tenant_id(tenant),
            _client_id(query),
            name,
            scope,
            nonce=query.get("nonce"),
            redirect_uri=_wanted(query, "redirect_uri"),
            code_challenge=challenge,
        )

    def code(self, sign_in: SignIn) -> str:
        """Return an authorization code: the sign-in itself, signed, good for CODE_LIFETIME in every worker.

        Nothing is stored, so nobody can tell that it was redeemed before: unlike Entra's it works more than once.
        """
        return self._signed(CODE, sign_in, CODE_LIFETIME)

    def _tenant_id(self, tenant: str) -> str:
        """Return the tenant that a user signs in to."""
        if tenant.lower() in ANY_TENANT:
            return self.home_tenant_id
        if DASHED_GUID.fullmatch(tenant):
            return tenant.lower()
        text = f"Tenant '{tenant:.60}' is no GUID: any GUID is a tenant here, and so are {' and '.join(ANY_TENANT)}."
        raise Refused("invalid_request", 900023, text)

    def _user_tokens(self, sign_in: SignIn, scope: str, form: Mapping[str, str]) -> dict[str, object]:
        """Return the tokens that `scope` asks for, which may be more than what the user was asked for."""
        now, who = self.clock(), (sign_in.tenant_id, sign_in.user_name)
        user = User(*who, self.user_id(*who))
        asked, names = scope.split(), _scope_names(scope)
        claims = delegated_claims(user, sign_in.client_id, self.audience, names, now, LIFETIME)
        claims["azpacr"] = "1" if _secret(form) else "0"
        told = dict.fromkeys([*asked, *names])  # MSAL looks in its cache for the scopes as they were asked for
        body = {**self._access_token(claims), "scope": " ".join(name for name in told if name != "offline_access")}
        if "offline_access" in asked:
            kept = sign_in._replace(nonce=None, redirect_uri=None, code_challenge=None)
            body["refresh_token"] = self._signed(REFRESH_TOKEN, kept, REFRESH_TOKEN_LIFETIME)
        if "openid" in asked:
            claims = id_claims(user, sign_in.client_id, sign_in.nonce, now, LIFETIME)
            body["id_token"] = mint(claims, self.signing_key())
        if form.get("client_info") == "1":
            account = json.dumps({"uid": user.user_id, "utid": user.tenant_id})
            body["client_info"] = base64.urlsafe_b64encode(account.encode()).rstrip(b"=").decode()
        return body

    def _access_token(self, claims: Mapping[str, Any]) -> dict[str, object]:
        seconds = int(LIFETIME.total_seconds()) - 1
        token = mint(claims, self.signing_key())
        return {"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token}

    def _signed(self, use: str, sign_in: SignIn, lifetime: timedelta) -> str:
        expires_at = int((self.clock() + lifetime).timestamp())
        return mint({"aud": use, "exp": expires_at, **sign_in._asdict()}, self.signing_key())

    def _opened(self, use: str, token: str, tenant_id: str, client_id: str) -> SignIn:
        """Return the sign-in that a code or a refresh token stands for."""
        try:
            claims = jwt.decode(
                token,
                self.signing_key().private_key.public_key(),
                algorithms=["RS256"],
                audience=use,
                options={"verify_exp": False},  # it is checked below, on our own clock
            )
        except jwt.PyJWTError:
            raise Refused("invalid_grant", 9002313, "The code or refresh token is malformed or not ours.") from None
        if claims["exp"] <= self.clock().timestamp():
            number, what = (70008, "authorization code") if use == CODE else (700082, "refresh token")
            raise Refused("invalid_grant", number, f"The {what} has expired.")
        fields: list[Any] = [claims.get(name) for name in SignIn._fields]
        sign_in = SignIn(*fields)
        if (sign_in.tenant_id, sign_in.client_id) != (tenant_id, client_id):
            raise Refused("invalid_grant", 70000, "The code or refresh token is another application's or tenant's.")
        return sign_in


def user_name(typed: str) -> str:
    """Return a user name as it was typed, without blanks around it; nothing when nobody can have that name."""
    name = typed.strip()
    return name if name.isprintable() and len(name) <= MAX_NAME_LENGTH else ""


def web_address(field: str, uri: str) -> str:
    """Return an address that a browser may be sent to.

    Raises:
        Refused: it is neither http nor https, or has a fragment, or is no address at all.
    """
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port  # a port is not looked at before it is asked for
    except ValueError:
        host = None
    if not host or "#" in uri or not WEB_ADDRESS.fullmatch(uri):
        raise Refused("invalid_request", 50011, f"The {field} must be an http or https URL without a fragment.")
    return uri


def _wanted(fields: Mapping[str, str], name: str) -> str:
    value = fields.get(name)
    if not value:
        raise Refused("invalid_request", 900144, f"The request must contain the parameter '{name}'.")
    return value


def _client_id(fields: Mapping[str, str]) -> str:
    client_id = _wanted(fields, "client_id")
    if not DASHED_GUID.fullmatch(client_id):
        text = f"Application '{client_id:.60}' is no GUID: any GUID will do here."
        raise Refused("unauthorized_client", 700016, text)
    return client_id.lower()


def _secret(form: Mapping[str, str]) -> str | None:
    return form.get("client_secret") or form.get("client_assertion")


def _scope_names(scope: str) -> list[str]:
    """Return the permissions in a scope, without their resource, each once. OpenID Connect's own are none."""
    names: dict[str, None] = {}
    for asked in scope.split():
        name = asked.rpartition("/")[2]
        if not name:
            raise Refused("invalid_scope", 70011, f"The scope '{asked:.60}' names no permission.")
        if asked not in OIDC_SCOPES:
            names.update(dict.fromkeys(DEFAULT_SCOPES if name == ".default" else [SCOPE_NAMES.get(name.lower(), name)]))
    return list(names)


def _prove_origin(sign_in: SignIn, form: Mapping[str, str]) -> None:
    """Make sure that whoever redeems a code is who asked for it. Source: RFC 7636, section 4.6."""
    if form.get("redirect_uri") != sign_in.redirect_uri:
        raise Refused("invalid_client", 500112, "The redirect_uri is not the one that the code was asked for with.")
    if sign_in.code_challenge is None:
        if not _secret(form):
            raise Refused("invalid_request", 9002325, "A client without a secret needs a code_challenge (PKCE).")
        return
    digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
    if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != sign_in.code_challenge:
        raise Refused("invalid_grant", 501481, "The code_verifier does not match the code_challenge.")
