"""Signing keys, JWKS documents and tokens, real and forged, for every test that needs a caller."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from app.emulator.tokens import app_only_claims

TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
OTHER_TENANT = "b1f5a1d2-3c4e-4f60-8a7b-9c0d1e2f3a4b"
APP = "22553876-f5ab-4529-bffb-cfe50aa89f87"
OTHER_APP = "8c2d1b0a-7e6f-4d5c-9b3a-1f2e3d4c5b6a"
USER = "fa8bf3dc-eca7-46b7-bad1-db199b62afc3"
AUDIENCE = "https://graph.microsoft.com"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WRITE, READ = "Presence.ReadWrite.All", "Presence.Read.All"

V1 = "https://sts.windows.net/{tenantid}/"
V2 = "https://login.microsoftonline.com/{tenantid}/v2.0"


class _Absent:
    def __repr__(self) -> str:  # the same in every process, as the names of tests have to be
        return "ABSENT"


ABSENT: Any = _Absent()
"""As a claim's value: leave the claim out."""

Part = bytes | Mapping[str, Any]


@dataclass(frozen=True)
class Key:
    """An issuer's RSA key pair and its id."""

    kid: str
    private: rsa.RSAPrivateKey

    def named(self, kid: str) -> "Key":
        """Return the same key under another id."""
        return replace(self, kid=kid)

    def jwk(self, **members: Any) -> dict[str, Any]:
        """Return its public part as it stands in a JWKS document; `members` are changed, added or ABSENT."""
        public = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        jwk = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": public["n"], "e": public["e"]}
        return _present({**jwk, **members})

    def sign(self, data: bytes, algorithm: str = "RS256") -> bytes:
        """Return the signature over any bytes."""
        return jwt.get_algorithm_by_name(algorithm).sign(data, self.private)

    @property
    def pem(self) -> bytes:
        """The public key, as one who confuses algorithms takes it for an HMAC secret."""
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@cache
def rsa_key(kid: str, bits: int = 2048) -> Key:
    """Return the key of this id: the same one each time."""
    return Key(kid, rsa.generate_private_key(public_exponent=65537, key_size=bits))


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    """Return a key for ES256."""
    return ec.generate_private_key(ec.SECP256R1())


def jwks(*keys: Key | Mapping[str, Any]) -> dict[str, Any]:
    """Return the document that publishes these keys."""
    return {"keys": [key.jwk() if isinstance(key, Key) else dict(key) for key in keys]}


def claims(*, tenant: str = TENANT, app: str = APP, **changed: Any) -> dict[str, Any]:
    """Return an application's claims at NOW, valid for an hour; `changed` are set, added or ABSENT."""
    return _present({**app_only_claims(tenant, app, AUDIENCE, [WRITE], NOW), **changed})


def v1_claims(**changed: Any) -> dict[str, Any]:
    """Return the same in the shape of Entra's v1.0 tokens."""
    v1 = {"iss": V1.replace("{tenantid}", TENANT), "ver": "1.0", "appid": APP, "appidacr": "1"}
    return claims(**{**v1, "azp": ABSENT, "azpacr": ABSENT, **changed})


def delegated_claims(**changed: Any) -> dict[str, Any]:
    """Return the claims of a user's token."""
    return claims(**{"scp": "Presence.ReadWrite User.Read", "oid": USER, "idtyp": ABSENT, "roles": ABSENT, **changed})


def signed(payload: Part, key: Key, **header: Any) -> str:
    """Return a token with a valid signature, whatever stands in it; bytes are signed as they are."""
    return assemble({"typ": "JWT", "alg": "RS256", "kid": key.kid, **header}, payload, key.sign)


def assemble(header: Part, payload: Part, sign: Callable[[bytes], bytes]) -> str:
    """Put a token together from its parts, which need not make sense."""
    signing_input = f"{_segment(header)}.{_segment(payload)}"
    return f"{signing_input}.{_segment(sign(signing_input.encode()))}"


def hmac_sha256(secret: bytes) -> Callable[[bytes], bytes]:
    """Sign as HS256 does; PyJWT would not take a public key for the secret."""
    return lambda data: hmac.digest(secret, data, hashlib.sha256)


def es256(data: bytes) -> bytes:
    """Sign as ES256 does."""
    return jwt.get_algorithm_by_name("ES256").sign(data, ec_key())


def _segment(part: Part) -> str:
    data = part if isinstance(part, bytes) else json.dumps(_present(part)).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _present(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not ABSENT}
