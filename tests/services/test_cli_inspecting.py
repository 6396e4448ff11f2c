"""The commands that look at a user and at the store, the doctor, and the ones that carry it all away."""

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from alembic import command
from click.testing import Result
from flask import Flask
from sqlalchemy import URL

from app import cli
from app.cli import doctor, inspecting
from app.cli.doctor import examine
from app.cli.inspecting import account
from app.domain.directory import User
from app.domain.explain_text import text_of
from app.domain.values import AVAILABLE, AWAY, IN_A_CALL, PRESENTING
from app.services.inspection import InspectionService
from tests.builders import Application, Clock, Graph, new_id
from tests.conftest import alembic_config
from tests.servers import free_port, run
from tests.unit.test_keys import serving

Typed = Callable[..., Result]


@pytest.fixture
def typed(flask_app: Flask, graph: Graph) -> Typed:
    """Run `flask presence` with some words about the tenant's users."""

    def invoke(*words: str, given: str | None = None) -> Result:
        return flask_app.test_cli_runner().invoke(cli.commands, words, input=given)

    return invoke


@pytest.fixture
def of_tenant(graph: Graph) -> tuple[str, str]:
    return ("--tenant", graph.tenant_id)


def told(done: Result) -> Any:
    """What a command printed as JSON."""
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def lines(done: Result) -> list[Any]:
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def knows(flask_app: Flask, tenant_id: str, user_id: str, name: str) -> None:
    """Let the directory know a user."""
    service = flask_app.extensions["wiring"].directory
    list(service.import_users(tenant_id, [User(user_id, name, name)]))


def test_explain_prints_the_explanation(
    flask_app: Flask, typed: Typed, graph: Graph, alice: str, bot: Application, desk: Application, of_tenant: Any
) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    graph.shows(alice, desk, AWAY)
    service: InspectionService = flask_app.extensions["inspection"]
    expected = service.explain(graph.tenant_id, alice)
    done = typed("explain", alice.upper(), *of_tenant)
    assert (done.exit_code, done.stdout) == (0, text_of(expected, alice) + "\n")
    assert done.stdout.startswith(f"{alice} shows Busy/InACall at 2026-03-02 08:00:00 UTC.\n")
    said = told(typed("explain", alice, "--json", *of_tenant))
    assert (said["user"], said["now"], said["availability"], said["rule"], said["preference"], said["preferred"]) == (
        alice, "2026-03-02T08:00:00Z", "Busy", "mostSignificant", "notSet", None,
    )  # fmt: skip
    assert [(each["app"], each["wins"]) for each in said["sessions"]] == [(bot.app_id, True), (desk.app_id, False)]
    assert said["sessions"][0]["ahead"] == [
        {"at": "2026-03-02T09:00:00Z", "availability": "Offline", "activity": "Offline"}
    ]
    assert [change["at"] for change in said["ahead"]] == ["2026-03-02T09:00:00Z"]
    assert [event["app"] for event in said["history"]] == [desk.app_id, bot.app_id]


def test_a_user_goes_by_id_or_by_a_name_that_the_directory_knows(
    flask_app: Flask, typed: Typed, graph: Graph, alice: str, bot: Application, of_tenant: Any, monkeypatch: Any
) -> None:
    knows(flask_app, graph.tenant_id, alice, "alice@contoso.com")
    graph.shows(alice, bot, IN_A_CALL)
    for asked in ("ALICE@contoso.com", alice):
        assert typed("show", asked, *of_tenant).stdout == f"alice@contoso.com ({alice}): Busy/InACall\n"
    monkeypatch.setattr(flask_app.extensions["wiring"].directory, "_everybody", False)  # as in production
    nobody = new_id()
    assert typed("show", nobody, *of_tenant).stdout == f"{nobody}: Offline/Offline\n"
    for words in (("explain",), ("show",), ("history",), ("clear",)):
        done = typed(*words, "bob@contoso.com", *([bot.app_id] if words == ("clear",) else []), *of_tenant)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == f"Error: The directory of tenant {graph.tenant_id} has no user 'bob@contoso.com'.\n"
    assert typed("sessions", "--user", "bob@contoso.com", *of_tenant).exit_code == 1


def test_show_prints_what_everybody_sees(
    typed: Typed, graph: Graph, alice: str, bot: Application, of_tenant: Any
) -> None:
    graph.shows(alice, bot, PRESENTING)
    path = f"/users/{alice}/presence"
    graph.post(bot, f"{path}/setStatusMessage", {"statusMessage": {"message": {"content": "In the lab"}}})
    graph.post(bot, f"{path}/setManualLocation", {"workLocationType": "office", "placeId": None})
    assert typed("show", alice, *of_tenant).stdout.splitlines() == [
        f"{alice}: DoNotDisturb/Presenting",
        "Status message: In the lab",
        "Work location: office, manual",
    ]
    answer = graph.reads(alice, bot).get_json()
    answer.pop("@odata.context")
    assert told(typed("show", alice, "--json", *of_tenant)) == answer


