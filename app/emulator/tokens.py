"""What the development issuer says in a token, in the shape of Entra's v2.0 access tokens."""

import secrets
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import jwt

from app.auth.keys import TENANT
from app.auth.tokens import ENTRA_V2_ISSUER
from app.emulator.keys import SigningKey

ISSUER = ENTRA_V2_ISSUER
"""What the development issuer calls itself, wherever it runs."""

SERVICE_PRINCIPALS = uuid.UUID("6f1c1d0b-6f1e-4a83-9d5c-0f2f5e3a7b11")
"""The namespace of the object ids that applications get in a tenant."""


class User(NamedTuple):
    """Who is signed in: anybody, by a name taken as it comes."""

    tenant_id: str
    name: str
    """User principal name, or the user's id."""
    user_id: str
    """A lower-case GUID."""


def app_only_claims(
    tenant_id: str,
    client_id: str,
    audience: str,
    roles: Sequence[str],
    now: datetime,
    lifetime: timedelta = timedelta(hours=1),
) -> dict[str, Any]:
    """Return the claims of an application's token. Ids are lower-case GUIDs.

    Without a role there is no `roles` claim at all, as from Entra.
    """
    object_id = str(uuid.uuid5(SERVICE_PRINCIPALS, f"{tenant_id}/{client_id}"))
    claims = {
        **_claims(tenant_id, audience, now, lifetime),
        "azp": client_id,
        "azpacr": "1",
        "idtyp": "app",
        "oid": object_id,
        "sub": object_id,
    }
    return {**claims, "roles": list(roles)} if roles else claims


def delegated_claims(
    user: User,
    client_id: str,
    audience: str,
    scopes: Sequence[str],
    now: datetime,
    lifetime: timedelta = timedelta(hours=1),
) -> dict[str, Any]:
    """Return the claims of a token with which an application acts for a user; `scopes` are short names.

    Without a scope `scp` is there all the same, and empty: no user's token is ever taken for an application's.
    """
    return {
        **_claims(user.tenant_id, audience, now, lifetime),
        **_user_claims(user, client_id),
        "azp": client_id,
        "azpacr": "0",
        "idtyp": "user",
        "scp": " ".join(scopes),
    }


def id_claims(
    user: User,
    client_id: str,
    nonce: str | None,
    now: datetime,
    lifetime: timedelta = timedelta(hours=1),
) -> dict[str, Any]:
    """Return the claims of an ID token, which tells an application who has signed in.

    It has no `azp`: so even an API that has the application's id for an audience refuses it as an access token.
    """
    claims = {**_claims(user.tenant_id, client_id, now, lifetime), **_user_claims(user, client_id)}
    return {**claims, "nonce": nonce} if nonce else claims


def _claims(tenant_id: str, audience: str, now: datetime, lifetime: timedelta) -> dict[str, Any]:
    issued_at = int(now.timestamp())
    return {
        "aud": audience,
        "iss": ISSUER.replace(TENANT, tenant_id),
        "iat": issued_at,
        "nbf": issued_at,
        "exp": issued_at + int(lifetime.total_seconds()),
        "tid": tenant_id,
        "uti": secrets.token_urlsafe(16),
        "ver": "2.0",
    }


def _user_claims(user: User, client_id: str) -> dict[str, str]:
    """Return who the user is. `sub` is another one for each application, as Entra's are."""
    return {
        "name": user.name,
        "oid": user.user_id,
        "preferred_username": user.name,
        "sub": str(uuid.uuid5(uuid.UUID(client_id), user.user_id)),
    }


def mint(claims: Mapping[str, Any], key: SigningKey) -> str:
    """Return the signed token of these claims."""
    return jwt.encode(dict(claims), key.private_key, algorithm="RS256", headers={"typ": "JWT", "kid": key.kid})
