"""What the migrations make is what the models say, and every way there and back works."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Engine, Inspector, create_engine, insert, inspect, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable

from app.db import schema
from app.db.models import Base, PresenceEvent, PresenceSession
from app.db.schema import SchemaCheck
from app.domain.values import AWAY, Activity, Availability, EventKind
from tests.builders import START, new_id
from tests.conftest import ROOT, alembic_config

SCRIPTS = ScriptDirectory.from_config(alembic_config(URL.create("sqlite")))
REVISIONS = [script.revision for script in reversed(list(SCRIPTS.walk_revisions()))]
HEAD = REVISIONS[-1]


@pytest.fixture
def fresh(make_database: Callable[[], URL]) -> Iterator[Engine]:
    """An empty database."""
    engine = create_engine(make_database())
    yield engine
    engine.dispose()


@pytest.fixture
def config(fresh: Engine) -> Config:
    return alembic_config(fresh.url)


def in_order(rows: Any) -> list[Any]:
    return sorted(rows, key=repr)


def storage(engine: Engine, table: str) -> object:
    """What a reflection does not tell: options of the table's storage."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            options = "SELECT reloptions FROM pg_class WHERE relname = :table"
            return connection.execute(text(options), {"table": table}).scalar_one()
        statement = "SELECT upper(sql) FROM sqlite_schema WHERE name = :table"
        made = connection.execute(text(statement), {"table": table}).scalar_one()
        return [option for option in ("WITHOUT ROWID", "AUTOINCREMENT") if option in made]


def description(engine: Engine) -> dict[str, Any]:
    """All that a database says of its tables; alembic's own excepted."""
    look: Inspector = inspect(engine)
    return {
        table: {
            "columns": [{**column, "type": repr(column["type"])} for column in look.get_columns(table)],
            "primary key": look.get_pk_constraint(table),
            "checks": in_order(look.get_check_constraints(table)),
            "indexes": in_order(look.get_indexes(table)),
            "uniques": in_order(look.get_unique_constraints(table)),
            "foreign keys": in_order(look.get_foreign_keys(table)),
            "storage": storage(engine, table),
        }
        for table in look.get_table_names()
        if table != "alembic_version"
    }


def names(engine: Engine) -> set[str]:
    look = inspect(engine)
    return {*look.get_table_names(), *look.get_view_names()} - {"alembic_version"}


def made_by_the_models(url: URL, without: str = "") -> dict[str, Any]:
    """Describe tables made from the models, whose SQL has lost a word."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            connection.exec_driver_sql(str(CreateTable(table).compile(engine)).replace(without, ""))
            for index in table.indexes:
                index.create(connection)
    found = description(engine)
    engine.dispose()
    return found


def test_up_down_and_up_again_ends_where_up_did(fresh: Engine, config: Config) -> None:
    command.upgrade(config, "head")
    first = description(fresh)
    assert names(fresh) >= {*Base.metadata.tables, "presence_now"}
    command.downgrade(config, "base")
    assert names(fresh) == set()
    command.upgrade(config, "head")
    assert description(fresh) == first


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_revision_can_be_taken_back_and_made_again(fresh: Engine, config: Config, revision: str) -> None:
    command.upgrade(config, revision)
    there = description(fresh), names(fresh)
    command.downgrade(config, "-1")
    command.upgrade(config, revision)
    assert (description(fresh), names(fresh)) == there


def test_revisions_form_one_line() -> None:
    assert len(SCRIPTS.get_heads()) == 1
    assert len(SCRIPTS.get_bases()) == 1


def test_alembic_finds_no_difference_between_migrations_and_models(config: Config) -> None:
    command.upgrade(config, "head")
    command.check(config)  # raises what it finds


def test_the_migrated_tables_are_those_of_the_models_to_the_last_check(
    fresh: Engine, config: Config, make_database: Callable[[], URL]
) -> None:
    command.upgrade(config, "head")
    assert description(fresh) == made_by_the_models(make_database())


def test_a_value_missing_from_one_check_is_noticed(make_database: Callable[[], URL]) -> None:
    whole, part = made_by_the_models(make_database()), made_by_the_models(make_database(), without=", 'expired'")
    assert whole["presence_session"] == part["presence_session"]
    differing = [aspect for aspect, found in whole["presence_event"].items() if found != part["presence_event"][aspect]]
    assert differing == ["checks"]


def session_row(**differing: object) -> dict[str, object]:
    ids = {name: new_id() for name in ("tenant_id", "user_id", "session_id")}
    return {
        **ids,
        **AWAY._asdict(),
        "changed_at": START,
        "set_at": START,
        "expires_at": START.replace(hour=9),
    } | differing


def event_row(**differing: object) -> dict[str, object]:
    ids = {name: new_id() for name in ("tenant_id", "user_id", "session_id", "request_id")}
    return {**ids, **AWAY._asdict(), "kind": EventKind.SET, "at": START, "expires_at": START} | differing


def test_the_migrated_tables_take_every_value(engine: Engine) -> None:
    with engine.connect() as connection:
        for availability in Availability:
            connection.execute(insert(PresenceSession), session_row(availability=availability))
            connection.execute(insert(PresenceEvent), event_row(availability=availability))
        for activity in Activity:
            connection.execute(insert(PresenceSession), session_row(activity=activity))
            connection.execute(insert(PresenceEvent), event_row(activity=activity))
        for kind in EventKind:
            connection.execute(insert(PresenceEvent), event_row(kind=kind))


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("presence_session", "availability", "Busy-ish"),
        ("presence_session", "activity", "in a call"),
        ("presence_session", "expires_at", "2026-03-02 08:00:00.000000+00:00"),
        ("presence_event", "availability", ""),
        ("presence_event", "activity", "Sleeping"),
        ("presence_event", "kind", "Set"),
    ],
)
def test_the_migrated_tables_take_nothing_else(engine: Engine, table: str, column: str, value: str) -> None:
    tenant_id = new_id()
    model = Base.metadata.tables[table]
    row = session_row(tenant_id=tenant_id) if table == "presence_session" else event_row(tenant_id=tenant_id)
    with engine.connect() as connection:
        connection.execute(insert(model), row)
        change = text(f"UPDATE {table} SET {column} = :value WHERE tenant_id = :tenant_id")  # noqa: S608
        with pytest.raises(IntegrityError):
            connection.execute(change, {"value": value, "tenant_id": tenant_id})


@contextmanager
def migrators(url: URL, number: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Start them all, and see at the end that all succeeded and one did the work."""
    upgrade = [sys.executable, "-m", "alembic", "upgrade", "head"]
    env = {**os.environ, "DATABASE_URL": url.render_as_string(hide_password=False)}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [subprocess.Popen(upgrade, cwd=ROOT, env=env, **output) for _ in range(number)]  # type: ignore[call-overload]
    try:
        yield started
        said = [migrator.communicate(timeout=120)[0] for migrator in started]
        assert [migrator.returncode for migrator in started] == [0] * number, said
        assert [f"-> {HEAD}" in output for output in said].count(True) == 1, said
    finally:
        for migrator in started:
            migrator.kill()
            migrator.communicate()


