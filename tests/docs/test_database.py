"""docs/database.md: its tables are those of the models, its views those of the migrations, and its SQL runs."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic import command
from sqlalchemy import URL, Engine, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

from app.db.directory import DirectoryStore
from app.db.engine import make_engine
from app.db.store import make_store
from app.domain.directory import User
from app.domain.values import AWAY, BUSY, IN_A_CALL, PRESENTING, SessionKey, Shown
from app.services.presence import PresenceService
from tests.builders import Clock, new_id
from tests.conftest import alembic_config
from tests.docs import pages, schema
from tests.docs.tables import table_under

PAGE = pages.DATABASE.read_text()
TENANT, ADELE = "8fe37d9e-6d4d-4a0c-b4e8-9fb5a6d7e2a1", "fa8bf3dc-eca7-46b7-bad1-db199b62afc3"
ALEX, EVE = "0c000000-0000-4000-8000-000000000003", "0d000000-0000-4000-8000-000000000004"
PHONE, DESK = "22553876-f5ab-4529-bffb-cfe50aa89f87", "6b7a1f0e-3c58-4d0b-9b3f-7f2d1f5c0a11"
QUESTIONS = dict(re.findall(r"^### ([^\n]+\?)\n(?:(?!^##).)*?```sql\n(.*?)```", PAGE, flags=re.MULTILINE | re.DOTALL))
HOUR = timedelta(hours=1)
REQUEST = new_id()


def test_the_picture_is_that_of_the_models() -> None:
    assert pages.SCHEMA.read_text() == schema.picture()
    for table in schema.tables():
        assert f">{table.name}</text>" in schema.picture()


@pytest.mark.parametrize("table", schema.tables(), ids=lambda table: table.name)
def test_each_table_has_the_columns_of_its_model(table: Any) -> None:
    told = [(name.strip("`"), kind, said) for name, kind, said, _ in table_under(table.name, PAGE)]
    assert told == schema.columns(table)


def test_each_view_has_the_columns_of_the_migrated_one(engine: Engine) -> None:
    look = inspect(engine)
    views = look.get_view_names()
    assert {name for name in re.findall(r"^### (\S+)$", PAGE, flags=re.MULTILINE) if "?" not in name} == {
        *views,
        *(table.name for table in schema.tables()),
    }
    for view in views:
        told = [name.strip("`") for name, _ in table_under(view, PAGE)]
        assert told == [column["name"] for column in look.get_columns(view)]


@pytest.fixture(scope="module")
def asked(make_database: Callable[[], URL]) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    """Ask one of the page's questions about Adele, whose phone and desk have something to say, and two others."""
    url = make_database()
    command.upgrade(alembic_config(url), "head")
    engine = make_engine(url, pool=1, timeout=timedelta(seconds=5))
    clock = Clock(datetime.now(UTC) - timedelta(minutes=6))  # the views look at the database's own
    store = make_store(engine)
    service = PresenceService(store, clock)

    def sets(user: str, app: str, shown: Shown, lifetime: timedelta = HOUR) -> None:
        service.set(SessionKey(TENANT, user, app), shown, lifetime, new_id())

    DirectoryStore(engine).put(TENANT, [User(ADELE, "Adele@contoso.com", "Adele Vance")])
    sets(ADELE, PHONE, AWAY)
    sets(ADELE, DESK, IN_A_CALL, 2 * HOUR)
    sets(ALEX, PHONE, PRESENTING, timedelta(minutes=30))
    sets(EVE, PHONE, AWAY, timedelta(minutes=5))
    service.prefer(SessionKey(TENANT, EVE, DESK), BUSY, HOUR, new_id())
    clock.move(minutes=1)
    sets(ALEX, DESK, AWAY)
    for actor in ("cli:root", "admin:eve", "cli:root"):
        store.end_session(SessionKey(TENANT, ALEX, DESK), clock.now, None, actor)
        sets(ALEX, DESK, AWAY)
    service.set(SessionKey(TENANT, ADELE, PHONE), PRESENTING, HOUR, new_id())
    service.set(SessionKey(TENANT, ADELE, PHONE), AWAY, HOUR, REQUEST)

    def answer(question: str) -> list[tuple[Any, ...]]:
        with engine.connect() as connection:
            rows = connection.exec_driver_sql(QUESTIONS[question]).all()
        return [tuple(str(cell) if hasattr(cell, "hex") else cell for cell in row) for row in rows]

    yield answer
    engine.dispose()