def test_sessions_are_listed_by_user_and_by_app(
    typed: Typed, graph: Graph, clock: Clock, bot: Application, desk: Application, of_tenant: Any, monkeypatch: Any
) -> None:
    users = sorted(new_id() for _ in range(3))
    for user in users:
        graph.shows(user, bot, AVAILABLE)
        graph.shows(user, desk, AWAY)
    clock.move(minutes=5)
    monkeypatch.setattr(inspecting, "AT_ONCE", 2)
    head, *rows = typed("sessions", *of_tenant, "--most", "0").stdout.splitlines()
    assert head.split() == ["tenant", "user", "app", "shows", "last", "set", "(UTC)", "ends", "(UTC)"]
    assert [row.split()[1] for row in rows] == sorted(users * 2)
    assert all(row.endswith("2026-03-02 08:00:00  2026-03-02 09:00:00") for row in rows)
    by_app = lines(typed("sessions", "--app", bot.app_id, "--json", *of_tenant))
    assert [(found["user"], found["shows"]["activity"]) for found in by_app] == [
        (user, "AvailableInactive") for user in users
    ]
    assert by_app[0]["setTo"] == AVAILABLE._asdict()
    assert {found["app"] for found in lines(typed("sessions", "--user", users[0], "--json", *of_tenant))} == {
        bot.app_id,
        desk.app_id,
    }
    assert len(lines(typed("sessions", "--most", "3", "--json", *of_tenant))) == 3
    assert len(lines(typed("sessions", "--app", desk.app_id, "--json"))) == 3


# clear


def test_clear_asks_ends_the_session_and_leaves_who_did_it(
    typed: Typed, graph: Graph, alice: str, bot: Application, desk: Application, of_tenant: Any
) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    graph.shows(alice, desk, AWAY)
    words = ("clear", alice, bot.app_id, *of_tenant)
    for answer in ("n\n", ""):
        done = typed(*words, given=answer)
        assert done.exit_code == 1
        assert f"End the session of app {bot.app_id} for {alice}, set to Busy/InACall? [y/N]" in done.output
        assert graph.presence_of(alice, bot) == IN_A_CALL
    done = typed(*words, given="y\n")
    assert (done.exit_code, done.stdout) == (0, "Ended. The sessions that remain add up to Away/Away.\n")
    assert graph.presence_of(alice, bot) == AWAY
    newest = lines(typed("history", alice, "--most", "1", "--json", *of_tenant))[0]
    assert (newest["kind"], newest["app"], newest["actor"]) == ("cleared", bot.app_id, account())
    done = typed(*words, "--yes")
    assert (done.exit_code, done.stderr) == (1, f"Error: {alice} has no live session of app {bot.app_id}.\n")
    words = ("clear", alice, desk.app_id, "--yes", "--json", "--as", "eve", *of_tenant)
    assert told(typed(*words)) == {
        "user": alice,
        "app": desk.app_id,
        "availability": "Offline",
        "activity": "Offline",
    }
    assert "eve ended the session of app" in typed("history", alice, *of_tenant).stdout.splitlines()[0]


def test_who_clears_has_a_printable_name(
    typed: Typed, graph: Graph, alice: str, bot: Application, of_tenant: Any
) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    done = typed("clear", alice, bot.app_id, "--yes", "--as", "a\nb", *of_tenant)
    assert done.exit_code == 2
    assert "--as: who does it must be 1 to 256 printable characters" in done.stderr
    assert graph.presence_of(alice, bot) == IN_A_CALL


def test_a_session_that_ends_while_it_is_asked_for_is_1(
    flask_app: Flask, typed: Typed, graph: Graph, alice: str, bot: Application, of_tenant: Any, monkeypatch: Any
) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    monkeypatch.setattr(click, "confirm", lambda *_, **__: graph.clears(alice, bot))
    done = typed("clear", alice, bot.app_id, *of_tenant)
    assert (done.exit_code, done.stderr) == (1, "Error: It ended by itself meanwhile.\n")


def test_the_account_is_of_who_called_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "root")
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert account() == "cli:root"
    monkeypatch.setenv("SUDO_USER", "eve")
    assert account() == "cli:eve"


# history and stats


