"""Column types that both databases hold in a form that an admin reads without a decoder."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, String, TypeDecorator
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine
from typing_extensions import override

SQLITE_TIME = "%Y-%m-%d %H:%M:%S.%f+00:00"
"""Fixed width, so that text compares as time does."""


class GuidColumn(TypeDecorator[str]):
    """A GUID: dashed lower-case text, in PostgreSQL a native uuid."""

    impl = String(36)
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(postgresql.UUID(as_uuid=False) if dialect.name == "postgresql" else String(36))


class UtcColumn(TypeDecorator[datetime]):
    """A moment, aware and in UTC: fixed-width text, in PostgreSQL a timestamptz."""

    impl = String(32)
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(DateTime(timezone=True) if dialect.name == "postgresql" else String(32))

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return value.astimezone(UTC).strftime(SQLITE_TIME)

    @override
    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if dialect.name == "postgresql" else datetime.fromisoformat(value)
