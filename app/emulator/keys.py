"""The development issuer's signing key, made once and shared by all workers."""

import base64
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from jwt.algorithms import RSAAlgorithm

KEY_BITS = 2048


class UnusableKeyFile(Exception):
    """A file holds no key that tokens can be signed with; the message names it and says what to do."""


@dataclass(frozen=True)
class SigningKey:
    """An RSA key that signs tokens."""

    private_key: rsa.RSAPrivateKey

    @cached_property
    def kid(self) -> str:
        """The key's thumbprint. Source: RFC 7638, section 3, with SHA-256."""
        members = {"e": self._public_members["e"], "kty": "RSA", "n": self._public_members["n"]}
        digest = hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def jwks(self) -> dict[str, object]:
        """Return the JWKS document that publishes the key."""
        return {"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, **self._public_members}]}

    @cached_property
    def _public_members(self) -> dict[str, str]:
        jwk = RSAAlgorithm.to_jwk(self.private_key.public_key(), as_dict=True)
        return {"n": jwk["n"], "e": jwk["e"]}


def load_or_make_key(path: Path) -> SigningKey:
    """Return the key in a PEM file, which is made if it is not there, with its directory, for its owner's eyes only.

    Of any number of processes that make it at the same time, one does, and all get that one.

    Raises:
        UnusableKeyFile: there is a file without an RSA key of KEY_BITS bits or more.
        OSError: the file can be neither read nor made.
    """
    if not path.exists():
        _make_key_file(path)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < KEY_BITS:
        raise UnusableKeyFile(f"{path} holds no RSA signing key in PEM; delete it, and a new one is made")
    return SigningKey(key)


def _make_key_file(path: Path) -> None:
    """Write a new key beside `path`, and give it that name unless somebody else was faster."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, written = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # its mode is 0600
    try:
        with open(descriptor, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.flush()
            os.fsync(file.fileno())
        os.link(written, path)  # unlike a rename, this never replaces a key that tokens were signed with
    except FileExistsError:
        pass
    finally:
        os.unlink(written)