def test_migrators_that_start_at_the_same_time_all_succeed(fresh: Engine) -> None:
    with migrators(fresh.url, 3):
        pass
    assert SchemaCheck(fresh).fault() is None


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True, scope="session")
def test_migrators_that_find_the_same_empty_database_all_succeed(fresh: Engine) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with fresh.connect() as holder, fresh.connect() as watcher, migrators(fresh.url, 2) as started:
        watcher.execution_options(isolation_level="AUTOCOMMIT")
        holder.execute(text("CREATE TABLE alembic_version (held_back int)"))  # not committed: nobody sees it
        while watcher.execute(text(waiting)).scalar_one() < 2:
            assert [migrator.poll() for migrator in started] == [None, None]
        holder.rollback()
    assert SchemaCheck(fresh).fault() is None


# --- Whether a database stands where this code wants it


@pytest.fixture
def one_revision_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A release of this code that brings one more revision."""
    migrations = tmp_path / "migrations"
    shutil.copytree(ROOT / "migrations", migrations, ignore=shutil.ignore_patterns("__pycache__"))
    (migrations / "versions" / "next.py").write_text(f"revision = 'next'\ndown_revision = {HEAD!r}\n")
    monkeypatch.setattr(schema, "MIGRATIONS", migrations)
    return "next"


def test_a_database_at_the_head_has_no_fault(fresh: Engine, config: Config) -> None:
    command.upgrade(config, "head")
    assert SchemaCheck(fresh).fault() is None


def test_a_database_that_was_never_migrated_is_at_fault(fresh: Engine) -> None:
    fault = SchemaCheck(fresh).fault()
    assert fault is not None
    assert re.search(r"has not been migrated: run alembic upgrade head\.$", fault)


def test_a_database_taken_back_to_base_is_at_fault(fresh: Engine, config: Config) -> None:
    command.upgrade(config, "head")
    command.downgrade(config, "base")
    expected = f"The database is at revision None, not at {HEAD}: run alembic upgrade head."
    assert SchemaCheck(fresh).fault() == expected


def test_a_database_at_an_older_revision_is_at_fault(fresh: Engine, config: Config, one_revision_more: str) -> None:
    command.upgrade(config, HEAD)
    expected = f"The database is at revision {HEAD}, not at {one_revision_more}: run alembic upgrade head."
    assert SchemaCheck(fresh).fault() == expected


def test_a_database_at_a_newer_revision_than_this_code_knows_has_no_fault(fresh: Engine, config: Config) -> None:
    command.upgrade(config, "head")
    with fresh.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert SchemaCheck(fresh).fault() is None


def test_the_check_follows_a_migration_that_happens_meanwhile(fresh: Engine, config: Config) -> None:
    check = SchemaCheck(fresh)
    assert check.fault() is not None
    command.upgrade(config, "head")
    assert check.fault() is None


def test_a_server_that_is_not_there_is_at_fault(fresh: Engine) -> None:
    nowhere = fresh.url.set(database=f"{fresh.url.database}-absent/nothing")
    engine = create_engine(nowhere)
    fault = SchemaCheck(engine).fault()
    engine.dispose()
    assert fault is not None
    assert fault.startswith("The database does not answer")
