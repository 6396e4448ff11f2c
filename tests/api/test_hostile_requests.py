"""Over a socket, to gunicorn as it is run: each hostile request has its answer, and not a row is changed."""

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pytest
from alembic import command
from sqlalchemy import URL, Engine, create_engine

from app.domain.values import DASHED_GUID
from app.services.emulation import Emulation
from tests.conftest import alembic_config
from tests.fuzz import credentials
from tests.hostile_requests import AT_A_LIMIT, HOSTILE, SESSION, SET, SOUND, posted
from tests.servers import Server, gunicorn
from tests.tokens import AUDIENCE, OTHER_TENANT, TENANT


class Service(NamedTuple):
    """A production server, its database, and the tokens it is shown."""

    server: Server
    engine: Engine
    words: dict[str, str]

    def rows(self) -> object:
        """Everything that the database holds."""
        return Emulation(self.engine).snapshot()

    def answers(self, sent: bytes) -> list[tuple[int, bytes]]:
        """Send all that a client has to say on one connection; return status and body of each answer."""
        host, port = self.server.base.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as client:
            try:
                client.sendall(credentials.filled(sent, self.words))
                client.shutdown(socket.SHUT_WR)
            except OSError:  # it has been refused before all was said
                pass
            received = BytesIO(b"".join(iter(lambda: client.recv(65_536), b"")))
        return list(read_answers(received))


class _Received:
    """What HTTPResponse takes for a socket."""

    def __init__(self, received: BytesIO) -> None:
        self._received = received

    def makefile(self, _mode: str) -> "_Received":
        return self

    def __getattr__(self, name: str) -> object:
        return getattr(self._received, name)

    def close(self) -> None:
        """Stay open: another answer may follow."""


def read_answers(received: BytesIO) -> Iterator[tuple[int, bytes]]:
    while received.tell() < len(received.getvalue()):
        answer = http.client.HTTPResponse(_Received(received))  # type: ignore[arg-type]
        answer.begin()
        body = answer.read()
        if "request-id" in answer.headers:
            check(answer.status, answer.headers, body)
        else:  # gunicorn's own
            assert answer.status in {400, 414, 417, 431, 501}
            assert answer.headers["Connection"] == "close"
        yield answer.status, body


def check(status: int, headers: http.client.HTTPMessage, body: bytes) -> None:
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert headers["Server"] == "gunicorn"
    if status >= 400:
        error = json.loads(body)["error"]
        assert error.keys() == {"code", "message", "innerError"}
        assert DASHED_GUID.fullmatch(error["innerError"]["request-id"])


@pytest.fixture(scope="module")
def service(
    make_database: Callable[[], URL], tmp_path_factory: pytest.TempPathFactory, jwks_file: Path
) -> Iterator[Service]:
    url = make_database()
    command.upgrade(alembic_config(url), "head")
    engine = create_engine(url)
    with gunicorn(
        DATABASE_URL=url.render_as_string(hide_password=False),
        AUTH_TENANTS=f"{TENANT},{OTHER_TENANT}",
        AUTH_AUDIENCES=AUDIENCE,
        AUTH_JWKS_URI=str(jwks_file),
        WEB_CONCURRENCY="1",
        RATE_LIMIT="0",
    ) as server:
        service = Service(server, engine, credentials.words())
        assert [status for status, _ in service.answers(posted(SET, SESSION))] == [200]
        yield service
        assert [status for status, _ in service.answers(SOUND + SOUND)] == [200, 404]
    engine.dispose()
    assert not [line for line in server.printed if "Traceback" in line or '"error"' in line]


@pytest.mark.parametrize(("sent", "statuses"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_request_is_refused_and_changes_nothing(service: Service, sent: bytes, statuses: list[int]) -> None:
    before = service.rows()
    answers = service.answers(sent)
    seen = [status for status, _ in answers]
    if seen == [200]:  # a batch, and what is in it
        seen += [part["status"] for part in json.loads(answers[0][1])["responses"]]
    assert seen == statuses, answers
    assert service.rows() == before


@pytest.mark.parametrize("sent", AT_A_LIMIT.values(), ids=AT_A_LIMIT)
def test_what_is_no_larger_than_its_limit_is_served(service: Service, sent: bytes) -> None:
    assert [status for status, _ in service.answers(sent)] == [200]


def test_there_are_at_least_150_of_them() -> None:
    assert len({sent for sent, _ in HOSTILE.values()}) >= 150
    assert min(status for _, statuses in HOSTILE.values() for status in statuses[-1:]) >= 400
