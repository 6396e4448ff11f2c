"""The tables. Alembic makes them; a test proves that the migrations and these classes agree."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Enum, Identity, Index, Integer, MetaData, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.db.types import GuidColumn, UtcColumn
from app.domain.values import Activity, Availability, EventKind, WorkLocationType

Guid = Annotated[str, mapped_column(GuidColumn)]


def _text_enum(values: type[StrEnum], name: str) -> Enum:
    """Return the type of a text column that a CHECK constraint keeps to an enum's values."""
    return Enum(
        values,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=32,
        values_callable=lambda members: [member.value for member in members],
    )


class Base(DeclarativeBase):
    """Names of constraints and types of columns, said once."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        datetime: UtcColumn,
        Availability: _text_enum(Availability, "availability"),
        Activity: _text_enum(Activity, "activity"),
        EventKind: _text_enum(EventKind, "kind"),
    }


class PresenceSession(Base):
    """What one application says about one user; it counts until `expires_at`.

    No index but the key, and room in each page: a keep-alive then touches no index (PostgreSQL's HOT update).
    """

    __tablename__ = "presence_session"
    __table_args__ = (
        CheckConstraint("expires_at > set_at", name="lifetime"),
        {"sqlite_with_rowid": False, "postgresql_with": {"fillfactor": 70}},
    )

    tenant_id: Mapped[Guid] = mapped_column(primary_key=True)
    user_id: Mapped[Guid] = mapped_column(primary_key=True)
    session_id: Mapped[Guid] = mapped_column(primary_key=True)
    availability: Mapped[Availability]
    activity: Mapped[Activity]
    changed_at: Mapped[datetime]
    set_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class PresenceUser(Base):
    """What is said of a user apart from sessions: each column group is null, or counts until its own expiry."""

    __tablename__ = "presence_user"

    tenant_id: Mapped[Guid] = mapped_column(primary_key=True)
    user_id: Mapped[Guid] = mapped_column(primary_key=True)
    preferred_availability: Mapped[Availability | None] = mapped_column(
        _text_enum(Availability, "preferred_availability")
    )
    preferred_activity: Mapped[Activity | None] = mapped_column(_text_enum(Activity, "preferred_activity"))
    preferred_expires_at: Mapped[datetime | None]
    message: Mapped[str | None] = mapped_column(Text)
    message_published_at: Mapped[datetime | None]
    message_expires_at: Mapped[datetime | None]
    manual_location: Mapped[WorkLocationType | None] = mapped_column(_text_enum(WorkLocationType, "manual_location"))
    manual_place_id: Mapped[str | None] = mapped_column(Text)
    manual_expires_at: Mapped[datetime | None]
    automatic_location: Mapped[WorkLocationType | None] = mapped_column(
        _text_enum(WorkLocationType, "automatic_location")
    )
    automatic_place_id: Mapped[str | None] = mapped_column(Text)
    automatic_expires_at: Mapped[datetime | None]


class DirectoryUser(Base):
    """Who a user is: turns a userPrincipalName into the id that presence goes by, and decides nothing else."""

    __tablename__ = "directory_user"
    __table_args__ = (
        CheckConstraint("user_principal_name_lower = lower(user_principal_name)", name="lower"),
        Index(None, "tenant_id", "user_principal_name_lower", unique=True),
        # By the code of each letter, not as the database's language sorts, so that names that begin alike lie together.
        Index(None, "user_principal_name_lower", postgresql_ops={"user_principal_name_lower": "text_pattern_ops"}),
    )

    tenant_id: Mapped[Guid] = mapped_column(primary_key=True)
    user_id: Mapped[Guid] = mapped_column(primary_key=True)
    user_principal_name: Mapped[str] = mapped_column(Text)
    user_principal_name_lower: Mapped[str] = mapped_column(Text)
    """What it is found by; it is ASCII, so that both databases agree what its lower case is."""
    display_name: Mapped[str] = mapped_column(Text)


class PresenceEvent(Base):
    """What happened to a user's presence, in the order of `id`: appended, trimmed by age, never changed.

    `session_id` is the application that acted or whose session ended; NIL when what a user said expired.
    `availability` and `activity` are what the session or the preference had been set to, by this event or until it;
    they are null when the event is about something else.
    """

    __tablename__ = "presence_event"
    __table_args__ = (
        Index(None, "tenant_id", "user_id", "at"),
        {"sqlite_autoincrement": True},  # an id is never used again, so that the order stands when old rows go
    )

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), Identity(always=True), primary_key=True
    )
    at: Mapped[datetime]
    tenant_id: Mapped[Guid]
    user_id: Mapped[Guid]
    session_id: Mapped[Guid]
    kind: Mapped[EventKind]
    availability: Mapped[Availability | None]
    activity: Mapped[Activity | None]
    expires_at: Mapped[datetime | None]
    request_id: Mapped[Guid | None]
    actor: Mapped[str | None] = mapped_column(Text)
    """Who did it when it was no application: an operator, such as `cli:root`."""
