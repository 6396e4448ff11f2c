"""What a test bench does to a whole database, every tenant at once. Only the emulator calls it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from app.db.models import Base
from app.db.types import UtcColumn

Rows = Mapping[str, Sequence[Mapping[str, Any]]]


class UnknownSnapshot(Exception):
    """What is to be restored is not what `snapshot` returned."""


class Emulation:
    """Empties, copies and replaces all tables of the service."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tables = {table.name: table for table in Base.metadata.sorted_tables}

    def reset(self) -> None:
        """Delete every row."""
        with self._transaction() as connection:
            self._empty(connection)

    def snapshot(self) -> dict[str, list[dict[str, Any]]]:
        """Return every row of every table, moments as ISO 8601 text."""
        with self._transaction() as connection:
            return {name: self._rows(connection, name) for name in self._tables}

    def restore(self, rows: Rows) -> None:
        """Replace every row by those of a snapshot.

        Raises:
            UnknownSnapshot: it names other tables or columns, or values that no such column can hold.
        """
        read = {name: [self._read(name, row) for row in found] for name, found in rows.items()}
        with self._transaction() as connection:
            self._empty(connection)
            for name, found in read.items():
                if found:
                    self._insert(connection, name, found)

    def _empty(self, connection: Connection) -> None:
        for table in self._tables.values():
            connection.execute(table.delete())

    def _insert(self, connection: Connection, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        try:
            connection.execute(insert(self._tables[name]), rows)
        except OperationalError:
            raise
        except (SQLAlchemyError, OverflowError, UnicodeError):
            raise UnknownSnapshot(f"'{name}' holds no such rows") from None

    def _rows(self, connection: Connection, name: str) -> list[dict[str, Any]]:
        table = self._tables[name]
        query = select(*(column for column in table.c if column.name != "id")).order_by(*table.primary_key)
        return [
            {key: value.isoformat() if isinstance(value, datetime) else value for key, value in row.items()}
            for row in connection.execute(query).mappings()
        ]

    def _read(self, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
        try:
            columns = self._tables[name].c
            return {
                key: datetime.fromisoformat(value) if value and isinstance(columns[key].type, UtcColumn) else value
                for key, value in row.items()
            }
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UnknownSnapshot(f"'{name}' is no table with such rows") from None

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            try:
                yield connection
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")
