"""The hot SQL, built once from the models' tables. Each statement names tenant and user: one shard, few rows.

A mutation is one statement on PostgreSQL (the row is the lock) and a few within one transaction on SQLite, where a
round trip costs nothing. Both append the same events and return the same rows.
"""

from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects import postgresql, sqlite

from app.db.models import PresenceEvent, PresenceSession
from app.domain.values import Availability, EventKind

SESSION = PresenceSession.__table__.c
EVENT = PresenceEvent.__table__.c

TENANT = bindparam("tenant_id", type_=SESSION.tenant_id.type)
USER = bindparam("user_id", type_=SESSION.user_id.type)
APP = bindparam("session_id", type_=SESSION.session_id.type)
AVAILABILITY = cast(bindparam("availability", type_=SESSION.availability.type), SESSION.availability.type)
ACTIVITY = cast(bindparam("activity", type_=SESSION.activity.type), SESSION.activity.type)
EXPIRES = bindparam("expires_at", type_=SESSION.expires_at.type)
REQUEST = bindparam("request_id", type_=EVENT.request_id.type)
NOW = bindparam("now", type_=SESSION.set_at.type)
"""The request's instant."""
FADED = bindparam("faded_if_set_by", type_=SESSION.set_at.type)
"""An Available session last set at or before this moment has faded."""

THIS_USER = and_(SESSION.tenant_id == TENANT, SESSION.user_id == USER)
THIS_SESSION = and_(THIS_USER, SESSION.session_id == APP)
OTHER_SESSIONS = and_(THIS_USER, SESSION.session_id != APP)
KEY = ("tenant_id", "user_id", "session_id")
SHOWN = ("availability", "activity")
STATE = tuple(SESSION[name] for name in ("session_id", *SHOWN, "changed_at", "set_at", "expires_at"))
RECORD = ("at", *KEY, "kind", *SHOWN, "expires_at", "request_id")

NEWEST = select(func.max(EVENT.at).label("at")).where(EVENT.tenant_id == TENANT, EVENT.user_id == USER)

_newest = NEWEST.subquery()
READ_USER = select(_newest.c.at.label("recorded_at"), *STATE).select_from(
    _newest.outerjoin(PresenceSession.__table__, THIS_USER)
)
"""All that is known of one user: always a row, its session part null when there is none."""


# --- SQLite: steps between BEGIN IMMEDIATE and COMMIT

DELETE_LIVE_SESSION = delete(PresenceSession).where(THIS_SESSION, SESSION.expires_at > NOW).returning(*STATE)
READ_SESSION = select(*STATE).where(THIS_SESSION)
READ_OTHER_SESSIONS = select(*STATE).where(OTHER_SESSIONS)
INSERT_EVENT = insert(PresenceEvent)
_put = sqlite.insert(PresenceSession)
PUT_SESSION = _put.on_conflict_do_update(
    index_elements=KEY, set_={column.name: _put.excluded[column.name] for column in STATE[1:]}
)


# --- PostgreSQL: one statement

TICK: ColumnElement[timedelta] = literal_column("interval '1 microsecond'")


def _recorded_at(moment: ColumnElement[datetime]) -> ColumnElement[datetime]:
    """Return `moment`, or just after the user's newest event if that is later: a user's events never stand still."""
    return func.greatest(moment, NEWEST.scalar_subquery().op("+")(TICK))


_ended = DELETE_LIVE_SESSION.cte("ended")
_recorded = (
    insert(PresenceEvent)
    .from_select(
        RECORD,
        select(
            _recorded_at(NOW), TENANT, USER, _ended.c.session_id, literal(EventKind.CLEARED, EVENT.kind.type)
        ).add_columns(_ended.c.availability, _ended.c.activity, _ended.c.expires_at, REQUEST),
    )
    .cte("recorded")
)
END_SESSION = select(*STATE).select_from(_ended.outerjoin(PresenceSession.__table__, OTHER_SESSIONS)).add_cte(_recorded)
"""End the caller's live session. No row: there was none. Else the user's other sessions, or one row of nulls."""

_before = select(*STATE).where(THIS_SESSION).with_for_update().cte("before")
_stands = and_(
    _before.c.expires_at > NOW,
    _before.c.availability == AVAILABILITY,
    _before.c.activity == ACTIVITY,
    or_(_before.c.availability != literal(Availability.AVAILABLE, SESSION.availability.type), _before.c.set_at > FADED),
)
"""The live session already shows the same, unfaded: this is a keep-alive."""
_upsert = postgresql.insert(PresenceSession).from_select(
    (*KEY, *SHOWN, "changed_at", "set_at", "expires_at"),
    select(
        TENANT, USER, APP, AVAILABILITY, ACTIVITY, case((_stands, _before.c.changed_at), else_=NOW), NOW, EXPIRES
    ).select_from(select(literal_column("1")).subquery("one").outerjoin(_before, true())),
)
_set = (
    _upsert.on_conflict_do_update(
        index_elements=KEY, set_={column.name: _upsert.excluded[column.name] for column in STATE[1:]}
    )
    .returning(*STATE)
    .cte("put")
)
_expired_at = _recorded_at(_before.c.expires_at)
_after_expiry = select(_expired_at.op("+")(TICK)).where(_before.c.expires_at <= NOW).correlate(None).scalar_subquery()
"""Just after the end that the same statement records; null when it records none."""
_recorded = (
    insert(PresenceEvent)
    .from_select(
        RECORD,
        union_all(
            select(_expired_at, TENANT, USER, APP, literal(EventKind.EXPIRED, EVENT.kind.type))
            .add_columns(_before.c.availability, _before.c.activity, _before.c.expires_at, REQUEST)
            .where(_before.c.expires_at <= NOW),
            select(func.greatest(_recorded_at(NOW), _after_expiry), TENANT, USER, APP)
            .add_columns(literal(EventKind.SET, EVENT.kind.type), AVAILABILITY, ACTIVITY, EXPIRES, REQUEST)
            .select_from(_set.outerjoin(_before, _stands))
            .where(_before.c.session_id.is_(None)),
        ),
    )
    .cte("recorded")
)
SET_SESSION = union_all(select(*_set.c), select(*STATE).where(OTHER_SESSIONS)).add_cte(_recorded)
"""Set the caller's session. Rows: that session as it is now, and the user's others."""