Asked = Callable[[str], list[tuple[Any, ...]]]
ANSWERS: dict[str, list[tuple[Any, ...]]] = {
    "Why is she shown as Busy?": [
        ("Busy", "InACall", "mostSignificant", "notSet", 1, DESK, "InACall", "InACall"),
        ("Busy", "InACall", "mostSignificant", "notSet", 2, PHONE, "Away", "Away"),
    ],
    "What does adele@contoso.com show?": [("Adele Vance", "Busy", "InACall")],
    "Which request changed it?": [(REQUEST,)],
    "How many users show what?": [("Busy", 1), ("DoNotDisturb", 1)],
    "Which applications are in use?": [(PHONE, 2, 1), (DESK, 2, 1)],
    "Whose session of an application counts for nothing, as another one goes before it?": [(ADELE, "Away", "InACall")],
    "Who prefers something that does not show?": [(EVE, "Busy", "Busy")],
    "Who has ended sessions in an application's place?": [("cli:root", 2), ("admin:eve", 1)],
}
"""But for moments, which come last."""


def test_there_are_ten_questions() -> None:
    assert len(QUESTIONS) == 10
    assert set(QUESTIONS) - set(ANSWERS) == {"What happened to her presence?", "What fades or ends next?"}


@pytest.mark.parametrize("question", ANSWERS)
def test_a_question_gets_its_answer(asked: Asked, question: str) -> None:
    width = len(ANSWERS[question][0])
    assert [row[:width] for row in asked(question)] == ANSWERS[question]


def test_what_happened_is_told_newest_first(asked: Asked) -> None:
    rows = asked("What happened to her presence?")
    assert [row[1:] for row in rows] == [
        ("set", PHONE, *AWAY, None),
        ("set", PHONE, *PRESENTING, None),
        ("set", DESK, *IN_A_CALL, None),
        ("set", PHONE, *AWAY, None),
    ]
    assert [row[0] for row in rows] == sorted((row[0] for row in rows), reverse=True)


def test_what_ends_next_comes_first(asked: Asked) -> None:
    rows = asked("What fades or ends next?")
    assert rows[0][1:3] == (ALEX, PHONE)
    assert (rows[-1][1:], len(rows)) == ((ADELE, DESK, "InACall"), 4)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True, scope="module")
def test_the_readers_role_reads_everything_and_changes_nothing(make_database: Callable[[], URL]) -> None:
    url = make_database()
    command.upgrade(alembic_config(url), "head")
    role = f"reader_{new_id()[:8]}"
    section = PAGE.split("## A role that can only read")[1]
    (making,) = re.findall(r"```sql\n(.*?)```", section, flags=re.DOTALL)
    (hiding,) = re.findall(r"`(REVOKE .*?)`", section, flags=re.DOTALL)
    owner = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with owner.connect() as connection:
            for statement in making.replace("presence_reader", role).split(";\n"):
                if statement:
                    connection.exec_driver_sql(statement)
            connection.exec_driver_sql("CREATE TABLE of_a_later_migration (id int)")
            names = inspect(connection).get_table_names() + inspect(connection).get_view_names()
        reader = create_engine(url.set(username=role, password="change me"), isolation_level="AUTOCOMMIT")
        with reader.connect() as connection:
            assert len(names) >= 9
            for name in names:
                connection.execute(text(f"SELECT count(*) FROM {name}"))  # noqa: S608
            assert connection.execute(text("SHOW statement_timeout")).scalar_one() == "30s"
            with pytest.raises(DBAPIError, match="read-only transaction"):
                connection.execute(text("DELETE FROM presence_session"))
            connection.execute(text("SET default_transaction_read_only = off"))
            for change in ("DELETE FROM presence_session", "INSERT INTO of_a_later_migration VALUES (1)"):
                with pytest.raises(DBAPIError, match="permission denied"):
                    connection.execute(text(change))
            with pytest.raises(DBAPIError, match="permission denied"):
                connection.execute(text("CREATE TABLE mine (id int)"))
            with owner.connect() as by_owner:
                by_owner.exec_driver_sql(hiding.replace("presence_reader", role))
            connection.execute(text("SELECT * FROM presence_explained"))
            for hidden in ("presence_user", "presence_now"):
                with pytest.raises(DBAPIError, match="permission denied"):
                    connection.execute(text(f"SELECT * FROM {hidden}"))  # noqa: S608
        reader.dispose()
    finally:
        with owner.connect() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")
        owner.dispose()
