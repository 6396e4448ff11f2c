"""A certificate for this machine alone, for clients that refuse http: `python -m app.emulator.certificate`."""

import os
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from app.emulator.keys import SigningKey, UnusableKeyFile, load_or_make_key

CERTIFICATE, KEY = "localhost.pem", "localhost-key.pem"
LIFETIME = timedelta(days=397)
"""What browsers bear at most."""
MARGIN = timedelta(days=1)
"""A certificate that ends so soon counts as expired: a server that starts now runs on; and clocks are never equal."""


def ensure_certificate(folder: Path, now: datetime) -> Path:
    """Return a certificate for localhost and 127.0.0.1 that is valid at `now`, made unless it is there.

    Its key is in the same folder, for its owner's eyes only, and stays the same when the certificate is renewed: any
    number of processes that make them at the same time end with two files that fit.

    Raises:
        UnusableKeyFile: the key's file holds no key.
        OSError: a file can be neither read nor made.
    """
    key = load_or_make_key(folder / KEY)
    path = folder / CERTIFICATE
    if not _holds(path, key, now):
        descriptor, written = tempfile.mkstemp(prefix=f"{path.name}.", dir=folder)
        with open(descriptor, "wb") as file:
            file.write(_certificate(key, now))
        os.chmod(written, 0o644)  # every client may read it
        os.replace(written, path)
    return path


def _holds(path: Path, key: SigningKey, now: datetime) -> bool:
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    current = found.not_valid_before_utc <= now < found.not_valid_after_utc - MARGIN
    return current and found.public_key() == key.private_key.public_key()


def _certificate(key: SigningKey, now: datetime) -> bytes:
    """Return a self-signed certificate that can sign no other, so that who trusts it trusts nothing else."""
    public_key = key.private_key.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    builder = (
        x509.CertificateBuilder(name, name, public_key, x509.random_serial_number())
        .not_valid_before(now - MARGIN)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key), critical=False)
    )
    return builder.sign(key.private_key, SHA256()).public_bytes(Encoding.PEM)


if __name__ == "__main__":
    try:
        ensure_certificate(Path(*sys.argv[1:2] or ["instance"]), datetime.now(UTC))
    except (UnusableKeyFile, OSError) as error:
        sys.exit(f"No certificate could be made: {error}")
