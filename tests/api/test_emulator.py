"""The emulator's controls: time, data and faults of a development server."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from flask.testing import FlaskClient
from sqlalchemy import URL

from app.domain.values import AVAILABLE, AWAY, IN_A_CALL, OFFLINE
from app.emulator.controls import PATH
from app.emulator.shared import MovableClock, SharedPage
from app.factory import create_app
from config import Settings
from tests.builders import Application, Clock, Graph, assert_error, assert_ok, new_id
from tests.conftest import alembic_config
from tests.tokens import APP, USER

NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
USER_ROW = {
    "tenant_id": APP,
    "user_id": USER,
    "user_principal_name": "a@b.c",
    "user_principal_name_lower": "a@b.c",
    "display_name": "A",
}


@pytest.fixture(scope="module")
def settings(make_database: Callable[[], URL], jwks_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A development server's, on a database that may be emptied."""
    url = make_database()
    command.upgrade(alembic_config(url), "head")
    return Settings(
        presence_env="development",
        database_url=url,
        auth_jwks_uri=str(jwks_file),
        instance_path=tmp_path_factory.mktemp("instance"),
    )


@pytest.fixture(scope="module")
def workers(settings: Settings) -> Iterator[tuple[FlaskClient, FlaskClient]]:
    """Two workers of one server."""
    apps = (create_app(settings), create_app(settings))
    yield apps[0].test_client(), apps[1].test_client()
    for app in apps:
        app.extensions["engine"].dispose()


@pytest.fixture
def graph(workers: tuple[FlaskClient, FlaskClient]) -> Graph:
    """A client of the first worker, at eight o'clock; the clock stands still."""
    assert_ok(workers[0].post(f"{PATH}/reset"))
    moved(workers[0], now=NOW.isoformat(), frozen=True)
    return Graph(workers[0], Clock(NOW))


def moved(client: FlaskClient, **how: object) -> dict[str, Any]:
    answer = client.post(f"{PATH}/clock", json=how)
    assert answer.status_code == 200, answer.data
    body: dict[str, Any] = answer.get_json()
    return body


def test_moving_the_clock_moves_presence_in_all_workers(
    graph: Graph, workers: tuple[FlaskClient, FlaskClient], alice: str, bot: Application
) -> None:
    elsewhere = Graph(workers[1], graph.clock)
    graph.shows(alice, bot, AVAILABLE)
    assert moved(graph.client, advance="PT4M59.999999S")["now"] == "2026-03-02T08:04:59.999999+00:00"
    assert elsewhere.presence_of(alice, bot) == AVAILABLE
    moved(graph.client, advance="PT0.000001S")
    assert elsewhere.reads(alice, bot).get_json()["activity"] == "AvailableInactive"
    moved(workers[1], advance="PT5M")
    assert graph.presence_of(alice, bot) == AWAY
    moved(workers[1], now="2026-03-02T09:00:00Z")
    assert graph.presence_of(alice, bot) == OFFLINE
    assert graph.client.get(f"{PATH}/clock").get_json() == {"now": "2026-03-02T09:00:00+00:00", "frozen": True}


def test_tokens_follow_the_clock(graph: Graph, alice: str, bot: Application) -> None:
    moved(graph.client, advance="P366D")
    assert_error(graph.reads(alice, bot), 401, "InvalidAuthenticationToken", "expired")
    moved(graph.client, advance="-P366D")
    assert graph.reads(alice, bot).status_code == 200


def test_a_clock_that_is_not_frozen_goes_on(graph: Graph) -> None:
    moved(graph.client, frozen=False)
    first = datetime.fromisoformat(moved(graph.client, advance="PT1H")["now"])
    second = datetime.fromisoformat(graph.client.get(f"{PATH}/clock").get_json()["now"])
    assert timedelta(0) < second - first < timedelta(minutes=1)
    assert NOW + timedelta(hours=1) < first < NOW + timedelta(hours=1, minutes=1)


