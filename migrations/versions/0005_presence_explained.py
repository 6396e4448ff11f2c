"""Why each user shows what he shows, in SQL

Revision: 0005, after 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# The clock of each database, and that clock earlier, in the form in which its columns hold a moment; and set_at, later.
NOW = {
    "postgresql": "now()",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000+00:00', 'now')",
}
AGO = {
    "postgresql": "now() - interval '{minutes} minutes'",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000+00:00', 'now', '-{minutes} minutes')",
}
AFTER_SET = {
    "postgresql": "set_at + interval '{minutes} minutes'",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%S', substr(set_at, 1, 19), '+{minutes} minutes') || substr(set_at, 20)",
}

# The rules of app/domain/explain.py, in SQL; a property test holds the two against each other.
PRESENCE_EXPLAINED = """
CREATE VIEW presence_explained AS
WITH faded AS (
    SELECT tenant_id, user_id, session_id, changed_at, set_at, expires_at,
        availability AS set_availability, activity AS set_activity,
        expires_at > {now} AS live,
        CASE
            WHEN expires_at <= {now} THEN 'Offline'
            WHEN availability = 'Available' AND set_at <= {away} THEN 'Away'
            ELSE availability
        END AS shows_availability,
        CASE
            WHEN expires_at <= {now} THEN 'Offline'
            WHEN availability = 'Available' AND set_at <= {away} THEN 'Away'
            WHEN availability = 'Available' AND set_at <= {inactive} THEN 'AvailableInactive'
            ELSE activity
        END AS shows_activity,
        CASE
            WHEN expires_at <= {now} THEN NULL
            WHEN availability = 'Available' AND set_at > {inactive} AND {inactive_at} < expires_at THEN {inactive_at}
            WHEN availability = 'Available' AND set_at > {away} AND {away_at} < expires_at THEN {away_at}
            ELSE expires_at
        END AS turns_at
    FROM presence_session
),
ranked AS (
    SELECT *,
        CASE
            WHEN shows_availability = 'DoNotDisturb' THEN 4
            WHEN shows_availability = 'Busy' THEN 3
            WHEN shows_activity = 'Available' THEN 2
            WHEN shows_activity = 'AvailableInactive' THEN 1
            WHEN shows_availability = 'Away' THEN 0
            ELSE -1
        END AS significance
    FROM faded
),
placed AS (
    SELECT *,
        row_number() OVER places AS place,
        lead(significance) OVER places AS next_significance,
        lead(changed_at) OVER places AS next_changed_at
    FROM ranked
    WINDOW places AS (PARTITION BY tenant_id, user_id ORDER BY significance DESC, changed_at DESC, session_id)
),
judged AS (
    SELECT *,
        max(
            CASE
                WHEN place > 1 THEN NULL
                WHEN significance < 0 THEN 'noneLive'
                WHEN coalesce(next_significance, -1) < 0 THEN 'onlyOne'
                WHEN significance > next_significance THEN 'mostSignificant'
                WHEN changed_at > next_changed_at THEN 'setLast'
                ELSE 'smallerId'
            END
        ) OVER (PARTITION BY tenant_id, user_id) AS rule
    FROM placed
)
SELECT seen.tenant_id, seen.user_id, seen.availability, seen.activity,
    coalesce(judged.rule, 'noneLive') AS rule,
    CASE
        WHEN said.preferred_expires_at IS NULL THEN 'notSet'
        WHEN said.preferred_expires_at <= {now} THEN 'expired'
        WHEN seen.session_id IS NULL THEN 'noLiveSession'
        ELSE 'applies'
    END AS preference,
    said.preferred_availability, said.preferred_activity, said.preferred_expires_at,
    judged.session_id, judged.set_availability, judged.set_activity,
    judged.shows_availability, judged.shows_activity, judged.live,
    CASE WHEN judged.live THEN judged.place END AS place,
    judged.changed_at, judged.set_at, judged.turns_at, judged.expires_at
FROM presence_now AS seen
LEFT JOIN judged ON judged.tenant_id = seen.tenant_id AND judged.user_id = seen.user_id
LEFT JOIN presence_user AS said ON said.tenant_id = seen.tenant_id AND said.user_id = seen.user_id
"""


def upgrade() -> None:
    kind = op.get_bind().dialect.name
    ago, after = AGO[kind], AFTER_SET[kind]
    view = PRESENCE_EXPLAINED.format(
        now=NOW[kind],
        inactive=ago.format(minutes=5),
        away=ago.format(minutes=10),
        inactive_at=after.format(minutes=5),
        away_at=after.format(minutes=10),
    )
    op.execute(view)


def downgrade() -> None:
    op.execute("DROP VIEW presence_explained")
