"""All rows of a database, read in one snapshot, and written into another one that may be in use.

What the other one has learned since the snapshot goes before what the snapshot says.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Engine,
    Enum,
    Integer,
    Table,
    and_,
    bindparam,
    case,
    exists,
    literal_column,
    null,
    select,
    true,
    tuple_,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects import postgresql, sqlite

from app.db.database import Database
from app.db.models import Base, DirectoryUser, PresenceEvent, PresenceSession, PresenceUser
from app.db.prepared import Prepared
from app.db.statements import EVENT, KEY, SAID, SESSION, Part
from app.db.types import GuidColumn, UtcColumn
from app.domain.values import DASHED_GUID, NIL, EventKind

Values = Mapping[str, Any]

TABLES: dict[str, Table] = {
    model.__tablename__: Base.metadata.tables[model.__tablename__]
    for model in (DirectoryUser, PresenceUser, PresenceSession, PresenceEvent)
}
"""In the order in which they are written: the events last, as those written look like what has happened since."""
READ_AT_ONCE = 5_000
KINDS = {
    Part.PREFERRED: (EventKind.PREFERRED_SET, EventKind.PREFERRED_CLEARED, EventKind.PREFERRED_EXPIRED),
    Part.MESSAGE: (EventKind.MESSAGE_SET, EventKind.MESSAGE_CLEARED, EventKind.MESSAGE_EXPIRED),
    Part.MANUAL_LOCATION: (EventKind.LOCATION_SET, EventKind.LOCATION_CLEARED, EventKind.LOCATION_EXPIRED),
    Part.AUTOMATIC_LOCATION: (EventKind.LOCATION_SET, EventKind.LOCATION_CLEARED, EventKind.LOCATION_EXPIRED),
}
"""What can have happened to each part."""
SNAPSHOT_AT = bindparam("snapshot_at", type_=EVENT.at.type)


def columns_of(table: Table) -> list[Any]:
    """Return the columns that are carried over: all but the id of an event, which each database gives out itself."""
    return [column for column in table.c if column is not EVENT.id]


class Reader(Database):
    """Reads all rows of a database, or of one tenant."""

    def pages(self, tenant_id: str | None) -> Iterator[tuple[str, list[Values]]]:
        """Yield the rows of one table after the other, in the order of their keys, all as of one moment.

        Raises:
            StoreUnavailable: the database does not answer, or not in time.
        """
        with self._cursor() as cursor:
            isolation = " ISOLATION LEVEL REPEATABLE READ READ ONLY" if self._dialect.name == "postgresql" else ""
            cursor.execute(f"BEGIN{isolation}")
            try:
                for name, table in TABLES.items():
                    for rows in self._pages(cursor, table, tenant_id):
                        yield name, rows
            finally:
                cursor.execute("ROLLBACK")  # nothing was written

    def _pages(self, cursor: Any, table: Table, tenant_id: str | None) -> Iterator[list[Values]]:
        key = list(table.primary_key)
        after = [bindparam(f"after_{column.name}", type_=column.type) for column in key]
        names = [column.name for column in columns_of(table)]
        found = select(*key, *columns_of(table)).where(tuple_(*key) > tuple_(*after)).order_by(*key)
        if tenant_id is not None:
            found = found.where(table.c.tenant_id == tenant_id)
        statement = self._prepared(found.limit(READ_AT_ONCE))
        last: tuple[object, ...] = tuple(0 if isinstance(column.type, Integer) else NIL for column in key)
        while rows := statement.run(
            cursor, {f"after_{column.name}": value for column, value in zip(key, last, strict=True)}
        ):
            yield [dict(zip(names, row[len(key) :], strict=True)) for row in rows]
            last = rows[-1][: len(key)]
            if len(rows) < READ_AT_ONCE:
                return


class Writer(Database):
    """Writes rows of a snapshot into a database."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        insert = (postgresql if self._dialect.name == "postgresql" else sqlite).insert
        self._statements: dict[str, Prepared] = {
            "presence_user": self._prepared(_put_user(insert)),
            "presence_session": self._prepared(_put_session(insert)),
            "presence_event": self._prepared(_put_event(insert)),
        }

    def write(self, name: str, rows: Sequence[Values], snapshot_at: datetime) -> int:
        """Write rows of one table in one transaction; return how many of them made a difference.

        Raises:
            StoreUnavailable: the database does not answer, or not in time. None of them was written.
        """
        statement = self._statements[name]
        with self._write() as cursor:
            cursor.executemany(statement.sql, [statement.values({**row, "snapshot_at": snapshot_at}) for row in rows])
            return max(0, int(cursor.rowcount))


