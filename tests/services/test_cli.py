"""The operator's commands, as they are typed."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import pytest
from click.testing import Result
from flask import Flask
from werkzeug.security import check_password_hash

from app import cli
from app.cli import progress
from app.db.store import StoreUnavailable
from app.domain.directory import User
from app.domain.values import IN_A_CALL, derived_user_id
from app.services.directory import DirectoryService, UserNotFound
from config import Settings, load
from tests.builders import Application, Clock, Graph, new_id
from tests.servers import run

Typed = Callable[..., Result]
ADELE = "22553876-f5ab-4529-bffb-cfe50aa89f87"


@pytest.fixture
def typed(flask_app: Flask, clock: Clock) -> Typed:
    """Run `flask presence` with some words, and perhaps with something on standard input."""

    def invoke(*words: str, given: str | None = None) -> Result:
        return flask_app.test_cli_runner().invoke(cli.commands, words, input=given)

    return invoke


@pytest.fixture
def tenant() -> str:
    return new_id()


@pytest.fixture
def users(flask_app: Flask, tenant: str) -> Callable[[], dict[str, tuple[str, str]]]:
    """The tenant's directory: (id, displayName) by userPrincipalName."""
    service: DirectoryService = flask_app.extensions["wiring"].directory

    def read() -> dict[str, tuple[str, str]]:
        found = [service.find(tenant, user_id) for user_id in service._store.names(tenant).values()]
        return {user.user_principal_name: (user.user_id, user.display_name) for user in found}

    return read


Users = Callable[[], dict[str, tuple[str, str]]]


# import-users


def test_csv_as_the_portal_exports_it_is_imported(typed: Typed, tenant: str, users: Users, tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    file.write_text(
        "\ufeffuserPrincipalName,displayName,surname,id\r\n"
        f'Adele@contoso.com,"Vance, Adele",Vance,{ADELE.upper()}\r\n'
        "alex@contoso.com,,,\r\n"
        'eve@contoso.com,"Eve\r\n, in two lines","",\r\n',
        encoding="utf-8",
        newline="",
    )
    done = typed("import-users", str(file), "--tenant", tenant.upper())
    assert (done.exit_code, done.output) == (1, done.output)
    assert "users.csv:5: displayName: must be 256 characters or fewer, none of them a control character" in done.stderr
    assert users() == {}
    done = typed("import-users", str(file), "--tenant", tenant, "--keep-going")
    assert (done.exit_code, done.stdout) == (1, "Imported 2 users.\n")
    assert done.stderr.endswith("Error: Left out 1 bad row.\n")
    assert users() == {
        "Adele@contoso.com": (ADELE, "Vance, Adele"),
        "alex@contoso.com": (derived_user_id(tenant, "alex@contoso.com"), "alex@contoso.com"),
    }


def test_json_lines_are_imported_in_place_of_what_was_there(typed: Typed, tenant: str, users: Users) -> None:
    first = [{"id": ADELE, "userPrincipalName": "adele@contoso.com"}, {"userPrincipalName": "alex@contoso.com"}]
    second = [{"id": ADELE, "userPrincipalName": "vance@contoso.com", "displayName": "Ädele 🚆", "mail": None}]
    for rows, said in ((first, "Imported 2 users.\n"), (second, "Imported 1 user.\n")):
        done = typed("import-users", "-", "--tenant", tenant, given="\n".join(map(json.dumps, rows)) + "\n\n")
        assert (done.exit_code, done.output) == (0, said)
    assert users() == {
        "vance@contoso.com": (ADELE, "Ädele 🚆"),
        "alex@contoso.com": (derived_user_id(tenant, "alex@contoso.com"), "alex@contoso.com"),
    }


def test_bad_rows_are_all_named_and_nothing_is_written(typed: Typed, tenant: str, users: Users) -> None:
    rows = [
        '{"userPrincipalName": "good@contoso.com"}',
        '{"userPrincipalName": "GOOD@contoso.com", "id": "22553876-f5ab-4529-bffb-cfe50aa89f87"}',
        '{"userPrincipalName": "Good@Contoso.com"}',
        '{"userPrincipalName": "no name"}',
        '{"displayName": "nobody"}',
        '{"userPrincipalName": "x@contoso.com", "id": "{22553876-f5ab-4529-bffb-cfe50aa89f87}"}',
        '{"userPrincipalName": 7}',
        '["userPrincipalName"]',
        "{",
        "",
        '{"userPrincipalName": "\\u0000@contoso.com"}',
        '{"userPrincipalName": "y@contoso.com", "displayName": "\\ud800"}',
        '{"userPrincipalName": "z@contoso.com", "displayName": "' + "z" * 257 + '"}',
    ]
    done = typed("import-users", "-", "--tenant", tenant, given="\n".join(rows))
    assert done.exit_code == 1
    assert done.stdout == ""
    derived = derived_user_id(tenant, "good@contoso.com")
    assert done.stderr.splitlines() == [
        "-:2: userPrincipalName: good@contoso.com is on line 1 already",
        f"-:3: id: {derived} is on line 1 already",
        "-:4: userPrincipalName: must be a name such as adele@contoso.com, got 'no name'",
        "-:5: userPrincipalName: must be a name such as adele@contoso.com, got ''",
        f"-:6: id: must be a GUID such as {ADELE}, got '{{{ADELE}}}'",
        "-:7: userPrincipalName: must be text, got 7",
        "-:8: must be a JSON object",
        "-:9: must be a JSON object",
        "-:11: userPrincipalName: must be a name such as adele@contoso.com, got '\\x00@contoso.com'",
        "-:12: displayName: must be 256 characters or fewer, none of them a control character",
        "-:13: displayName: must be 256 characters or fewer, none of them a control character",
        "Error: Nothing was imported: 11 bad rows, 1 good.",
    ]
    assert users() == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("upn,name\na@b,c\n", "- has no column userPrincipalName, only upn, name."),
        ("", "- has no column userPrincipalName, only none."),
        ("userPrincipalName\na@b,c\n", "-:2: has more cells than the header has names"),
        (
            'userPrincipalName\n"a"b@c\nd@e\n',
            "-:2: is no CSV: ',' expected after '\"'; nothing after it was read",
        ),
    ],
)
def test_what_is_no_list_of_users_is_refused(typed: Typed, tenant: str, users: Users, text: str, said: str) -> None:
    done = typed("import-users", "-", "--tenant", tenant, given=text)
    assert done.exit_code == 1
    assert said in done.stderr
    assert users() == {}


