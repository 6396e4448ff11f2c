"""Statements compiled once, and run on the driver's own cursor.

Executing through SQLAlchemy's Connection costs about three times as much CPU as the driver and the pool together, in
work whose result is the same each time (docs/decisions/0006-compile-once.md). SQLAlchemy still writes the SQL, converts
the values and pools the connections.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import URL, Dialect, Enum
from sqlalchemy.sql.compiler import SQLCompiler

Row = tuple[Any, ...]
PSYCOPG: Callable[..., Dialect] = URL.create("postgresql+psycopg").get_dialect()
Convert = Callable[[Any], Any] | None


class Prepared:
    """One statement in the SQL of one dialect, with what its parameters and columns have to be converted by."""

    def __init__(self, statement: Any, dialect: Dialect) -> None:
        self._on_postgres = dialect.name == "postgresql"
        if self._on_postgres:  # $1, $2, … as the server itself counts them: nothing is left to translate
            dialect = PSYCOPG(paramstyle="numeric_dollar")
        compiled: SQLCompiler = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        self._parameters: list[tuple[str, Convert, Any]] = []
        for name in compiled.positiontup or ():
            bind = compiled.binds[name]
            self._parameters.append((name, bind.type.dialect_impl(dialect).bind_processor(dialect), bind.value))
        columns = list(statement.selected_columns if statement.is_select else statement.exported_columns)
        self._columns = [
            (place, convert)
            for place, column in enumerate(columns)
            if (convert := _from_database(column.type, dialect)) is not None
        ]

    def run(self, cursor: Any, parameters: Mapping[str, Any]) -> list[Row]:
        """Execute the statement and return its rows; none when it returns no rows at all."""
        values = self.values(parameters)
        rows: list[Row] = (
            cursor.rows(self.sql, values) if self._on_postgres else cursor.execute(self.sql, values).fetchall()
        )
        return self.all_converted(rows)

    def all_converted(self, rows: list[Row]) -> list[Row]:
        """Return all rows with Python's values in place of the driver's."""
        return [self.converted(row) for row in rows] if self._columns else rows

    def values(self, parameters: Mapping[str, Any]) -> list[Any]:
        """Return the parameters in the statement's order and the driver's types; its constants come from itself."""
        values = []
        for name, convert, constant in self._parameters:
            value = parameters[name] if constant is None else constant
            values.append(value if convert is None else convert(value))
        return values

    def converted(self, row: Sequence[Any]) -> Row:
        """Return a row of the statement's columns, whoever read it, with Python's values in place of the driver's."""
        values = list(row)
        for place, convert in self._columns:
            if values[place] is not None:
                values[place] = convert(values[place])
        return tuple(values)


def _from_database(column_type: Any, dialect: Dialect) -> Callable[[Any], Any] | None:
    """Return what makes Python's values of the driver's, None left out; an enum's are looked up, not searched for."""
    if isinstance(column_type, Enum):
        return {member.value: member for member in column_type.enum_class or ()}.__getitem__
    convert: Convert = column_type.dialect_impl(dialect).result_processor(dialect, None)
    return convert
