"""What the documents say is what the code does."""

import json
import re
import runpy
import sys
from pathlib import Path

import click
import pytest
from flask import Flask

from app import cli
from app.api import batch, presence
from app.api.schemas import LONGEST_MESSAGE, MOST_IDS, MOST_IN_A_BATCH
from app.auth.tokens import MAX_TOKEN_LENGTH
from app.domain.explain import Preference, Rule, explain
from app.emulator.hints import HintId
from app.factory import MAX_BODY_BYTES
from app.web.bodies import MOST_LEVELS
from app.web.errors import REFUSALS
from config import Settings
from tests.api.test_tokens import CARRIED
from tests.builders import START as NOW
from tests.clients import snippets
from tests.docs import pages
from tests.docs.explained import EXAMPLES
from tests.docs.tables import table_under
from tests.hostile_requests import HOSTILE
from tests.servers import ROOT

OWNERS = {name: re.sub("<user_id>", "{userId}", path) for name, path in presence.OWNERS.items()}
README = (ROOT / "README.md").read_text()


def described_settings() -> list[list[str]]:
    """Each setting's row, from the field's default and the docstring below it."""
    source = (ROOT / "config.py").read_text()
    said = dict(re.findall(r'^    (\w+): .*?\n    """(.+?)"""$', source, flags=re.MULTILINE | re.DOTALL))
    return [[f"`{name.upper()}`", default(name), said[name]] for name in Settings.model_fields]


def default(name: str) -> str:
    value = Settings.model_fields[name].default
    if name == "database_url":
        return "`instance/presence.sqlite3`"
    if name == "instance_path":
        return "`instance`"
    if name == "auth_issuers":
        return "Entra's v1 and v2"
    if isinstance(value, bool):
        return f"`{value}`".lower()
    if hasattr(value, "total_seconds"):
        return f"{value.total_seconds():.0f} s"
    return f"`{value}`" if value not in ((), None) else "none"


def test_the_settings_table_is_the_settings_class() -> None:
    assert table_under("Settings", README) == described_settings()


def test_the_route_list_is_the_url_map(flask_app: Flask) -> None:
    rows = [(method, path.strip("`")) for method, path, *_ in table_under("Routes", README)]
    listed = {(method, path.replace("{owner}", owner)) for method, path in rows for owner in OWNERS.values()}
    served = {
        (method, rule.rule.replace("<", "{").replace(">", "}").replace("user_id", "userId"))
        for rule in flask_app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith(("/v1.0/", "/beta/"))
    }
    assert listed == served


def test_the_table_of_what_is_supported_has_every_operation(flask_app: Flask) -> None:
    rows = [(cells[0].strip("`").split(" "), cells[2]) for cells in table_under("What is supported", README)]
    listed = {
        (method, path.replace("{owner}", owner))
        for (method, path), here in [(row, here) for row, here in rows if here != "no"]
        for owner in OWNERS.values()
    }
    paths = flask_app.test_client().get("/openapi.json").get_json()["paths"]
    everywhere = {path: item for path, item in paths.items() if "servers" not in item}
    assert listed == {(method.upper(), path) for path, item in everywhere.items() for method in item}


def test_the_error_table_is_the_one_that_answers() -> None:
    rows = [[str(answer.status.value), f"`{answer.code}`", kind.__name__] for kind, answer in REFUSALS.items()]
    documented = [row[:3] for row in table_under("Errors", (ROOT / "docs/errors.md").read_text())]
    assert sorted(documented) == sorted(rows)


def test_the_table_of_commands_has_each_of_them() -> None:
    told = {row[0].strip("`").split()[0] for row in table_under("Commands", README)}
    assert told == set(cli.commands.list_commands(click.Context(cli.commands)))


def test_the_worked_examples_are_what_explain_says() -> None:
    page = pages.EXPLAIN.read_text()
    blocks = re.findall(r"^## (.+?)\n(?:(?!^## ).)*?```text\n(.*?)\n```$", page, flags=re.MULTILINE | re.DOTALL)
    assert blocks == [(heading, example.text()) for heading, example in EXAMPLES.items()]
    assert len(blocks) == 10
    assert pages.explained(page) == page


def test_the_worked_examples_show_every_rule() -> None:
    said = [explain(example.state, NOW) for example in EXAMPLES.values()]
    assert {each.rule for each in said} == set(Rule)
    assert {each.preference for each in said} == set(Preference) - {Preference.EXPIRED}


def test_every_hint_has_its_section() -> None:
    assert re.findall("^## (.*)$", (ROOT / "docs/hints.md").read_text(), flags=re.MULTILINE) == list(HintId)


