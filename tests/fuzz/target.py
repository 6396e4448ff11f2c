"""The application as gunicorn hands it what a client sent, and what has to hold for every answer."""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import Message
from http.client import HTTPResponse
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flask import Flask
from gunicorn.http import RequestParser
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.wsgi import create
from sqlalchemy import URL

from app.domain.values import DASHED_GUID, SETTABLE, EventKind, SessionKey
from app.emulator.shared import FAULTS, MovableClock, SharedPage
from app.factory import create_app
from app.services.emulation import Emulation
from app.web.guard import CLIENTS_ID
from config import Settings
from tests.builders import admin_settings, signing_key
from tests.fuzz import credentials
from tests.servers import shipped_settings
from tests.tokens import APP, AUDIENCE, OTHER_APP, OTHER_TENANT, TENANT, USER

SERVERS = ("production", "development")
CLIENT, SERVER = ("127.0.0.1", 50000), ("127.0.0.1", 8000)
OAUTH = re.compile(r"/[^/]+/oauth2/.*", re.ASCII | re.DOTALL)
"""Where errors have OAuth's shape, or are a page."""
ADMIN = re.compile(r"/+admin(?:/.*)?", re.ASCII | re.DOTALL)
"""Where errors are pages."""
FAULTS_ASKED_FOR = ("A fault that was asked for.", "The answer was lost, as asked for.")
OF_SESSIONS = {EventKind.SET, EventKind.CLEARED, EventKind.EXPIRED}

Rows = Mapping[str, Sequence[Mapping[str, Any]]]


class Broken(AssertionError):
    """Something that must hold for every answer does not; the message says what."""


class Answer(NamedTuple):
    """What came back for one request of a connection."""

    method: str
    path: str
    status: int
    headers: Message
    body: bytes


@dataclass
class _Client:
    """What gunicorn takes for a client's socket: it keeps what the client gets."""

    got: BytesIO = field(default_factory=BytesIO)
    sendall = property(lambda self: self.got.write)

    def send(self, data: bytes) -> int:
        """Take a 100 Continue, which is no part of the answer."""
        return len(data)

    def shutdown(self, _how: int) -> None:
        """Lose the answer, as the emulator was asked to."""

    def makefile(self, _mode: str) -> BytesIO:
        """Give what HTTPResponse reads."""
        return BytesIO(self.got.getvalue())


