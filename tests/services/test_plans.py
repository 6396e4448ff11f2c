"""How the databases find what a hot statement asks for: by index alone, with the key of one user."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from alembic import command
from psycopg import sql
from sqlalchemy import URL, Column, Engine, FromClause, Join, Table, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import operators
from sqlalchemy.sql.dml import Delete, Insert, Update
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList, ColumnElement
from sqlalchemy.sql.selectable import CompoundSelect, Select

from app.api.schemas import MOST_IDS
from app.db import directory, statements
from app.db.engine import make_engine
from app.db.models import Base, DirectoryUser, PresenceEvent
from app.db.prepared import Prepared
from app.db.statements import Part
from app.db.store import EventLog, make_store
from app.domain.values import IN_A_CALL, PRESENTING, EventKind, SessionKey, WorkLocationType
from tests.bench.test_seed import seed
from tests.builders import START, new_id, on_postgresql
from tests.conftest import ROOT, alembic_config

USERS = 3_000
OF_MANY = (statements.LIST_USERS, statements.COUNT_USERS)
"""What the store runs besides: about a page of a tenant's users, or all of them."""
DIALECTS = {"postgresql": postgresql.dialect, "sqlite": sqlite.dialect}
TABLES = frozenset(Base.metadata.tables)


def each(of: Mapping[Any, Any], name: str) -> dict[str, Any]:
    return {f"{name} {number}": statement for number, statement in enumerate(of.values())}


READS = {"read": statements.READ_USER, "directory": directory.FIND_BY_ID}
HOT: dict[str, dict[str, Any]] = {
    "postgresql": {
        **READS,
        "bulk read": statements.READ_USERS["postgresql"],
        "set": statements.SET_SESSION,
        "clear": statements.END_SESSION,
        "clear for another": statements.END_SESSION_AS,
        **each(statements.SET_PART, "set part"),
        **each(statements.CLEAR_PARTS, "clear part"),
    },
    "sqlite": {
        **READS,
        "bulk read": statements.READ_USERS["sqlite"],
        "newest event": statements.NEWEST,
        "put session": statements.PUT_SESSION,
        "delete session": statements.DELETE_SESSION,
        "insert event": statements.INSERT_EVENT,
        "insert event for another": statements.INSERT_EVENT_AS,
        **each(statements.PUT_PART, "put part"),
        **each(statements.DROP_PARTS, "drop part"),
    },
}
EVERY = [pytest.param(kind, name, id=f"{kind}: {name}") for kind, named in HOT.items() for name in named]


# --- What the statements say


class Mention(NamedTuple):
    """One place where a statement reads or writes a table."""

    table: Any
    conditions: tuple[Any, ...]
    """What is asked of its rows; of an insert: what the new ones have in their columns."""

    @property
    def names_the_key(self) -> bool:
        """True when each row's tenant and user equal what is given or come with a user who was."""
        told = {
            side.name
            for condition in self.conditions
            for one in all_of(condition)
            if isinstance(one, BinaryExpression) and one.operator is operators.eq
            for side in (one.left, one.right)
            if isinstance(side, Column) and side.table.compare(self.table)
        }
        return told >= {"tenant_id", "user_id"}


def all_of(condition: ColumnElement[bool]) -> Iterator[ColumnElement[bool]]:
    """Give the conditions that an AND is made of; another one is made of itself."""
    if isinstance(condition, BooleanClauseList) and condition.operator is operators.and_:
        for one in condition:
            yield from all_of(one)
    else:
        yield condition


def mentions(kind: str, statement: Any) -> list[Mention]:
    """List each mention of a table in a statement, in its CTEs and subqueries too, as the compiler comes to them."""
    dialect = DIALECTS[kind]()
    compiler: Any = dialect.statement_compiler
    found: list[Mention] = []

    class Noting(compiler):  # type: ignore[misc]
        def visit_insert(self, insert_stmt: Insert, *rest: Any, **options: Any) -> Any:
            found.append(Mention(insert_stmt.table, tuple(new_columns(insert_stmt))))
            return super().visit_insert(insert_stmt, *rest, **options)

        def visit_update(self, update_stmt: Update, *rest: Any, **options: Any) -> Any:
            found.append(Mention(update_stmt.table, (update_stmt.whereclause,)))
            return super().visit_update(update_stmt, *rest, **options)

        def visit_delete(self, delete_stmt: Delete, *rest: Any, **options: Any) -> Any:
            found.append(Mention(delete_stmt.table, (delete_stmt.whereclause,)))
            return super().visit_delete(delete_stmt, *rest, **options)

        def visit_select(self, select_stmt: Select[Any], *rest: Any, **options: Any) -> Any:
            sources = [source for root in select_stmt.get_final_froms() for source in joined(root)]
            asked = [source.onclause for source in sources if isinstance(source, Join)]
            asked += [] if select_stmt.whereclause is None else [select_stmt.whereclause]
            found.extend(Mention(source, tuple(asked)) for source in sources if isinstance(source, Table))
            return super().visit_select(select_stmt, *rest, **options)

    dialect.statement_compiler = Noting
    statement.compile(dialect=dialect)
    return found


