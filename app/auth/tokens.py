"""A bearer token is verified: its signature, who issued it to whom for what, and when."""

import hashlib
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import jwt
from cachetools import LRUCache

from app.auth.caller import Caller
from app.auth.keys import TENANT, KeySet, VerificationKey
from app.domain.values import DASHED_GUID

ENTRA_V1_ISSUER = "https://sts.windows.net/{tenantid}/"
ENTRA_V2_ISSUER = "https://login.microsoftonline.com/{tenantid}/v2.0"

MAX_TOKEN_LENGTH = 16 * 1024

NOT_A_JWT = "CompactToken parsing failed with error code: 80049217"
EXPIRED = "Lifetime validation failed, the token is expired."
NOT_YET_VALID = "Lifetime validation failed, the token is not yet valid."
FAILURE = "Access token validation failure."
WRONG_AUDIENCE = f"{FAILURE} Invalid audience."


class InvalidToken(Exception):
    """The message names the check that failed, in Graph's words where they are known, never what would pass."""


@dataclass(frozen=True, slots=True)
class _Verified:
    """What a signature check found, and what has to stay true for it to be found again."""

    caller: Caller
    not_before: float
    expires: float
    key: VerificationKey
    key_set: KeySet


class TokenVerifier:
    """Verifies bearer tokens; one is shared by all threads of a process.

    `keys` gives the key set of a tenant; `issuers` may hold `{tenantid}`; of `tenants` None means any; `clock` gives
    aware moments. `remembered` verified tokens cost no second signature check, for as long as they are valid and
    their key is in the key set. `looked_up` is told of each token whether it was remembered.
    """

    def __init__(
        self,
        keys: Callable[[str], KeySet],
        *,
        issuers: Sequence[str],
        audiences: frozenset[str],
        tenants: frozenset[str] | None,
        clock: Callable[[], datetime],
        leeway: timedelta = timedelta(seconds=60),
        remembered: int = 10_000,
        looked_up: Callable[[bool], None] | None = None,
    ) -> None:
        self._keys = keys
        self._issuers = tuple(issuers)
        self._audiences = audiences
        self._tenants = tenants
        self._clock = clock
        self._leeway = leeway.total_seconds()
        self._remembered: LRUCache[bytes, _Verified] = LRUCache(remembered)
        self._lock = threading.Lock()
        self._looked_up = looked_up

    def verify(self, token: str) -> Caller:
        """Return who calls with this token, given without "Bearer ".

        Raises:
            InvalidToken: it is not one that this service accepts.
            KeysUnavailable: it cannot be told, as the issuer's keys cannot be read.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise InvalidToken(f"{FAILURE} The token is longer than {MAX_TOKEN_LENGTH} characters.")
        if not token.isascii():
            raise InvalidToken(NOT_A_JWT)
        digest = hashlib.sha256(token.encode()).digest()
        with self._lock:
            known = self._remembered.get(digest)
        if known is not None and known.key_set.current(known.key.kid) is not known.key:
            known = None
        if self._looked_up:
            self._looked_up(known is not None)
        if known is not None:
            self._check_lifetime(known)
            return known.caller
        verified = self._verify(token)
        with self._lock:
            self._remembered[digest] = verified
        return verified.caller

    def _verify(self, token: str) -> _Verified:
        kid, unverified_claims = _read_unverified(token)
        tenant_id, issuer = self._issuer_of(unverified_claims)
        key_set = self._keys(tenant_id)
        key = key_set.get(kid)
        if key is None:
            raise InvalidToken(f"{FAILURE} The signing key is not known.")
        if not _signs_for(key, issuer, tenant_id):
            raise InvalidToken(f"{FAILURE} The signing key belongs to another issuer.")
        claims = self._verified_claims(token, key, issuer)
        verified = _Verified(
            caller=_caller(tenant_id, claims),
            not_before=max((_moment(claims, name) for name in ("nbf", "iat") if name in claims), default=-math.inf),
            expires=_moment(claims, "exp"),
            key=key,
            key_set=key_set,
        )
        self._check_lifetime(verified)
        return verified

    def _issuer_of(self, unverified_claims: Mapping[str, object]) -> tuple[str, str]:
        """Return tenant and issuer of a token, when the tenant is served and the issuer is one of its issuers."""
        tid = unverified_claims.get("tid")
        tenant_id = _guid(tid)
        if tenant_id is None or not (self._tenants is None or tenant_id in self._tenants):
            raise InvalidToken(f"{FAILURE} Invalid tenant.")
        issuer = unverified_claims.get("iss")
        spellings = (str(tid), tenant_id)  # a GUID is the same in upper case; all else is compared to the letter
        allowed = [template.replace(TENANT, spelling) for template in self._issuers for spelling in spellings]
        if not isinstance(issuer, str) or issuer not in allowed:
            raise InvalidToken(f"{FAILURE} Invalid issuer.")
        return tenant_id, issuer

    def _verified_claims(self, token: str, key: VerificationKey, issuer: str) -> dict[str, Any]:
        try:
            return _jwt.decode(
                token,
                key.public_key,
                algorithms=["RS256"],
                audience=self._audiences,
                issuer=issuer,
                options={
                    "require": ["exp", "iss", "aud", "tid"],
                    "verify_signature": True,
                    "enforce_minimum_key_length": True,
                    "verify_aud": True,
                    "strict_aud": False,  # a list of audiences is an audience, too
                    "verify_iss": True,
                    "verify_sub": True,
                    "verify_jti": True,
                    "verify_exp": False,  # the times are checked on our own clock, by _check_lifetime
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.MissingRequiredClaimError as error:
            raise InvalidToken(f"{FAILURE} The claim '{error.claim}' is missing.") from None
        except jwt.InvalidAudienceError:
            raise InvalidToken(WRONG_AUDIENCE) from None
        except jwt.InvalidSignatureError:
            raise InvalidToken(f"{FAILURE} Invalid signature.") from None
        except jwt.PyJWTError:
            raise InvalidToken(FAILURE) from None

    def _check_lifetime(self, verified: _Verified) -> None:
        now = self._clock().timestamp()
        if verified.expires <= now - self._leeway:
            raise InvalidToken(EXPIRED)
        if verified.not_before > now + self._leeway:
            raise InvalidToken(NOT_YET_VALID)


class _Jwt(jwt.PyJWT):
    """PyJWT, but for claims that are named twice: which one counts would depend on who reads them."""

    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        try:
            payload = json.loads(decoded["payload"], object_pairs_hook=_distinct)
        except (ValueError, RecursionError):
            raise jwt.DecodeError("Invalid payload") from None
        if not isinstance(payload, dict):
            raise jwt.DecodeError("Invalid payload")
        return payload


_jwt = _Jwt()


def _distinct(members: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("a name stands twice")
    return found


def _read_unverified(token: str) -> tuple[str, Mapping[str, object]]:
    """Return key id and claims as the token states them. Keys that it names or brings itself are never looked at."""
    try:
        unverified = _jwt.decode_complete(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        raise InvalidToken(NOT_A_JWT) from None
    header = unverified["header"]
    if header.get("alg") != "RS256":
        raise InvalidToken(f"{FAILURE} Invalid signature algorithm.")
    if "crit" in header or "b64" in header:
        raise InvalidToken(f"{FAILURE} The header asks for an extension that is not supported.")
    kid = header.get("kid")
    if not isinstance(kid, str):
        raise InvalidToken(f"{FAILURE} The header names no signing key.")
    return kid, unverified["payload"]


def _signs_for(key: VerificationKey, issuer: str, tenant_id: str) -> bool:
    """Tell whether a key may sign for an issuer that was found right for the tenant.

    Entra names its v2.0 issuer beside a key and signs v1.0 tokens with it as well.
    Source: Microsoft.IdentityModel, AadTokenValidationParametersExtension (known).
    """
    if key.issuer is None:
        return True
    of_key, of_token = key.issuer.replace(TENANT, tenant_id).lower(), issuer.lower()
    v1, v2 = (template.replace(TENANT, tenant_id) for template in (ENTRA_V1_ISSUER, ENTRA_V2_ISSUER))
    return of_key == of_token or (of_key == v2 and of_token == v1)


def _caller(tenant_id: str, claims: Mapping[str, Any]) -> Caller:
    app_ids = {_guid(claims[name]) for name in ("appid", "azp") if name in claims}
    app_id = app_ids.pop() if len(app_ids) == 1 else None
    if app_id is None:
        raise InvalidToken(f"{FAILURE} The application id (azp or appid) is missing, ambiguous or no GUID.")
    app_only = "scp" not in claims and claims.get("idtyp", "app") == "app"
    scp, roles, name = claims.get("scp"), claims.get("roles"), claims.get("preferred_username")
    return Caller(
        tenant_id=tenant_id,
        app_id=app_id,
        app_only=app_only,
        roles=frozenset(roles if isinstance(roles, list) and all(isinstance(role, str) for role in roles) else ()),
        scopes=frozenset(scp.split() if isinstance(scp, str) else ()),
        user_id=None if app_only else _guid(claims.get("oid")),
        user_name=name if isinstance(name, str) and not app_only else None,
    )


def _guid(value: object) -> str | None:
    return value.lower() if isinstance(value, str) and DASHED_GUID.fullmatch(value) else None


def _moment(claims: Mapping[str, object], name: str) -> float:
    """Return a claim that is a JSON number (of seconds since 1970). Python's bool is an int, and 1e999 is infinite."""
    value = claims[name]
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidToken(f"{FAILURE} The claim '{name}' must be a number.")
