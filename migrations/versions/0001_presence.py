"""Presence sessions, their events, and the view that adds them up

Revision: 0001, the first
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

AVAILABILITIES = (
    "Available", "AvailableIdle", "Away", "BeRightBack", "Busy", "BusyIdle", "DoNotDisturb", "Offline",
    "PresenceUnknown",
)  # fmt: skip
ACTIVITIES = (
    "Available", "AvailableInactive", "Away", "BeRightBack", "Busy", "DoNotDisturb", "InACall", "InAConferenceCall",
    "Inactive", "InAMeeting", "Offline", "OffWork", "OutOfOffice", "PresenceUnknown", "Presenting",
    "UrgentInterruptionsOnly",
)  # fmt: skip
KINDS = (
    "set", "cleared", "expired",
    "preferredSet", "preferredCleared", "preferredExpired",
    "messageSet", "messageCleared", "messageExpired",
    "locationSet", "locationCleared", "locationExpired",
)  # fmt: skip

# The clock of each database, `ago` earlier, in the form in which its columns hold a moment.
NOW = {
    "postgresql": "now()",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000+00:00', 'now')",
}
FADED_IF_SET_BY = {
    "postgresql": "now() - interval '{minutes} minutes'",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000+00:00', 'now', '-{minutes} minutes')",
}

# The rules of app/domain/aggregate.py, in SQL; a property test holds the two against each other.
PRESENCE_SESSION_NOW = """
CREATE VIEW presence_session_now AS
WITH faded AS (
    SELECT tenant_id, user_id, session_id, changed_at, expires_at,
        expires_at > {now} AS live,
        CASE
            WHEN expires_at <= {now} THEN 'Offline'
            WHEN availability = 'Available' AND set_at <= {away} THEN 'Away'
            ELSE availability
        END AS availability,
        CASE
            WHEN expires_at <= {now} THEN 'Offline'
            WHEN availability = 'Available' AND set_at <= {away} THEN 'Away'
            WHEN availability = 'Available' AND set_at <= {inactive} THEN 'AvailableInactive'
            ELSE activity
        END AS activity
    FROM presence_session
),
placed AS (
    SELECT *,
        row_number() OVER (
            PARTITION BY tenant_id, user_id
            ORDER BY
                CASE
                    WHEN availability = 'DoNotDisturb' THEN 4
                    WHEN availability = 'Busy' THEN 3
                    WHEN activity = 'Available' THEN 2
                    WHEN activity = 'AvailableInactive' THEN 1
                    WHEN availability = 'Away' THEN 0
                    ELSE -1
                END DESC,
                changed_at DESC,
                session_id
        ) AS place,
        sum(CASE WHEN live THEN 1 ELSE 0 END) OVER (PARTITION BY tenant_id, user_id) AS live_sessions
    FROM faded
)
SELECT tenant_id, user_id, availability, activity, live_sessions,
    CASE WHEN live THEN session_id END AS session_id,
    CASE WHEN live THEN changed_at END AS changed_at,
    CASE WHEN live THEN expires_at END AS expires_at
FROM placed
WHERE place = 1
"""


def guid() -> sa.types.TypeEngine[str]:
    return sa.String(36).with_variant(postgresql.UUID(as_uuid=False), "postgresql")


def moment() -> sa.types.TypeEngine[str]:
    return sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")


def one_of(name: str, values: tuple[str, ...]) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=32)


def upgrade() -> None:
    op.create_table(
        "presence_session",
        sa.Column("tenant_id", guid(), nullable=False),
        sa.Column("user_id", guid(), nullable=False),
        sa.Column("session_id", guid(), nullable=False),
        sa.Column("availability", one_of("availability", AVAILABILITIES), nullable=False),
        sa.Column("activity", one_of("activity", ACTIVITIES), nullable=False),
        sa.Column("changed_at", moment(), nullable=False),
        sa.Column("set_at", moment(), nullable=False),
        sa.Column("expires_at", moment(), nullable=False),
        sa.CheckConstraint("expires_at > set_at", name="lifetime"),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "session_id", name="pk_presence_session"),
        sqlite_with_rowid=False,
        postgresql_with={"fillfactor": 70},
    )
    op.create_table(
        "presence_event",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(always=True), nullable=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("tenant_id", guid(), nullable=False),
        sa.Column("user_id", guid(), nullable=False),
        sa.Column("session_id", guid(), nullable=False),
        sa.Column("kind", one_of("kind", KINDS), nullable=False),
        sa.Column("availability", one_of("availability", AVAILABILITIES), nullable=True),
        sa.Column("activity", one_of("activity", ACTIVITIES), nullable=True),
        sa.Column("expires_at", moment(), nullable=True),
        sa.Column("request_id", guid(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_presence_event"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_presence_event_tenant_id_user_id_at", "presence_event", ["tenant_id", "user_id", "at"])
    kind = op.get_bind().dialect.name
    ago = FADED_IF_SET_BY[kind]
    op.execute(PRESENCE_SESSION_NOW.format(now=NOW[kind], inactive=ago.format(minutes=5), away=ago.format(minutes=10)))
    op.execute("CREATE VIEW presence_now AS SELECT * FROM presence_session_now")


def downgrade() -> None:
    op.execute("DROP VIEW presence_now")
    op.execute("DROP VIEW presence_session_now")
    op.drop_table("presence_event")
    op.drop_table("presence_session")
