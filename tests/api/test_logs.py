"""What is logged: enough to find a request again, and nothing that is a secret."""

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import URL

from app.db.store import StoreUnavailable
from app.domain.values import IN_A_CALL
from app.services.presence import PresenceService
from app.web.logs import formatter
from tests.builders import AUDIENCE, Application, Clock, Graph, application, assert_error, new_id
from tests.servers import gunicorn, run

PASSWORD = "only-in-the-body"


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """All that was logged, as production writes it."""
    for record in caplog.records:
        vars(record).pop("message", None)  # pytest's own handler left it there
    written = [formatter(as_json=True).format(record) for record in caplog.records]
    assert not any("\n" in line for line in written)
    return [json.loads(line) for line in written]


def test_a_request_is_one_line_that_finds_it_again(
    graph: Graph, alice: str, bot: Application, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app")
    mine = new_id()
    path = f"/users/{alice}/presence/clearPresence"
    answer = graph.post(bot, path, {"sessionId": bot.app_id}, **{"client-request-id": mine})
    (line,) = lines(caplog)
    took = line.pop("duration_ms")
    assert isinstance(took, float)
    assert took > 0
    assert datetime.fromisoformat(str(line.pop("timestamp"))).tzinfo == UTC
    assert line == {
        "event": "request",
        "level": "info",
        "logger": "app.web.logs",
        "request_id": answer.headers["request-id"],
        "client_request_id": mine,
        "tenant": bot.tenant_id,
        "app": bot.app_id,
        "method": "POST",
        "route": "/v1.0/users/<user_id>/presence/clearPresence",
        "status": 404,
    }


def test_who_has_no_token_or_no_route_is_logged_as_nobody(graph: Graph, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app")
    graph.client.get(f"/v1.0/users/{new_id()}/presence", headers={"Authorization": "Bearer eyJ.eyJ.x"})
    graph.client.get("/no\r\nsuch/place")
    refused, lost = lines(caplog)
    assert (refused["status"], refused["tenant"], refused["app"]) == (401, None, None)
    assert (lost["status"], lost["route"]) == (404, None)


def test_each_request_of_a_batch_has_a_line(graph: Graph, bot: Application, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app")
    asked = [{"id": key, "method": "GET", "url": f"/users/{new_id()}/presence"} for key in "ab"]
    graph.post(bot, "/$batch", {"requests": asked})
    one, other, whole = lines(caplog)
    assert one["route"] == other["route"] == "/v1.0/users/<user_id>/presence"
    assert whole["route"] == "/v1.0/$batch"
    assert len({line["request_id"] for line in (one, other, whole)}) == 3


def test_the_cause_of_a_503_is_logged_once_and_without_values(
    graph: Graph, bot: Application, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreUnavailable from OSError(f"no route to host\nDETAIL: {PASSWORD}")

    monkeypatch.setattr(PresenceService, "clear", fail)
    answer = graph.clears(new_id(), bot)
    assert_error(answer, 503, "ServiceUnavailable")
    (line,) = [line for line in lines(caplog) if line["level"] == "warning"]
    assert line["cause"] == "OSError: no route to host"
    assert line["request_id"] == answer.headers["request-id"]


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_tells_no_value_of_a_variable(
    graph: Graph, bot: Application, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    def fail(*_: object) -> None:
        secret = PASSWORD
        raise ArithmeticError("broken"[: len(secret)])

    monkeypatch.setattr(PresenceService, "clear", fail)
    answer = graph.post(bot, f"/users/{new_id()}/presence/clearPresence", {"sessionId": bot.app_id, "x": PASSWORD})
    assert_error(answer, 500, "InternalServerError")
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    written = formatter(as_json=as_json).format(record)
    assert "ArithmeticError: broken" in written
    assert answer.headers["request-id"] in written
    assert bot.token not in written
    assert PASSWORD not in written


def test_a_production_server_writes_json_and_no_secret(
    make_database: Callable[[], URL], jwks_file: Path, tmp_path: Path
) -> None:
    url = make_database().render_as_string(hide_password=False)
    assert run("alembic", "upgrade", "head", DATABASE_URL=url).returncode == 0
    bot = application(Clock(datetime.now(UTC)), new_id(), "Presence.ReadWrite.All")
    settings = {"AUTH_TENANTS": bot.tenant_id, "AUTH_AUDIENCES": AUDIENCE, "AUTH_JWKS_URI": str(jwks_file)}
    said = {"sessionId": bot.app_id, **IN_A_CALL._asdict(), "x": PASSWORD}
    statuses = []
    with gunicorn(DATABASE_URL=url, **settings) as server:
        for token in (bot.token, bot.token[:-9], ""):
            for body in (json.dumps(said), json.dumps(said)[:-1]):
                asked = urllib.request.Request(  # noqa: S310
                    f"{server.base}/users/{new_id()}/presence/setPresence?token={bot.token}",
                    body.encode(),
                    {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
                )
                try:
                    with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
                        statuses.append(answer.status)
                except urllib.error.HTTPError as error:
                    statuses.append(error.code)
                    error.close()
    ours = [json.loads(line) for line in server.printed if line.startswith("{")]
    assert [line["status"] for line in ours] == statuses == [200, 400, 401, 401, 401, 401]
    everything = "\n".join(server.printed)
    for secret in (PASSWORD, bot.token, bot.token[:40], "Bearer", url.partition("@")[0] if "@" in url else PASSWORD):
        assert secret not in everything


@pytest.mark.parametrize(("level", "lines"), [("INFO", 1), ("WARNING", 0)])
def test_a_request_has_a_line_where_the_level_lets_it(tmp_path: Path, level: str, lines: int) -> None:
    with gunicorn(PRESENCE_ENV="development", INSTANCE_PATH=str(tmp_path), LOG_LEVEL=level) as server:
        with pytest.raises(urllib.error.HTTPError, match="404") as error:
            urllib.request.urlopen(f"{server.base}/nothing", timeout=30)  # noqa: S310  # our own server's
        error.value.close()
    assert sum("404" in line for line in server.printed) == lines
