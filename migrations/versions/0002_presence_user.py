"""What is said of a user apart from sessions, and its part in presence_now

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
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
LOCATIONS = ("unspecified", "office", "remote", "timeOff")

NOW = {
    "postgresql": "now()",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000+00:00', 'now')",
}

# The rules of presence_of() in app/domain/aggregate.py, in SQL; a property test holds the two against each other.
PRESENCE_NOW = """
CREATE VIEW presence_now AS
SELECT known.tenant_id, known.user_id,
    CASE
        WHEN sessions.session_id IS NULL THEN 'Offline'
        WHEN said.preferred_expires_at > {now} THEN said.preferred_availability
        ELSE sessions.availability
    END AS availability,
    CASE
        WHEN sessions.session_id IS NULL THEN 'Offline'
        WHEN said.preferred_expires_at > {now} THEN said.preferred_activity
        ELSE sessions.activity
    END AS activity,
    coalesce(sessions.live_sessions, 0) AS live_sessions,
    sessions.session_id, sessions.changed_at, sessions.expires_at,
    CASE WHEN said.preferred_expires_at > {now} THEN said.preferred_expires_at END AS preferred_until,
    CASE WHEN said.message_expires_at IS NULL OR said.message_expires_at > {now} THEN said.message END
        AS status_message,
    CASE
        WHEN said.manual_expires_at > {now} THEN said.manual_location
        WHEN said.automatic_expires_at > {now} THEN said.automatic_location
    END AS work_location
FROM (
    SELECT tenant_id, user_id FROM presence_session UNION SELECT tenant_id, user_id FROM presence_user
) AS known
LEFT JOIN presence_session_now AS sessions
    ON sessions.tenant_id = known.tenant_id AND sessions.user_id = known.user_id
LEFT JOIN presence_user AS said ON said.tenant_id = known.tenant_id AND said.user_id = known.user_id
"""


def guid() -> sa.types.TypeEngine[str]:
    return sa.String(36).with_variant(postgresql.UUID(as_uuid=False), "postgresql")


def moment() -> sa.types.TypeEngine[str]:
    return sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")


def one_of(name: str, values: tuple[str, ...]) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=32)


def upgrade() -> None:
    op.create_table(
        "presence_user",
        sa.Column("tenant_id", guid(), nullable=False),
        sa.Column("user_id", guid(), nullable=False),
        sa.Column("preferred_availability", one_of("preferred_availability", AVAILABILITIES)),
        sa.Column("preferred_activity", one_of("preferred_activity", ACTIVITIES)),
        sa.Column("preferred_expires_at", moment()),
        sa.Column("message", sa.Text()),
        sa.Column("message_published_at", moment()),
        sa.Column("message_expires_at", moment()),
        sa.Column("manual_location", one_of("manual_location", LOCATIONS)),
        sa.Column("manual_place_id", sa.Text()),
        sa.Column("manual_expires_at", moment()),
        sa.Column("automatic_location", one_of("automatic_location", LOCATIONS)),
        sa.Column("automatic_place_id", sa.Text()),
        sa.Column("automatic_expires_at", moment()),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", name="pk_presence_user"),
    )
    op.execute("DROP VIEW presence_now")
    op.execute(PRESENCE_NOW.format(now=NOW[op.get_bind().dialect.name]))


def downgrade() -> None:
    op.execute("DROP VIEW presence_now")
    op.execute("CREATE VIEW presence_now AS SELECT * FROM presence_session_now")
    op.drop_table("presence_user")
