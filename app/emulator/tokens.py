"""What the development issuer says in a token, in the shape of Entra's v2.0 access tokens."""

import secrets
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import jwt

from app.auth.keys import TENANT
from app.auth.tokens import ENTRA_V2_ISSUER
from app.emulator.keys import SigningKey

ISSUER = ENTRA_V2_ISSUER
"""What the development issuer calls itself, wherever it runs."""

SERVICE_PRINCIPALS = uuid.UUID("6f1c1d0b-6f1e-4a83-9d5c-0f2f5e3a7b11")
"""The namespace of the object ids that applications get in a tenant."""


def app_only_claims(
    tenant_id: str,
    client_id: str,
    audience: str,
    roles: Sequence[str],
    now: datetime,
    lifetime: timedelta = timedelta(hours=1),
    issuer: str = ISSUER,
) -> dict[str, Any]:
    """Return the claims of an application's token. Ids are lower-case GUIDs; `issuer` may hold `{tenantid}`.

    Without a role there is no `roles` claim at all, as from Entra.
    """
    issued_at = int(now.timestamp())
    object_id = str(uuid.uuid5(SERVICE_PRINCIPALS, f"{tenant_id}/{client_id}"))
    claims = {
        "aud": audience,
        "iss": issuer.replace(TENANT, tenant_id),
        "iat": issued_at,
        "nbf": issued_at,
        "exp": issued_at + int(lifetime.total_seconds()),
        "azp": client_id,
        "azpacr": "1",
        "idtyp": "app",
        "oid": object_id,
        "sub": object_id,
        "tid": tenant_id,
        "uti": secrets.token_urlsafe(16),
        "ver": "2.0",
    }
    return {**claims, "roles": list(roles)} if roles else claims


def mint(claims: Mapping[str, Any], key: SigningKey) -> str:
    """Return the signed token of these claims."""
    return jwt.encode(dict(claims), key.private_key, algorithm="RS256", headers={"typ": "JWT", "kid": key.kid})
