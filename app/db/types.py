"""Column types that both databases hold in a form that an admin reads without a decoder."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, String, TypeDecorator
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine
from typing_extensions import override


class GuidColumn(TypeDecorator[str]):
    """A GUID: dashed lower-case text, in PostgreSQL a native uuid."""

    impl = String(36)
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(postgresql.UUID(as_uuid=False) if dialect.name == "postgresql" else String(36))

    @override
    def result_processor(self, dialect: Dialect, coltype: Any) -> None:
        """Leave it as it comes, as text: app.db.engine has psycopg give a uuid as text, too."""


class UtcColumn(TypeDecorator[datetime]):
    """A moment, aware and in UTC: fixed-width text, in PostgreSQL a timestamptz."""

    impl = String(32)
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(DateTime(timezone=True) if dialect.name == "postgresql" else _TextMoment(32))


class _TextMoment(String):
    """A moment such as 2026-03-02 08:00:00.000000+00:00: fixed width, so that text compares as time does."""

    @override
    def bind_processor(self, dialect: Dialect) -> Any:
        return lambda moment: None if moment is None else moment.astimezone(UTC).isoformat(" ", "microseconds")

    @override
    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        return lambda text: None if text is None else datetime.fromisoformat(text)