def test_history_goes_back_from_a_moment(
    typed: Typed, graph: Graph, clock: Clock, alice: str, bot: Application, of_tenant: Any
) -> None:
    for shown in (AWAY, IN_A_CALL, PRESENTING):
        graph.shows(alice, bot, shown)
        clock.move(minutes=1)
    assert typed("history", alice, *of_tenant).stdout.splitlines() == [
        f"2026-03-02 08:02:00  app {bot.app_id} set its session to DoNotDisturb/Presenting",
        f"2026-03-02 08:01:00  app {bot.app_id} set its session to Busy/InACall",
        f"2026-03-02 08:00:00  app {bot.app_id} set its session to Away/Away",
    ]
    for before in ("2026-03-02T08:02:00Z", "2026-03-02 08:01:59.5", "2026-03-02T09:02:00+01:00"):
        found = lines(typed("history", alice, "--most", "1", "--before", before, "--json", *of_tenant))
        assert [event["activity"] for event in found] == ["InACall"]
    assert (found[0]["at"], found[0]["expiresAt"]) == ("2026-03-02T08:01:00Z", "2026-03-02T09:01:00Z")


def test_stats_prints_figures(
    typed: Typed, graph: Graph, clock: Clock, alice: str, bot: Application, desk: Application, of_tenant: Any
) -> None:
    for user in (alice, new_id(), new_id()):
        graph.shows(user, bot, IN_A_CALL)
    graph.shows(alice, desk, PRESENTING)
    clock.move(minutes=1)
    assert typed("stats", *of_tenant).stdout == (
        "4 live sessions\n"
        "\nUsers with a live session, by what they show\n"
        "          2  Busy\n"
        "          1  DoNotDisturb\n"
        "\nSessions by application\n"
        f"          3  {bot.app_id}\n"
        f"          1  {desk.app_id}\n"
        "\nEvents in the last 60 full minutes\n"
        "        0.1  a minute\n"
        "          4  in the busiest one, 2026-03-02 08:00:00 UTC\n"
    )
    said = told(typed("stats", "--json", *of_tenant))
    assert (said["liveSessions"], said["estimatedFrom"], said["eventsPerMinute"]) == (4, None, 0.1)
    assert said["sessionsByApp"] == {bot.app_id: 3, desk.app_id: 1}
    assert said["minutes"][-1] == {"at": "2026-03-02T08:00:00Z", "events": 4}


def test_stats_names_the_applications_with_the_most_sessions(
    typed: Typed, graph: Graph, alice: str, of_tenant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspecting, "MOST_APPS", 2)
    for _ in range(4):
        graph.shows(alice, graph.app(), AWAY)
    assert "and 2 others: --json has them" in typed("stats", *of_tenant).stdout


# doctor


def of_doctor(*words: str, **environment: str) -> tuple[int, dict[str, list[str]]]:
    """Its exit status, and its lines by what they are about."""
    done = run("python", "-m", "app.cli", "doctor", *words, **environment)
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        state, check, said = re.split(r" {2,}", line, maxsplit=2)
        found.setdefault(check, []).append(f"{state} {said}")
    return done.returncode, found


def test_a_doctor_of_a_service_that_does_not_start_says_why(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new.sqlite3"
    status, found = of_doctor(DATABASE_URL=url, WEB_THREADS="many")
    assert status == 1
    assert found["configuration"][0].startswith("FAULT WEB_THREADS: ")
    assert found["database"] == [f"FAULT there is no {tmp_path}/new.sqlite3 yet: run alembic upgrade head"]
    assert found["keys"] == ["- not looked at: the configuration comes first"]
    assert not (tmp_path / "new.sqlite3").exists()
    done = run("python", "-m", "app.cli", "stats", DATABASE_URL=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: AUTH_TENANTS must be set in production")
    assert done.stderr.endswith("`python -m app.cli doctor` looks at all of it.\n")


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True, scope="session")
def test_a_doctor_of_a_sound_service_finds_all_well(database: URL, jwks_file: Path) -> None:
    sound = {
        "DATABASE_URL": database.render_as_string(hide_password=False),
        "AUTH_TENANTS": new_id(),
        "AUTH_AUDIENCES": "api://presence.example",
        "AUTH_JWKS_URI": str(jwks_file),
    }
    status, found = of_doctor(**sound)
    assert status == 0, found
    assert {check: [line.split()[0] for line in said] for check, said in found.items()} == {
        check: ["ok"] for check in ("configuration", "database", "migrations", "clock", "keys")
    }
    assert found["keys"] == [f"ok 1 at {jwks_file}"]
    done = run("flask", "--app", "wsgi", "presence", "doctor", "--json", **sound)
    assert done.returncode == 0
    assert [finding["ok"] for finding in json.loads(done.stdout)] == [True] * 5


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, database: URL) -> Callable[..., dict[str, doctor.Finding]]:
    """What the doctor finds in a development environment with some settings of its own."""

    def found(**settings: str) -> dict[str, doctor.Finding]:
        given = {"PRESENCE_ENV": "development", "DATABASE_URL": database.render_as_string(hide_password=False)}
        for name, value in {**given, **settings}.items():
            monkeypatch.setenv(name, value)
        return {finding.check: finding for finding in examine()}

    return found