def row_of(table: Table, said: Mapping[str, object]) -> Values:
    """Return a row of the table from what JSON says of it.

    Raises:
        ValueError: it has other columns, or a value that the column cannot hold; the message names it.
    """
    columns = columns_of(table)
    if said.keys() != {column.name for column in columns}:
        named = ", ".join(sorted({column.name for column in columns} ^ said.keys()))
        raise ValueError(f"{table.name} has other columns: {named:.200}")
    row = {}
    for column in columns:
        value = said[column.name]
        try:
            row[column.name] = _value(column, value)
        except (ValueError, TypeError):
            raise ValueError(f"{table.name}.{column.name} cannot be {value!r:.60}") from None
    return row


def _value(column: Any, value: object) -> object:
    if value is None and column.nullable:
        return None
    if not isinstance(value, str) or "\x00" in value:
        raise TypeError
    if isinstance(column.type, GuidColumn):
        if not DASHED_GUID.fullmatch(value):
            raise ValueError
        return value.lower()
    if isinstance(column.type, UtcColumn):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError
        return moment
    if isinstance(column.type, Enum):
        return cast("type[StrEnum]", column.type.enum_class)(value)
    return value


def _bound(column: Any) -> ColumnElement[Any]:
    bound = bindparam(column.name, type_=column.type)
    return sql_cast(bound, column.type) if isinstance(column.type, Enum) else bound  # no other is sent without its type


def _since(*which: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return whether the database has recorded something about the row's user since the snapshot."""
    user = (EVENT.tenant_id == _bound(EVENT.tenant_id), EVENT.user_id == _bound(EVENT.user_id))
    return exists(select(EVENT.id).where(*user, EVENT.at > SNAPSHOT_AT, *which))


def _put_session(insert: Any) -> Any:
    """Return the insert of a session, unless something has happened to it since or it was kept alive later."""
    columns = list(SESSION)
    row = select(*map(_bound, columns)).where(~_since(EVENT.session_id == _bound(SESSION.session_id)))
    put = insert(PresenceSession).from_select([column.name for column in columns], row)
    return put.on_conflict_do_update(
        index_elements=KEY,
        set_={column.name: put.excluded[column.name] for column in columns if not column.primary_key},
        where=put.excluded.set_at > SESSION.set_at,
    )


def _put_user(insert: Any) -> Any:
    """Return the insert of what is said of a user, part by part, but for those that have changed since."""
    kinds: dict[Part, list[ColumnElement[str]]] = {
        part: [literal_column(f"'{kind}'") for kind in KINDS[part]] for part in Part
    }
    changed = select(*(_since(EVENT.kind.in_(kinds[part])).label(part.name) for part in Part)).subquery("changed")
    parts = {name: part for part in Part for name in part.value}
    values = [
        case((changed.c[parts[column.name].name], null()), else_=value) if column.name in parts else value
        for column, value in ((column, _bound(column)) for column in SAID)
    ]
    put = insert(PresenceUser).from_select(
        [column.name for column in SAID], select(*values).select_from(changed).where(true())
    )
    kept = {
        name: case((put.excluded[part.value[0]].is_not(None), put.excluded[name]), else_=SAID[name])
        for name, part in parts.items()
    }
    return put.on_conflict_do_update(index_elements=KEY[:2], set_=kept)


def _put_event(insert: Any) -> Any:
    """Return the insert of an event that is not there yet: of a session, what happened at one moment happened once."""
    columns = columns_of(TABLES[PresenceEvent.__tablename__])
    same = and_(*(EVENT[name] == _bound(EVENT[name]) for name in (*KEY, "at", "kind")))
    row = select(*map(_bound, columns)).where(~exists(select(EVENT.id).where(same)))
    return insert(PresenceEvent).from_select([column.name for column in columns], row)