def test_no_reader_ever_sees_half_a_move(tmp_path: Path) -> None:
    written, read = (MovableClock(SharedPage(tmp_path / "page")) for _ in range(2))
    moments = [NOW, NOW + timedelta(days=36_500)]
    written.set(NOW, frozen=True)

    def move() -> None:
        for turn in range(2_000):
            written.set(moments[turn % 2], frozen=True)

    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(move)
        while not moving.done():
            assert read() in moments
    read.reset()
    assert abs(written() - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({}, "[Advance], [Now], [Frozen]"),
        ({"advance": "PT5M", "now": "2026-01-01T00:00:00Z"}, "[Advance], [Now]"),
        ({"advance": "1:00:00"}, "[Advance]"),
        ({"advance": 5}, "[Advance]"),
        ({"advance": "P999999999D"}, "[Advance]: the sum must be a moment from 1970 to 2199"),
        ({"advance": "-P56Y2M"}, "[Advance]"),
        ({"advance": "-P20515D"}, "[Advance]: the sum"),
        ({"now": "noon"}, "[Now]"),
        ({"now": 5}, "[Now]"),
        ({"now": "1969-12-31T23:59:59.999999Z"}, "[Now]: must be a moment from 1970 to 2199"),
        ({"now": "2200-01-01T00:00:00Z"}, "[Now]: must be a moment from 1970 to 2199"),
        ({"frozen": "yes"}, "[Frozen]"),
    ],
)
def test_a_move_that_makes_no_sense_is_400(graph: Graph, how: object, named: str) -> None:
    assert_error(graph.client.post(f"{PATH}/clock", json=how), 400, "InvalidArgument", named)
    assert graph.client.get(f"{PATH}/clock").get_json()["now"] == NOW.isoformat()


def seeded(tenant_id: str, user_id: str, session_id: str, **changed: str) -> dict[str, str]:
    session = {"availability": "Busy", "activity": "InACall", "expirationDuration": "PT2H", **changed}
    return {"tenantId": tenant_id, "userId": user_id, "sessionId": session_id, **session}


def test_a_seed_sets_sessions_of_any_application(graph: Graph, alice: str, bot: Application) -> None:
    sessions = [seeded(graph.tenant_id, alice, new_id()), seeded(graph.tenant_id, new_id(), bot.app_id)]
    assert_ok(graph.client.post(f"{PATH}/seed", json={"sessions": sessions}))
    assert graph.presence_of(alice, bot) == IN_A_CALL
    assert_error(graph.clears(alice, bot), 404, "NotFound")


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"activity": "Lunch"}, "[Sessions.1]: availability and activity must be one of"),
        ({"userId": "bob"}, "[Sessions.1.UserId]"),
        ({"expirationDuration": "1:00:00"}, "[Sessions.1.ExpirationDuration]"),
        ({"expirationDuration": "-PT1H"}, "[Sessions.1]: expirationDuration"),
        ({"expirationDuration": "PT4M59.999999S"}, "[Sessions.1]: expirationDuration"),
        ({"expirationDuration": "PT4H0.000001S"}, "[Sessions.1]: expirationDuration"),
    ],
)
def test_a_seed_with_a_fault_in_it_sets_nothing(
    graph: Graph, alice: str, bot: Application, bad: dict[str, str], named: str
) -> None:
    sessions = [seeded(graph.tenant_id, alice, new_id()), seeded(graph.tenant_id, alice, new_id(), **bad)]
    answer = graph.client.post(f"{PATH}/seed", json={"sessions": sessions})
    assert_error(answer, 400, "InvalidArgument", named)
    assert graph.presence_of(alice, bot) == OFFLINE


@pytest.mark.parametrize(("body", "named"), [({}, "[Sessions]"), ({"sessions": []}, "[Sessions]")])
def test_a_seed_of_nothing_is_400(graph: Graph, body: object, named: str) -> None:
    assert_error(graph.client.post(f"{PATH}/seed", json=body), 400, "InvalidArgument", named)