def joined(source: FromClause) -> Iterator[FromClause]:
    """Give a join and what it joins."""
    yield source
    if isinstance(source, Join):
        yield from (*joined(source.left), *joined(source.right))


def new_columns(insert: Any) -> Iterator[ColumnElement[bool]]:
    """Give what an insert puts into each column, as an equality."""
    if insert.select is None:
        yield from (insert.table.c[column.name] == value for column, value in insert._values.items())
        return
    selects = insert.select.selects if isinstance(insert.select, CompoundSelect) else [insert.select]
    for number, name in enumerate(insert._select_names):
        values = [select.selected_columns[number] for select in selects]
        if all(isinstance(value, BindParameter) for value in values):
            yield insert.table.c[name] == values[0]


@pytest.mark.parametrize(("on", "name"), EVERY)
def test_each_mention_of_a_table_names_the_tenant_and_the_user(on: str, name: str) -> None:
    statement = HOT[on][name]
    found = mentions(on, statement)
    assert [mention.table.name for mention in found if not mention.names_the_key] == []
    written = str(statement.compile(dialect=DIALECTS[on]()))
    assert len(found) == len(re.findall(r"(?:FROM|JOIN|INTO|UPDATE) (?:presence|directory)_", written))


@pytest.mark.parametrize("on", DIALECTS)
@pytest.mark.parametrize("of_many", OF_MANY)
def test_a_statement_about_all_users_of_a_tenant_would_be_found_out(on: str, of_many: Any) -> None:
    assert [mention.names_the_key for mention in mentions(on, of_many)] == [False, False]


def test_what_a_store_runs_is_among_these(engine: Engine) -> None:
    store = make_store(engine)
    log = vars(EventLog(engine.dialect)) if engine.dialect.name == "sqlite" else {}
    kept = [*vars(store).values(), *log.values()]
    run = [one for held in kept for one in (held.values() if isinstance(held, dict) else [held])]
    known = (*HOT[engine.dialect.name].values(), *OF_MANY)
    assert {one.sql for one in run if isinstance(one, Prepared)} <= {Prepared(one, engine.dialect).sql for one in known}


# --- How they are carried out


def values(prepared: Prepared, engine: Engine) -> list[Any]:
    """Return parameters of the statement: some user, or as many users as may be asked for at once."""
    with engine.connect() as connection:
        users = connection.execute(select(DirectoryUser.tenant_id, DirectoryUser.user_id).limit(MOST_IDS)).all()
    (tenant_id, user_id), user_ids = users[0], [user for _, user in users]
    return prepared.values(
        {
            "tenant_id": tenant_id,
            "user_id": user_id,
            "of_tenant_id": tenant_id,
            "of_user_id": user_id,
            "user_ids": json.dumps(user_ids) if engine.dialect.name == "sqlite" else f"{{{','.join(user_ids)}}}",
            **dict.fromkeys(("session_id", "request_id"), new_id()),
            **dict.fromkeys(("now", "at", "faded_if_set_by", "changed_at", "set_at", "expires_at"), START),
            **IN_A_CALL._asdict(),
            "kind": EventKind.SET,
            "actor": "cli:root",
            "preferred_availability": IN_A_CALL.availability,
            "preferred_activity": IN_A_CALL.activity,
            "message": "Here",
            **dict.fromkeys(("manual_location", "automatic_location"), WorkLocationType.OFFICE),
            **{name: START for part in Part for name in part.value if name.endswith("_at")},
            **{name: None for part in Part for name in part.value if name.endswith("_place_id")},
        }
    )