Environment = Callable[..., dict[str, doctor.Finding]]


def test_a_database_that_was_not_migrated_is_found(make_database: Callable[[], URL], environment: Environment) -> None:
    url = make_database()
    command.upgrade(alembic_config(url), "head")
    command.downgrade(alembic_config(url), "0001")
    found = environment(DATABASE_URL=url.render_as_string(hide_password=False))
    assert found["database"].ok
    assert not found["migrations"].ok
    assert found["migrations"].said.startswith("The database is at revision 0001, not at ")
    assert found["keys"].said == "the development issuer's own"


def test_a_database_that_is_not_there_is_found_and_no_password_is_told(environment: Environment) -> None:
    url = f"postgresql://presence:hidden@127.0.0.1:{free_port()}/presence"
    finding = environment(DATABASE_URL=url)["database"]
    assert finding.ok is False
    assert "does not answer" in finding.said
    assert "hidden" not in finding.said
    assert environment(DATABASE_URL="mysql://x")["database"].said.endswith("must begin with sqlite:// or postgresql://")


def test_keys_that_cannot_be_had_are_found(environment: Environment, tmp_path: Path) -> None:
    found = environment(AUTH_JWKS_URI=f"http://127.0.0.1:{free_port()}/keys")
    assert not found["keys"].ok
    assert "look at AUTH_JWKS_URI" in found["keys"].said
    (tmp_path / "keys.json").write_text('{"keys": []}')
    assert "no RSA key" in environment(AUTH_JWKS_URI=str(tmp_path / "keys.json"))["keys"].said


def test_clocks_that_are_apart_are_found(
    environment: Environment, flask_app: Flask, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Behind(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz).replace(year=2020)

    monkeypatch.setattr(doctor, "datetime", Behind)
    clock = environment()["clock"]
    if kind == "postgresql":
        assert not clock.ok
        assert re.fullmatch(r"the database's is \d+\.\d s ahead of this machine's, .* let both follow NTP", clock.said)
    else:
        assert clock == ("clock", True, "SQLite has this machine's")


def test_the_issuers_clock_is_compared(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as (base, _):
        assert environment(AUTH_JWKS_URI=f"{base}/keys")["clock"].said.startswith("the issuer's is ")
        assert environment()["clock"].ok
        monkeypatch.setattr(doctor, "SKEW", timedelta(seconds=-1))
        assert environment()["clock"].ok is False


# export, import, completion


def test_what_is_exported_is_imported(
    typed: Typed, graph: Graph, alice: str, bot: Application, of_tenant: Any, tmp_path: Path
) -> None:
    file = tmp_path / "presence.jsonl"
    graph.shows(alice, bot, IN_A_CALL)
    done = typed("export", str(file), *of_tenant)
    assert (done.exit_code, done.output) == (0, "")
    head, *_, last = [json.loads(line) for line in file.read_text().splitlines()]
    assert head == {"format": "graph-presence", "version": 1, "at": "2026-03-02T08:00:00Z", "tenant": graph.tenant_id}
    assert last == {"rows": 2}
    assert typed("export", *of_tenant).stdout == file.read_text()
    done = typed("import", str(file))
    assert done.stdout == "Read 2 rows; written: 0 into presence_session, 0 into presence_event.\n"
    assert told(typed("import", "-", "--json", given=file.read_text()))["rows"] == 2


def test_a_file_that_is_no_export_is_1(typed: Typed, tmp_path: Path) -> None:
    file = tmp_path / "presence.jsonl"
    file.write_text("{}\n")
    done = typed("import", str(file))
    assert done.exit_code == 1
    assert f'Error: {file}: line 1: should begin with {{"format"' in done.stderr
    file.write_bytes(b"\xff")
    assert "cannot be read as UTF-8" in typed("import", str(file)).stderr
    assert "cannot be written" in typed("export", str(tmp_path / "nowhere" / "file")).stderr


def test_flask_completes_commands_and_options(tmp_path: Path) -> None:
    given = {"PRESENCE_ENV": "development", "FLASK_APP": "wsgi", "_FLASK_COMPLETE": "bash_complete"}
    given |= {"DATABASE_URL": f"sqlite:///{tmp_path}/new.sqlite3", "COMP_CWORD": "3"}
    found = run("flask", COMP_WORDS="flask presence clear --", **given).stdout.splitlines()
    assert set(found) >= {"plain,--yes", "plain,--tenant", "plain,--json"}
