"""gunicorn's settings. `gunicorn wsgi:app` reads this file by itself when started beside it."""

import gc
import importlib
import logging
import os
import shlex
import shutil
import socket
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

from config import Settings, SettingsError, load

try:
    _settings = load(Settings)
except SettingsError as error:  # an exit in a worker would be repeated for ever; here it ends gunicorn itself
    sys.exit(f"graph-presence does not start: {error}")

bind = f"{_settings.host}:{_settings.port}"
certfile = str(_settings.tls_certfile.resolve()) if _settings.tls_certfile else None
keyfile = str(_settings.tls_keyfile.resolve()) if _settings.tls_keyfile else None
workers = _settings.web_concurrency
worker_class = "app.web.worker.EvenWorker"  # gthread, of which each takes its share of the connections
threads = _settings.web_threads  # a slow client holds one; none is made before it is needed
backlog = 2048
timeout = 60
graceful_timeout = 30
keepalive = 30
control_socket_disable = True
forwarder_headers = ""  # nor may a client say where the application is mounted: the variable SCRIPT_NAME does
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190

TENANT = "8fe37d9e-6d4d-4a0c-b4e8-9fb5a6d7e2a1"
APP = "22553876-f5ab-4529-bffb-cfe50aa89f87"
USER = "fa8bf3dc-eca7-46b7-bad1-db199b62afc3"
LIBRARIES = (
    "alembic.config", "cryptography.hazmat.primitives.asymmetric.rsa", "flask", "jwt", "limits.strategies", "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.orm", "structlog",
)  # fmt: skip
OBJECTS_BETWEEN_LOOKS = 10_000
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus-client looks for it, when it is imported


def on_starting(server: Any) -> None:
    """Import what takes a worker two thirds of its start, so that at a HUP it is there at once; no code of ours.

    Open the port of the metrics for the workers to come, and make the folder where they write their figures.
    """
    for name in LIBRARIES:
        importlib.import_module(name)
    if _settings.metrics_port:
        place = (_settings.metrics_host, _settings.metrics_port)
        family = socket.AF_INET6 if ":" in _settings.metrics_host else socket.AF_INET
        try:
            server.metrics_listener = socket.create_server(place, family=family)
        except OSError as error:
            sys.exit(f"graph-presence does not start: METRICS_HOST and METRICS_PORT: {error}")
        os.environ[METRICS_FOLDER] = tempfile.mkdtemp(prefix="graph-presence-metrics-")


def post_fork(server: Any, worker: Any) -> None:
    """Hand a worker the port of the metrics, and have it look for cycles less often.

    A bulk read makes thousands of objects, which with those of other threads soon count as old: looking through all
    that the worker has, over and over, was a quarter of what it cost. A request leaves cycles of eight objects.
    """
    gc.set_threshold(OBJECTS_BETWEEN_LOOKS)
    worker.metrics_listener = getattr(server, "metrics_listener", None)


def post_worker_init(worker: Any) -> None:
    """Answer scrapes once the application is there."""
    if worker.metrics_listener:
        worker.wsgi.extensions["metrics"].serve(worker.metrics_listener, Path(os.environ[METRICS_FOLDER]))


def child_exit(server: Any, worker: Any) -> None:
    """Forget what only a live worker has, such as connections; what a dead one counted stays in the sums."""
    if hasattr(worker, "forget"):  # --worker-class may have asked for another
        worker.forget()
    if hasattr(server, "metrics_listener"):
        from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415  # it looks for the folder

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # prometheus-client leaves it untyped


def on_exit(_server: Any) -> None:
    """Remove the folder."""
    if folder := os.environ.get(METRICS_FOLDER):
        shutil.rmtree(folder, ignore_errors=True)


def when_ready(server: Any) -> None:
    """Once the port listens, bound the silence of clients, and print what there is to paste."""
    silence = struct.pack("ll", *divmod(round(_settings.client_timeout.total_seconds() * 1e6), 1_000_000))
    for listener in server.LISTENERS:  # gthread waits for the rest of a request for ever; connections inherit this
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, silence)
    server.log.error_log.addFilter(_is_no_silence)
    if _settings.is_development:
        base = f"{'https' if certfile else 'http'}://{bind}"
        print(example(base, certfile), flush=True)  # noqa: T201  # to be pasted, so no log line
        if certfile:
            print(trust(base, certfile), flush=True)  # noqa: T201  # likewise


def _is_no_silence(record: logging.LogRecord) -> bool:
    """Tell whether a record is worth a line: that a client fell silent is not, and least of all a traceback."""
    return not (record.exc_info and isinstance(record.exc_info[1], BlockingIOError))


def trust(base: str, certificate: str) -> str:
    """Return how each client is told to trust a certificate that nobody else vouches for."""
    return "\n".join(
        (
            f"Clients that check certificates do not know {certificate} yet. They trust it by:",
            "",
            f"  curl            --cacert {shlex.quote(certificate)}",
            f'  msal            ConfidentialClientApplication(..., authority="{base}/{TENANT}",',
            f'                      instance_discovery=False, verify="{certificate}")',
            f'  azure-identity  ClientSecretCredential(..., authority="{base}",',
            f'                      disable_instance_discovery=True, connection_verify="{certificate}")',
            "                      (both: with REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE unset, which go first)",
            f'  httpx           AsyncClient(verify=ssl.create_default_context(cafile="{certificate}"))',
            f'  requests        verify="{certificate}"',
            f"  node            NODE_EXTRA_CA_CERTS={shlex.quote(certificate)}",
            "  Chromium        --ignore-certificate-errors",
            "",
        )
    )


def example(base: str, certificate: str | None = None) -> str:
    """Return the documented example as four shell lines: token, setPresence, clearPresence, read back."""
    curl = f"curl -sS --cacert {shlex.quote(certificate)}" if certificate else "curl -sS"
    presence = f"{base}/beta/users/{USER}/presence"
    post = f"{curl} -w '%{{http_code}}\\n' -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json'"
    busy = f'{{"sessionId":"{APP}","availability":"Busy","activity":"InACall","expirationDuration":"PT1H"}}'
    token = (
        f"TOKEN=$({curl} {base}/{TENANT}/oauth2/v2.0/token -d client_id={APP} -d client_secret=any"
        " -d grant_type=client_credentials -d scope=https://graph.microsoft.com/.default"
        """ | sed 's/.*"access_token": *"\\([^"]*\\)".*/\\1/')"""
    )
    return "\n".join(
        (
            "",
            f"Microsoft Graph's presence API is at {base}/v1.0 and {base}/beta. To see it work, paste:",
            "",
            token,
            f"{post} {presence}/setPresence -d '{busy}'",
            f'{post} {presence}/clearPresence -d \'{{"sessionId":"{APP}"}}\'',
            f'{curl} -H "Authorization: Bearer $TOKEN" {presence}',
            "",
        )
    )
