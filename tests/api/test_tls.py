"""https: a certificate made on the spot, a server that uses it, and one behind a proxy that does."""

import json
import ssl
import stat
import subprocess
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from app.emulator.certificate import CERTIFICATE, KEY, LIFETIME, MARGIN, ensure_certificate
from app.emulator.keys import UnusableKeyFile
from tests.builders import new_id
from tests.servers import gunicorn, run

DISCOVERY = f"/{new_id()}/v2.0/.well-known/openid-configuration"
NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)


def serial_number(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def test_a_certificate_is_made_once_and_its_key_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "instance"
    path = ensure_certificate(folder, NOW)
    assert path == folder / CERTIFICATE
    assert stat.S_IMODE((folder / KEY).stat().st_mode) == 0o600
    assert {made.name for made in folder.iterdir()} == {CERTIFICATE, KEY}
    made = x509.load_pem_x509_certificate(path.read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert ensure_certificate(folder, NOW) == path
    assert serial_number(path) == made.serial_number


@pytest.mark.parametrize(
    ("later", "remade"),
    [
        (LIFETIME - MARGIN - timedelta(seconds=1), False),
        (LIFETIME - MARGIN, True),
        (-MARGIN - timedelta(seconds=1), True),
    ],
)
def test_it_is_remade_when_it_has_expired_and_the_key_stays(tmp_path: Path, later: timedelta, remade: bool) -> None:
    path = ensure_certificate(tmp_path, NOW)
    before, key = serial_number(path), (tmp_path / KEY).read_bytes()
    ensure_certificate(tmp_path, NOW + later)
    assert (serial_number(path) != before) == remade
    assert (tmp_path / KEY).read_bytes() == key


def test_it_is_remade_when_it_is_another_keys_or_none(tmp_path: Path) -> None:
    path = ensure_certificate(tmp_path, NOW)
    (tmp_path / KEY).unlink()
    for spoil in (lambda: None, lambda: path.write_text("nothing"), path.unlink):
        spoil()
        ensure_certificate(tmp_path, NOW)
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(path, tmp_path / KEY)


def test_a_key_that_is_none_is_said_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / KEY).write_text("nothing")
    with pytest.raises(UnusableKeyFile):
        ensure_certificate(tmp_path, NOW)
    failed = run("python", "-m", "app.emulator.certificate", str(tmp_path))
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"No certificate could be made: {tmp_path / KEY}")
    assert (tmp_path / KEY).read_text() == "nothing"


def test_clients_that_trust_the_certificate_are_served_and_others_refuse(tmp_path: Path) -> None:
    folder = tmp_path / "an instance"  # the printed lines are pasted into a shell
    assert run("python", "-m", "app.emulator.certificate", str(folder)).returncode == 0
    url = f"sqlite:///{tmp_path}/presence.sqlite3"
    assert run("alembic", "upgrade", "head", DATABASE_URL=url).returncode == 0
    environment = {
        "PRESENCE_ENV": "development",
        "DATABASE_URL": url,
        "INSTANCE_PATH": str(folder),
        "TLS_CERTFILE": str(folder / CERTIFICATE),
        "TLS_KEYFILE": str(folder / KEY),
    }
    trusting = ssl.create_default_context(cafile=str(folder / CERTIFICATE))
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    with gunicorn(**environment) as server:
        for base in (server.base, server.base.replace("127.0.0.1", "localhost")):
            with urllib.request.urlopen(base + DISCOVERY, timeout=30, context=trusting) as answer:  # noqa: S310
                document = json.load(answer)
            assert document["token_endpoint"].startswith(f"{base}/")
            assert document["authorization_endpoint"].startswith(f"{base}/")
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(server.base, timeout=30)  # noqa: S310
        lines = [line for line in server.printed if line.startswith(("TOKEN=", "curl "))]
        done = subprocess.run(["sh", "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[:2] == ["200", "200"], done.stdout + done.stderr
    said = "\n".join(server.printed)
    for words in ("--cacert", "verify=", "connection_verify=", "cafile=", "NODE_EXTRA_CA_CERTS=", "Chromium"):
        assert any(words in line and (str(folder) in line or words == "Chromium") for line in server.printed), said


@pytest.mark.parametrize(("trusted", "scheme"), [("127.0.0.1", "https"), ("192.0.2.1", "http")])
def test_behind_a_tls_proxy_the_discovery_document_says_https(tmp_path: Path, trusted: str, scheme: str) -> None:
    environment = {"PRESENCE_ENV": "development", "INSTANCE_PATH": str(tmp_path), "WEB_CONCURRENCY": "1"}
    if trusted != "127.0.0.1":  # which is gunicorn's own default
        environment["FORWARDED_ALLOW_IPS"] = trusted
    with gunicorn(**environment, DATABASE_URL=f"sqlite:///{tmp_path}/presence.sqlite3") as server:
        headers = {"Host": "presence.example", "X-Forwarded-Proto": "https"}
        asked = urllib.request.Request(server.base + DISCOVERY, headers=headers)  # noqa: S310
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
            document = json.load(answer)
    for name in ("token_endpoint", "jwks_uri", "authorization_endpoint", "end_session_endpoint"):
        assert document[name].startswith(f"{scheme}://presence.example/")