def test_a_snapshot_brings_rows_and_time_back(graph: Graph, alice: str, bot: Application) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    before = graph.reads(alice, bot).get_json()
    kept = graph.client.get(f"{PATH}/snapshot").get_json()
    moved(graph.client, advance="PT30M")
    graph.clears(alice, bot)
    graph.shows(new_id(), bot, AWAY)
    assert_ok(graph.client.put(f"{PATH}/snapshot", json=kept))
    assert graph.reads(alice, bot).get_json() == before
    assert graph.client.get(f"{PATH}/snapshot").get_json() == kept


@pytest.mark.parametrize(
    "changed",
    [
        {"tables": {}},
        {"tables": {"sqlite_master": [{}]}},
        {"tables": {"presence_session": [{"x": 1}]}},
        {"tables": {"directory_user": [{**USER_ROW, "display_name": {}}]}},
        {"tables": {"directory_user": [{**USER_ROW, "display_name": None}]}},
        {"tables": {"directory_user": [{**USER_ROW, "tenant_id": 10**30}]}},
        {"tables": {"directory_user": [USER_ROW, USER_ROW]}},
        {"tables": {"directory_user": [USER_ROW, {}]}},
        {"now": "x"},
        {"now": "9999-12-31T00:00:00Z"},
        {"frozen": "x"},
    ],
    ids=str,
)
def test_a_snapshot_that_is_none_changes_nothing(
    graph: Graph, alice: str, bot: Application, changed: dict[str, object]
) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    kept = graph.client.get(f"{PATH}/snapshot").get_json()
    answer = graph.client.put(f"{PATH}/snapshot", json={**kept, **changed})
    assert_error(answer, 400, "InvalidArgument", *(f"[{name.capitalize()}]" for name in changed))
    assert graph.presence_of(alice, bot) == IN_A_CALL


def test_reset_forgets_everything(graph: Graph, alice: str, bot: Application) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    graph.client.post(f"{PATH}/faults", json={"status": 503})
    assert_ok(graph.client.post(f"{PATH}/reset"))
    assert graph.client.get(f"{PATH}/faults").get_json() == {"value": []}
    assert not graph.client.get(f"{PATH}/clock").get_json()["frozen"]
    assert all(rows == [] for rows in graph.client.get(f"{PATH}/snapshot").get_json()["tables"].values())


# Faults


def test_the_next_requests_that_match_fail_and_no_others(
    graph: Graph, workers: tuple[FlaskClient, FlaskClient], alice: str, bot: Application
) -> None:
    fault = {"path": "*/clearPresence", "method": "post", "times": 2, "status": 429, "retryAfter": 7}
    assert_ok(workers[1].post(f"{PATH}/faults", json=fault))
    assert_ok(graph.shows(alice, bot, IN_A_CALL))
    for client in workers:
        answer = Graph(client, graph.clock).clears(alice, bot)
        assert_error(answer, 429, "TooManyRequests")
        assert answer.headers["Retry-After"] == "7"
    assert_ok(graph.clears(alice, bot))


@pytest.mark.parametrize("pattern", ["/users/*/clearPresence", "/v1.0/users/*", "*"])
def test_the_mount_need_not_be_in_the_pattern(graph: Graph, alice: str, bot: Application, pattern: str) -> None:
    assert_ok(graph.client.post(f"{PATH}/faults", json={"path": pattern, "status": 503}))
    assert_error(graph.clears(alice, bot), 503, "ServiceUnavailable")


@pytest.mark.parametrize("pattern", ["/beta/users/*", "users/*", "/presence/clearPresence"])
def test_another_path_meets_no_fault(graph: Graph, alice: str, bot: Application, pattern: str) -> None:
    assert_ok(graph.client.post(f"{PATH}/faults", json={"path": pattern, "status": 503}))
    assert graph.clears(alice, bot).status_code == 404