SECURITY = (ROOT / "docs/security.md").read_text()


def promises() -> list[list[str]]:
    """The rows of all tables of promises."""
    part = SECURITY.partition("## Promises\n")[2].partition("\n## ")[0]
    return [row for heading in re.findall("^### (.*)$", part, re.MULTILINE) for row in table_under(heading, SECURITY)]


def assert_there(test: str) -> None:
    path, _, name = test.strip("`").partition("::")
    assert f"\ndef {name}(" in (ROOT / path).read_text(), test


def test_every_promise_names_code_and_a_test_that_exist() -> None:
    assert len(promises()) > 90
    for _, source, code, test in promises():
        assert source
        assert (ROOT / code.strip("`")).is_file(), code
        assert_there(test)


def test_the_numbers_of_what_is_refused_are_right() -> None:
    assert f"\n{len(CARRIED)} unfit tokens and {len(HOSTILE)} hostile requests are in the tests" in SECURITY


@pytest.mark.parametrize(("name", "least"), [("pyjwt", (2, 15)), ("gunicorn", (27, 0, 1)), ("werkzeug", (3, 1))])
def test_no_pin_is_older_than_the_last_advisory(name: str, least: tuple[int, ...]) -> None:
    pinned = re.search(rf"^{name}==([0-9.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned
    assert tuple(map(int, pinned[1].split("."))) >= least


def test_the_limits_are_the_ones_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESENCE_ENV", "development")
    limits = {row[0]: row[1] for row in table_under("Limits", SECURITY)}
    for *_, test in table_under("Limits", SECURITY):
        assert_there(test)
    gunicorn = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
    fields, size = gunicorn["limit_request_fields"], gunicorn["limit_request_field_size"]
    assert limits["request line"] == f"{gunicorn['limit_request_line']:,} bytes"
    assert limits["header fields"] == f"{fields}, of {size:,} bytes each with the line's end"
    assert limits["token"].startswith(f"{MAX_TOKEN_LENGTH:,} characters")
    body, of_batch = MAX_BODY_BYTES // 1024, batch.MAX_BODY_BYTES // 1024**2
    assert limits["body, and what a gzip body unpacks to"] == f"{body} KiB; {of_batch} MiB for `$batch`"
    assert limits["nesting of a body"].startswith(f"{MOST_LEVELS} levels")
    assert limits["digits of a number"] == f"{sys.get_int_max_str_digits():,}"
    assert limits["ids in getPresencesByUserId"] == str(MOST_IDS)
    assert limits["requests in a batch"] == str(MOST_IN_A_BATCH)
    assert limits["status message"] == f"{LONGEST_MESSAGE} characters"


def test_every_link_of_every_page_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / Path(target)).exists(), f"{page.name} links to {target}"


def test_the_first_commands_are_the_two_that_everybody_needs() -> None:
    for word, command in (("quick start", "make run"), ("test", "make test")):
        section = re.split(rf"^#.*{word}.*$", README, flags=re.MULTILINE | re.IGNORECASE)[1]
        assert re.search(r"```sh\n(.*)\n", section)[1] == command  # type: ignore[index]


def test_the_clients_page_has_the_versions_that_are_tested() -> None:
    locked = (ROOT / "requirements-dev.txt").read_text() + (ROOT / "requirements-clients.txt").read_text()
    pinned = {name.lower(): version for name, version in re.findall(r"^(\S+)==(\S+)", locked, flags=re.MULTILINE)}
    packages = json.loads((ROOT / "tests/clients/js/package-lock.json").read_text())["packages"]
    pinned |= {path.removeprefix("node_modules/"): package.get("version") for path, package in packages.items()}
    told = {row[0]: row[1] for row in table_under("Versions", (ROOT / "docs/clients.md").read_text())}
    assert told == {name: pinned.get(name.lower()) for name in told}
    assert set(snippets.SNIPPETS) <= told.keys()


def test_no_lock_file_names_a_host() -> None:
    for lock in (*ROOT.glob("requirements*.txt"), ROOT / "tests/clients/js/package-lock.json"):
        assert "://" not in lock.read_text(), lock.name


def test_the_plugin_brings_all_that_its_server_needs() -> None:
    needed = {line.strip() for line in (ROOT / "requirements.in").read_text().splitlines() if line[:1].strip("# ")}
    brought = (ROOT / "pytest-graph-presence/pyproject.toml").read_text()
    assert {line for line in needed if f'"{line}",' not in brought} == set()