class Target:
    """Two applications on one database, as in production and as in development. Each conversation begins anew."""

    def __init__(self, url: URL, folder: Path) -> None:
        (folder / "jwks.json").write_text(json.dumps(signing_key().jwks()))
        (folder / "signing-key.pem").write_bytes(
            signing_key().private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        common: dict[str, Any] = {
            "database_url": url,
            "database_pool": 2,
            "instance_path": folder,
            "auth_audiences": (AUDIENCE,),
            **admin_settings(),
        }
        tenants, keys = (TENANT, OTHER_TENANT), str(folder / "jwks.json")
        self.apps = {
            "production": create_app(Settings(**common, auth_tenants=tenants, auth_jwks_uri=keys, rate_limit="0")),
            "development": create_app(Settings(**common, presence_env="development")),
        }
        self._page = SharedPage(folder / "emulator.page")
        self._config = shipped_settings()
        self._emulation = Emulation(self.apps["production"].extensions["engine"])
        self._prepared = self._now = self._prepare()
        self._faults = _Faults()
        self._words = credentials.words()

    def close(self) -> None:
        """Let go of the database."""
        for app in self.apps.values():
            app.extensions["engine"].dispose()

    def converse(self, server: str, sent: Sequence[bytes]) -> list[Answer]:
        """Send requests, each on a connection of its own, and return the answers.

        A request may hold `{{name}}` for a token, and `{{length}}` for that of its body.

        Raises:
            Broken: something does not hold.
        """
        self._begin()
        answers: list[Answer] = []
        for request in sent:
            for answer in self._connection(self.apps[server], credentials.filled(request, self._words)):
                self._judge(answer)
                answers.append(answer)
        begun = self._prepared["presence_event"]
        if self._now["presence_event"][: len(begun)] == begun:
            _check_replay(self._now)
        elif server == "production":  # the emulator may rewrite history
            raise Broken("events that stood before are gone")
        return answers

    def _prepare(self) -> Rows:
        """Return the rows that every conversation begins with."""
        self._emulation.reset()
        presence = self.apps["production"].extensions["wiring"].presence
        of_app, of_other = (SessionKey(TENANT, USER, app_id) for app_id in (APP, OTHER_APP))
        presence.set(of_app, SETTABLE[0], timedelta(hours=4), APP)
        presence.set(of_other, SETTABLE[1], timedelta(hours=4), APP)
        presence.prefer(of_app, SETTABLE[0], timedelta(days=1), APP)
        presence.say(of_app, "Back at nine", None, APP)
        return self._emulation.snapshot()

    def _begin(self) -> None:
        """Bring back the prepared rows, and the machine's own time."""
        MovableClock(self._page).reset()
        self._page.words[FAULTS] = 0
        self._faults.told.clear()
        if self._now != self._prepared:
            self._emulation.restore(self._prepared)
            self._now = self._prepared

    def _connection(self, app: Flask, sent: bytes) -> Iterator[Answer]:
        """Do what gunicorn's gthread worker does with all that a connection brings. What it refuses has no answer."""
        parser = RequestParser(self._config, iter([sent]), CLIENT)
        while True:
            try:
                request = next(parser)
            except (ParseException, NoMoreData, StopIteration):
                return
            client = _Client()
            response, environ = create(request, client, CLIENT, SERVER, self._config)
            chunks = app.wsgi_app(environ, response.start_response)
            for chunk in chunks:
                response.write(chunk)
            response.close()
            getattr(chunks, "close", lambda: None)()
            with HTTPResponse(client, method=request.method) as received:  # type: ignore[arg-type]
                received.begin()
                yield Answer(request.method, environ["PATH_INFO"], received.status, received.headers, received.read())
            try:
                if response.should_close() or not parser.finish_body():
                    return
            except (ParseException, NoMoreData):
                return

    def _judge(self, answer: Answer) -> None:
        self._page.words[FAULTS] = 0  # what the next requests were to meet
        before, self._now = self._now, self._emulation.snapshot()
        _hold(not self._faults.told, f"a fault was logged: {''.join(self._faults.told)}", answer)
        _check_headers(answer)
        made = [answer.status]
        if answer.status >= 400:
            _check_error(answer)
        elif answer.path.lower().rstrip("/").endswith("/$batch") and answer.method == "POST":
            made = [_check_part(answer, part) for part in json.loads(answer.body)["responses"]]
        if answer.method in {"GET", "HEAD", "OPTIONS"} or all(status >= 400 for status in made):
            _hold(self._now == before, f"rows were changed: {_difference(before, self._now)}", answer)


class _Faults(logging.Handler):
    """Keeps what the application logs of faults of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        logging.getLogger("app").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self.told.append(logging.Formatter().format(record))


def _hold(true: bool, what: str, answer: Answer) -> None:
    if not true:
        said = answer.body.decode("utf-8", "replace")
        raise Broken(f"{answer.method} {answer.path} was answered {answer.status}: {what}\n{said:.1000}")


def _check_headers(answer: Answer) -> None:
    headers = answer.headers
    _hold(bool(DASHED_GUID.fullmatch(headers["request-id"] or "")), "no request-id", answer)
    _hold(bool(CLIENTS_ID.fullmatch(headers["client-request-id"] or "")), "no client-request-id", answer)
    _hold("Cache-Control" in headers, "no Cache-Control", answer)
    _hold(headers["X-Content-Type-Options"] == "nosniff", "no nosniff", answer)
    _hold(headers["Server"] == "gunicorn", "a server that says more than its name", answer)
    _hold(len(headers) == len(set(map(str.lower, headers))), f"a header that stands twice: {headers}", answer)
    wanted = {401: "WWW-Authenticate", 405: "Allow", 429: "Retry-After", 503: "Retry-After"}.get(answer.status)
    if wanted and not OAUTH.fullmatch(answer.path):
        _hold(wanted in headers, f"no {wanted}", answer)


def _check_error(answer: Answer) -> None:
    if answer.method == "HEAD":
        _hold(answer.status < 500 and not answer.body, "a fault, or a body", answer)
        return
    if answer.headers["Content-Type"].startswith("text/html"):
        told_on_pages = OAUTH.fullmatch(answer.path) if answer.status == 400 else None
        _hold(bool(told_on_pages or ADMIN.fullmatch(answer.path)), "a page for this", answer)
        _hold(answer.status < 500, "a fault", answer)
        return
    _hold(answer.headers["Content-Type"] == "application/json", "an error that is not JSON", answer)
    body = json.loads(answer.body)
    if OAUTH.fullmatch(answer.path) and "error_codes" in body:
        oauths = {"error", "error_description", "error_codes", "timestamp", "trace_id", "correlation_id", "error_uri"}
        _hold(answer.status in {400, 401} and body.keys() == oauths, "not OAuth's error", answer)
        return
    ids = {name: answer.headers[name] for name in ("request-id", "client-request-id")}
    _check_envelope(answer, answer.status, ids, body)


def _check_envelope(answer: Answer, status: int, ids: Mapping[str, str], body: Any) -> None:
    _hold(body.keys() == {"error"} and body["error"].keys() == {"code", "message", "innerError"}, "no envelope", answer)
    inner = dict(body["error"]["innerError"])
    datetime.strptime(inner.pop("date"), "%Y-%m-%dT%H:%M:%S")  # noqa: DTZ007
    _hold(inner == ids, "other ids than in the headers", answer)
    message = body["error"]["message"]
    _hold(bool(message and body["error"]["code"]), "an error that says nothing", answer)
    _hold(status < 500 or message in FAULTS_ASKED_FOR, "a fault", answer)


def _check_part(answer: Answer, part: Mapping[str, Any]) -> int:
    """Judge the answer to one request of a batch, and return its status."""
    status: int = part["status"]
    ids = {name: part["headers"].get(name, "") for name in ("request-id", "client-request-id")}
    _hold(all(map(DASHED_GUID.fullmatch, ids.values())), "a part without its ids", answer)
    if status >= 400 and "error_codes" not in (body := part.get("body", {})) and isinstance(body, dict) and body:
        _check_envelope(answer, status, ids, body)
    _hold(status < 500 or "body" in part, "a fault", answer)
    return status


def _check_replay(rows: Rows) -> None:
    """Make sure that the events tell the sessions. They stand in their order."""
    stands = {}
    for event in rows["presence_event"]:
        if event["kind"] in OF_SESSIONS:
            shown = (event["availability"], event["activity"]) if event["kind"] == EventKind.SET else None
            stands[event["tenant_id"], event["user_id"], event["session_id"]] = shown
    sessions = {
        (row["tenant_id"], row["user_id"], row["session_id"]): (row["availability"], row["activity"])
        for row in rows["presence_session"]
    }
    told = {key: shown for key, shown in stands.items() if shown}
    if told != sessions:
        raise Broken(f"the events tell {told}, and the sessions are {sessions}")


def _difference(before: Rows, after: Rows) -> str:
    return "; ".join(
        f"{name} had {[row for row in before[name] if row not in after[name]]}, "
        f"has {[row for row in after[name] if row not in before[name]]}"
        for name in before
        if before[name] != after[name]
    )