def test_a_request_of_a_batch_meets_a_fault_as_it_would_alone(graph: Graph, alice: str, bot: Application) -> None:
    graph.client.post(f"{PATH}/faults", json={"path": "*/clearPresence", "status": 429, "retryAfter": 7})
    path, body = f"users('{alice}')/presence/microsoft.graph.clearPresence", {"sessionId": bot.app_id}
    clear = {"method": "POST", "url": path, "headers": {"content-type": "application/json"}, "body": body}
    answer = graph.post(bot, "/$batch", {"requests": [{"id": "1", **clear}, {"id": "2", **clear}]})
    first, second = answer.get_json()["responses"]
    assert (first["status"], first["headers"]["Retry-After"]) == (429, "7")
    assert second["status"] == 404


def test_a_lost_answer_is_lost_after_all_was_done(graph: Graph, alice: str, bot: Application) -> None:
    graph.client.post(f"{PATH}/faults", json={"loseAnswer": True})
    assert graph.shows(alice, bot, IN_A_CALL).status_code == 500  # there is no connection to drop here
    assert graph.presence_of(alice, bot) == IN_A_CALL


def test_a_delay_delays_and_then_all_is_well(graph: Graph, alice: str, bot: Application) -> None:
    assert_ok(graph.client.post(f"{PATH}/faults", json={"delay": "PT0.001S"}))
    assert graph.client.get(f"{PATH}/faults").get_json() == {
        "value": [{"delay": "PT0.001000S", "path": "*", "times": 1}]
    }
    assert graph.presence_of(alice, bot) == OFFLINE
    assert graph.client.get(f"{PATH}/faults").get_json() == {"value": []}


def test_faults_can_be_taken_back(graph: Graph, alice: str, bot: Application) -> None:
    graph.client.post(f"{PATH}/faults", json={"status": 500, "times": 9})
    assert_ok(graph.client.delete(f"{PATH}/faults"))
    assert graph.presence_of(alice, bot) == OFFLINE


def test_one_fault_meets_one_request_of_many_at_once(graph: Graph, alice: str, bot: Application) -> None:
    graph.client.post(f"{PATH}/faults", json={"status": 503, "times": 5})
    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(graph.reads, alice, bot) for _ in range(24)]
    assert sorted(read.result().status_code for read in reads) == [200] * 19 + [503] * 5


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ({}, "exactly one"),
        ({"status": 429, "delay": "PT1S"}, "exactly one"),
        ({"status": 200}, "[Status]"),
        ({"status": "429"}, "[Status]"),
        ({"delay": "PT2M"}, "[Delay]"),
        ({"delay": "soon"}, "[Delay]"),
        ({"delay": 5}, "[Delay]"),
        ({"status": 429, "method": "PEEK"}, "[Method]"),
        ({"status": 429, "times": 0}, "[Times]"),
        ({"status": 429, "retryAfter": -1}, "[RetryAfter]"),
        ({"status": 429, "path": None}, "[Path]"),
    ],
)
def test_a_fault_that_makes_no_sense_is_400(graph: Graph, fault: object, named: str) -> None:
    assert_error(graph.client.post(f"{PATH}/faults", json=fault), 400, "InvalidArgument", named)
    assert graph.client.get(f"{PATH}/faults").get_json() == {"value": []}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "clock"), ("POST", "clock"), ("POST", "reset"), ("GET", "snapshot"), ("POST", "faults"), ("POST", "seed")],
)
def test_production_has_no_controls(settings: Settings, method: str, path: str) -> None:
    production = settings.model_copy(
        update={"presence_env": "production", "auth_tenants": (new_id(),), "auth_audiences": ("x",)}
    )
    app = create_app(production)
    answer = app.test_client().open(f"{PATH}/{path}", method=method, data=json.dumps({}))
    assert_error(answer, 404, "ResourceNotFound")
    app.extensions["engine"].dispose()