@pytest.fixture(scope="module")
def seeded(make_database: Callable[[], URL]) -> Iterator[Engine]:
    """A database with enough in it that reading a whole table would cost more, and counted."""
    url = make_database()
    command.upgrade(alembic_config(url), "head")
    assert seed(url, str(USERS)) == ""
    engine = make_engine(url, pool=1, timeout=timedelta(seconds=60))
    yield engine
    engine.dispose()


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True, scope="session")
@pytest.mark.parametrize("name", HOT["sqlite"])
def test_sqlite_searches_by_the_key(seeded: Engine, name: str) -> None:
    prepared = Prepared(HOT["sqlite"][name], seeded.dialect)
    given = values(prepared, seeded)
    with seeded.connect() as connection:
        cursor = connection.connection.cursor()
        plan = [detail for *_, detail in cursor.execute(f"EXPLAIN QUERY PLAN {prepared.sql}", given)]
    steps = [step for step in plan if any(table in step for table in TABLES)]
    assert steps or name.startswith(("insert", "put"))
    assert all(re.match(r"SEARCH .*\(tenant_id=\? AND user_id=\?", step) for step in steps), plan


def postgresql_plan(engine: Engine, name: str, mode: str) -> list[Mapping[str, Any]]:
    """Return the nodes of a hot statement's plan, as a server makes it for a prepared statement."""
    prepared = Prepared(HOT["postgresql"][name], engine.dialect)
    arguments = sql.SQL(", ").join(map(sql.Literal, values(prepared, engine)))
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute(f"SET plan_cache_mode = {mode}")
        driver.execute(f"PREPARE hot AS {prepared.sql}")
        try:
            ((plan,),) = driver.execute(sql.SQL("EXPLAIN (FORMAT JSON) EXECUTE hot ({})").format(arguments)).fetchall()
        finally:
            driver.execute("DEALLOCATE hot")
    return list(nodes_of(plan[0]["Plan"]))


def nodes_of(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes_of(child)


def assert_looked_up_by_the_key(nodes: Sequence[Mapping[str, Any]]) -> None:
    scans = [node for node in nodes if "Relation Name" in node and node["Node Type"] != "ModifyTable"]
    looked_up = [node["Index Cond"] for node in nodes if "Index Name" in node]
    assert scans
    assert {scan["Node Type"] for scan in scans} <= {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}, nodes
    assert len(looked_up) == len(scans), nodes
    assert all("(tenant_id = " in condition and "(user_id = " in condition for condition in looked_up), nodes


every_plan = pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
"""For the values at hand, and for any values, which is where a prepared statement ends up."""


@on_postgresql
@pytest.mark.parametrize("name", HOT["postgresql"])
@every_plan
def test_postgresql_looks_up_by_the_key(seeded: Engine, name: str, mode: str) -> None:
    assert_looked_up_by_the_key(postgresql_plan(seeded, name, mode))


@pytest.fixture(scope="module")
def partitioned(make_database: Callable[[], URL]) -> Iterator[Engine]:
    """The same in tables that are partitioned as docs/scale.md tells."""
    url = make_database()
    command.upgrade(alembic_config(url), "head")
    engine = make_engine(url, pool=1, timeout=timedelta(seconds=60))
    told = (ROOT / "docs" / "scale.md").read_text().partition("```sql\n")[2].partition("```")[0]
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute(told)
    assert seed(url, str(USERS)) == ""
    with engine.connect() as connection:  # the pool's only one; an eighth of so few users would be read in whole
        connection.execute(text("SET enable_seqscan = off"))
    yield engine
    engine.dispose()


@on_postgresql
@pytest.mark.parametrize("name", HOT["postgresql"])
@every_plan
def test_a_partitioned_table_is_looked_into_by_the_key_and_in_one_partition(
    partitioned: Engine, name: str, mode: str
) -> None:
    nodes = postgresql_plan(partitioned, name, mode)
    assert_looked_up_by_the_key(nodes)
    looked_into = {node["Relation Name"] for node in nodes if "Index Name" in node and "Relation Name" in node}
    partitions = {name.rpartition("_")[2] for name in looked_into} - {"user"}  # directory_user is whole
    assert len(partitions) == (0 if name == "directory" else 8 if name == "bulk read" else 1), looked_into


@on_postgresql
def test_partitioned_tables_hold_what_the_store_writes(partitioned: Engine) -> None:
    store, key, hour = make_store(partitioned), SessionKey(new_id(), new_id(), new_id()), timedelta(hours=1)
    for shown in (IN_A_CALL, IN_A_CALL, PRESENTING):
        assert [one.shown for one in store.set_session(key, shown, hour, START, new_id())] == [shown]
    assert [one.shown for one in store.read_user(key.tenant_id, key.user_id).sessions] == [PRESENTING]
    assert store.end_session(key, START, new_id()) == []
    assert store.end_session(key, START, new_id()) is None
    with partitioned.connect() as connection:
        kinds = connection.scalars(
            select(PresenceEvent.kind).where(PresenceEvent.user_id == key.user_id).order_by(PresenceEvent.id)
        ).all()
    assert kinds == [EventKind.SET, EventKind.SET, EventKind.CLEARED]