def test_a_file_in_another_encoding_is_refused(typed: Typed, tenant: str, tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    file.write_bytes("userPrincipalName,displayName\nadele@contoso.com,Ädele\n".encode("latin-1"))
    done = typed("import-users", str(file), "--tenant", tenant)
    assert done.exit_code == 1
    assert "cannot be read as UTF-8" in done.stderr


def listed(**ids: str) -> str:
    return "\n".join(json.dumps({"userPrincipalName": f"{name}@contoso.com", "id": ids[name]}) for name in ids)


def test_names_change_hands_within_a_file_but_are_not_taken_from_others(
    typed: Typed, tenant: str, users: Users
) -> None:
    a, b, c, d = (new_id() for _ in range(4))
    words = ("import-users", "-", "--tenant", tenant)
    typed(*words, given=listed(ann=a, bob=b, cat=c))
    assert typed(*words, given=listed(bob=a, ann=b)).exit_code == 0
    before = users()
    assert {name: user_id for name, (user_id, _) in before.items()} == {
        "bob@contoso.com": a,
        "ann@contoso.com": b,
        "cat@contoso.com": c,
    }
    chain = listed(bob=d, ann=a, cat=b)  # d needs a to give up bob, who needs b to give up ann, who cannot have cat
    done = typed(*words, "--keep-going", given=chain)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[:-1] == [
        f"-:1: userPrincipalName: bob@contoso.com is user {a}'s",
        f"-:2: userPrincipalName: ann@contoso.com is user {b}'s",
        f"-:3: userPrincipalName: cat@contoso.com is user {c}'s",
    ]
    assert users() == before


def test_several_imports_at_once_leave_each_name_with_one_user(flask_app: Flask, tenant: str, users: Users) -> None:
    service: DirectoryService = flask_app.extensions["wiring"].directory
    ids = [new_id() for _ in range(6)]

    def imports(turn: int) -> None:
        for step in range(10):
            turned = ids[(turn + step) % 6 :] + ids[: (turn + step) % 6]
            list(service.import_users(tenant, [User(one, f"user{n}@contoso.com", one) for n, one in enumerate(turned)]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(imports, range(4)))
    assert sorted(users()) == [f"user{n}@contoso.com" for n in range(6)]
    assert sorted(user_id for user_id, _ in users().values()) == sorted(ids)


def test_the_tenant_is_the_only_one_served_when_none_is_named(
    typed: Typed, tenant: str, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESENCE_ENV", "development")
    monkeypatch.setenv("AUTH_TENANTS", f"{tenant},{new_id()}")
    done = typed("import-users", "-", given=listed(ann=ADELE))
    assert done.exit_code == 2
    assert "--tenant" in done.stderr
    monkeypatch.setenv("AUTH_TENANTS", tenant)
    assert typed("import-users", "-", given=listed(ann=ADELE)).exit_code == 0
    assert users() == {"ann@contoso.com": (ADELE, "ann@contoso.com")}


@pytest.mark.parametrize(
    "words",
    [
        ("import-users",),
        ("import-users", "/nowhere.csv"),
        ("import-users", "-", "--tenant", "contoso.com"),
        ("sweep", "--keep-events", "1y"),
        ("sweep", "--keep-events", "P1Y"),
        ("sweep", "--batch", "0"),
        ("sweep", "now"),
    ],
)
def test_what_is_not_understood_is_2(typed: Typed, words: tuple[str, ...]) -> None:
    assert typed(*words).exit_code == 2


# sweep


def test_sweep_says_what_it_removed(typed: Typed, graph: Graph, clock: Clock, alice: str, bot: Application) -> None:
    clock.move(days=1)
    typed("sweep", "--keep-events", "0s")  # what other tests left
    graph.shows(alice, bot, IN_A_CALL, "PT5M")
    clock.move(hours=1)
    done = typed("sweep", "--batch", "3")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "Removed 1 expired session, " in done.stdout
    done = typed("sweep", "--keep-events", "59m")
    assert re.search(r" and [1-9]\d* old events?\.\n$", done.stdout)


# Both


@pytest.mark.parametrize("words", [("sweep",), ("import-users", "-", "--tenant", ADELE)])
def test_a_database_that_does_not_answer_is_1_and_a_line(
    typed: Typed, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    def gone(*_: object) -> None:
        raise StoreUnavailable from OSError("the server went away")

    monkeypatch.setattr("app.db.database.Database._cursor", gone)
    done = typed(*words, given='{"userPrincipalName": "a@b"}')
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "Error: The presence store did not answer: the server went away\n"


def test_a_database_that_was_not_migrated_is_1_and_says_what_to_do(tmp_path: Path) -> None:
    environment = {"PRESENCE_ENV": "development", "DATABASE_URL": f"sqlite:///{tmp_path}/new.sqlite3"}
    done = run("flask", "--app", "wsgi", "presence", "sweep", **environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip().endswith("run alembic upgrade head.")
    assert run("alembic", "upgrade", "head", **environment).returncode == 0
    done = run("flask", "--app", "wsgi", "presence", "sweep", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Removed 0 expired sessions")


def test_settings_that_do_not_hold_are_named_in_a_line() -> None:
    done = run("flask", "--app", "wsgi", "presence", "stats")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: AUTH_TENANTS must be set in production")
    assert "Traceback" not in done.stderr


def test_every_command_says_what_it_does_and_how_it_ends(typed: Typed) -> None:
    context = click.Context(cli.commands)
    for name in cli.commands.list_commands(context):
        said = typed(name, "--help")
        assert said.exit_code == 0
        assert "Exit status: 0" in said.stdout


def test_what_takes_long_tells_a_log_how_far_it_is(typed: Typed, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("import-users", "-", "--tenant", tenant)
    assert typed(*words, given=listed(ann=ADELE)).stderr == ""
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0)
    assert typed(*words, given=listed(ann=ADELE)).stderr.splitlines() == ["Reading rows: 1", "Importing users: 1 of 1"]


def test_what_takes_long_shows_a_bar_to_who_looks(typed: Typed, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")  # a dumb one can draw no bar, whoever looks
    done = typed("import-users", "-", "--tenant", tenant, given=listed(ann=ADELE))
    assert "Importing users" in done.stderr
    assert "1/1" in done.stderr
    assert "1 of 1" not in done.stderr
    assert done.stdout == "Imported 1 user.\n"


def test_a_production_directory_knows_only_whom_it_was_told_of(flask_app: Flask, typed: Typed, tenant: str) -> None:
    typed("import-users", "-", "--tenant", tenant, given=listed(ann=ADELE))
    service = DirectoryService(flask_app.extensions["wiring"].directory._store, everybody=False)
    assert service.find(tenant, "ANN@contoso.com") == service.find(tenant, ADELE.upper())
    for asked in ("bob@contoso.com", new_id(), "ann", "ann@contoso.com\x00"):
        with pytest.raises(UserNotFound):
            service.find(tenant, asked)
    with pytest.raises(UserNotFound):
        service.find(new_id(), ADELE)


# admin-user


def test_a_user_of_the_admin_site_is_printed_as_the_setting_takes_it(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = typed("admin-user", "olga", given="a long password\na long password\n")
    assert done.exit_code == 0
    account = done.stdout.splitlines()[-1]
    assert account.startswith("olga:scrypt:32768:8:1$")
    assert "a long password" not in done.output
    monkeypatch.setenv("PRESENCE_ENV", "development")
    monkeypatch.setenv("ADMIN_USERS", account)
    monkeypatch.setenv("ADMIN_SECRET_KEY", "s" * 32)
    (user,) = load(Settings).admin_users
    assert check_password_hash(user.password_hash, "a long password")


@pytest.mark.parametrize(("name", "password"), [("ol:ga", "a long password"), ("olga", "11 letters!")])
def test_a_name_or_password_that_will_not_do_is_refused(typed: Typed, name: str, password: str) -> None:
    assert typed("admin-user", name, given=f"{password}\n{password}\n").exit_code == 2
