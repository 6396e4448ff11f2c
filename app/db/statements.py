"""The hot SQL, built once from the models' tables. Each statement names tenant and user: one shard, few rows.

A mutation is one statement on PostgreSQL (the row is the lock) and a few within one transaction on SQLite, where a
round trip costs nothing. Both append the same events and return the same rows.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    Insert,
    Integer,
    Select,
    String,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
    type_coerce,
    union,
    union_all,
    update,
)
from sqlalchemy import Enum as EnumType
from sqlalchemy.dialects import postgresql, sqlite

from app.db.models import PresenceEvent, PresenceSession, PresenceUser
from app.domain.aggregate import IMMINENT, NO_TIME
from app.domain.values import Availability, EventKind

SESSION = PresenceSession.__table__.c
EVENT = PresenceEvent.__table__.c
SAID = PresenceUser.__table__.c

TENANT = bindparam("tenant_id", type_=SESSION.tenant_id.type)
USER = bindparam("user_id", type_=SESSION.user_id.type)
APP = bindparam("session_id", type_=SESSION.session_id.type)
AVAILABILITY = cast(bindparam("availability", type_=SESSION.availability.type), SESSION.availability.type)
ACTIVITY = cast(bindparam("activity", type_=SESSION.activity.type), SESSION.activity.type)
EXPIRES = bindparam("expires_at", type_=SESSION.expires_at.type)
KIND = bindparam("kind", type_=EVENT.kind.type)
REQUEST = bindparam("request_id", type_=EVENT.request_id.type)
ACTOR = bindparam("actor", type_=EVENT.actor.type)
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
RECORD_AS = (*RECORD, "actor")
"""Of what an operator does; what an application does leaves `actor` null and pays nothing for it."""

NEWEST = select(func.max(EVENT.at).label("at")).where(EVENT.tenant_id == TENANT, EVENT.user_id == USER)
SAID_STATE = tuple(column for column in SAID if not column.primary_key)


def _as_text(columns: Iterable[ColumnElement[Any]]) -> Iterator[ColumnElement[Any]]:
    """Return columns with the words of enums left as text: of a read, the store makes what it needs of them."""
    return (type_coerce(column, String) if isinstance(column.type, EnumType) else column for column in columns)


def _read(users: FromClause, user_id: ColumnElement[str]) -> Select[Any]:
    """Return the query for all that is known of each user: the newest event, what is said of them, their sessions.

    Always a row for each user; what there is none of is null.
    """
    newest = select(func.max(EVENT.at)).where(EVENT.tenant_id == TENANT, EVENT.user_id == user_id).scalar_subquery()
    said = and_(SAID.tenant_id == TENANT, SAID.user_id == user_id)
    sessions = and_(SESSION.tenant_id == TENANT, SESSION.user_id == user_id)
    rows = users.outerjoin(PresenceUser.__table__, said).outerjoin(PresenceSession.__table__, sessions)
    user = (user_id.label("known_id"), newest.label("recorded_at"), *SAID_STATE)
    return select(*_as_text((*STATE, *user))).select_from(rows)


_one = select(USER.label("id")).subquery("one")
READ_USER = _read(_one, _one.c.id)


def _each(users: FromClause, user_id: ColumnElement[str]) -> Select[Any]:
    """Return the same query for PostgreSQL, fenced: it looks each user up, and never reads all users of the tenant.

    The planner cannot know how few are asked for; an OFFSET keeps it from joining whole tables.
    """

    def looked_up(columns: Any, of: ColumnElement[str], name: str) -> Any:
        found = select(*columns).where(columns[0].table.c.tenant_id == TENANT, columns[0].table.c.user_id == of)
        return found.offset(FENCE).lateral(name)

    newest = select(func.max(EVENT.at)).where(EVENT.tenant_id == TENANT, EVENT.user_id == user_id).scalar_subquery()
    said = looked_up(SAID_STATE, user_id, "said")
    user = select(user_id.label("known_id"), newest.label("recorded_at"), *said.c)
    seen = user.select_from(users.outerjoin(said, true())).offset(FENCE).subquery("seen")
    sessions = looked_up(STATE, seen.c.known_id, "sessions")
    return select(*_as_text((*sessions.c, *seen.c))).select_from(seen.outerjoin(sessions, true()))


FENCE: ColumnElement[int] = literal_column("0")
LISTED = bindparam("user_ids", type_=String)
"""Ids as one text, which the database takes apart: psycopg spends a microsecond on each element of a list."""
_listed = func.json_each(LISTED).table_valued("value", name="listed")
_rows = _read(_listed, _listed.c.value).subquery("rows")
_unnested = (
    func.unnest(cast(LISTED, postgresql.ARRAY(SESSION.user_id.type))).table_valued("id").render_derived(name="listed")
)
READ_USERS = {
    "sqlite": select(func.json_group_array(func.json_array(*_rows.c))),
    "postgresql": _each(_unnested, cast(_unnested.c.id, SESSION.user_id.type)),
}
"""The same for a list: a text of JSON on SQLite, of an array on PostgreSQL.

On SQLite the rows come as one text, too: sqlite3 lets go of the interpreter for each row, and of several threads that
do so each waits for the others every time.
"""

AFTER = bindparam("after", type_=SESSION.user_id.type)
MOST = bindparam("most", type_=Integer)
_known = union(
    select(SESSION.user_id).where(SESSION.tenant_id == TENANT, SESSION.user_id > AFTER),
    select(SAID.user_id).where(SAID.tenant_id == TENANT, SAID.user_id > AFTER),
).subquery("known")
LIST_USERS = select(_known.c.user_id).order_by(_known.c.user_id).limit(MOST).offset(0)
"""A page of the users of whom there is a session, live or not, or anything said: those after an id, in order."""
COUNT_USERS = select(func.count()).select_from(_known)


# --- What is said of a user: columns that are set and cleared together


class Part(Enum):
    """The parts of presence_user, each with its columns; the first says whether the part is there."""

    PREFERRED = ("preferred_availability", "preferred_activity", "preferred_expires_at")
    MESSAGE = ("message", "message_published_at", "message_expires_at")
    MANUAL_LOCATION = ("manual_location", "manual_place_id", "manual_expires_at")
    AUTOMATIC_LOCATION = ("automatic_location", "automatic_place_id", "automatic_expires_at")


OF_TENANT = bindparam("of_tenant_id", type_=SAID.tenant_id.type)
OF_USER = bindparam("of_user_id", type_=SAID.user_id.type)
"""An UPDATE takes a parameter that is named like a column for a new value of that column."""


def _put(part: Part, insert_into: Any) -> Any:
    """Return the insert, of either dialect, that sets a part whether or not the user has a row."""
    put = insert_into(PresenceUser).values(
        {"tenant_id": TENANT, "user_id": USER, **{name: bindparam(name, type_=SAID[name].type) for name in part.value}}
    )
    return put.on_conflict_do_update(index_elements=KEY[:2], set_={name: put.excluded[name] for name in part.value})


def _drop(parts: tuple[Part, ...]) -> Any:
    """Return the update that clears parts, of which one has to be there."""
    this_user = and_(SAID.tenant_id == OF_TENANT, SAID.user_id == OF_USER)
    there = or_(*(SAID[part.value[0]].is_not(None) for part in parts))
    nulls = {name: null() for part in parts for name in part.value}
    return update(PresenceUser).where(this_user, there).values(nulls).returning(SAID.user_id)


LOCATIONS = (Part.MANUAL_LOCATION, Part.AUTOMATIC_LOCATION)
CLEARABLE: tuple[tuple[Part, ...], ...] = ((Part.PREFERRED,), (Part.MESSAGE,), (Part.AUTOMATIC_LOCATION,), LOCATIONS)


# --- SQLite: steps between BEGIN IMMEDIATE and COMMIT

DELETE_SESSION = delete(PresenceSession).where(THIS_SESSION)
INSERT_EVENT, INSERT_EVENT_AS = (
    insert(PresenceEvent).values({name: bindparam(name, type_=EVENT[name].type) for name in record})
    for record in (RECORD, RECORD_AS)
)
_replace = sqlite.insert(PresenceSession).values(
    {column.name: bindparam(column.name, type_=column.type) for column in SESSION}
)
PUT_SESSION = _replace.on_conflict_do_update(
    index_elements=KEY, set_={column.name: _replace.excluded[column.name] for column in STATE[1:]}
)
PUT_PART = {part: _put(part, sqlite.insert) for part in Part}
DROP_PARTS = {parts: _drop(parts) for parts in CLEARABLE}


# --- PostgreSQL: one statement

TICK: ColumnElement[timedelta] = literal_column("interval '1 microsecond'")


def _recorded_at(moment: ColumnElement[datetime]) -> ColumnElement[datetime]:
    """Return `moment`, or just after the user's newest event if that is later: a user's events never stand still."""
    return func.greatest(moment, NEWEST.scalar_subquery().op("+")(TICK))


def _end_session(record: tuple[str, ...], *more: ColumnElement[str]) -> Select[Any]:
    """Return the statement that ends a live session. No row: there was none.

    Else the user's other sessions, or one row of nulls.
    """
    ended = delete(PresenceSession).where(THIS_SESSION, SESSION.expires_at > NOW).returning(*STATE).cte("ended")
    event = select(
        _recorded_at(NOW), TENANT, USER, ended.c.session_id, literal(EventKind.CLEARED, EVENT.kind.type)
    ).add_columns(ended.c.availability, ended.c.activity, ended.c.expires_at, REQUEST, *more)
    recorded = insert(PresenceEvent).from_select(record, event).cte("recorded")
    return select(*STATE).select_from(ended.outerjoin(PresenceSession.__table__, OTHER_SESSIONS)).add_cte(recorded)


END_SESSION = _end_session(RECORD)
END_SESSION_AS = _end_session(RECORD_AS, ACTOR)
"""The same in an application's place, by an operator."""

_before = select(*STATE).where(THIS_SESSION).with_for_update().cte("before")


def _stands(length: timedelta) -> ColumnElement[bool]:
    """Return the condition that the live session shows the same already, and will for so long, unfaded."""
    more: ColumnElement[timedelta] = literal_column(f"interval '{length.total_seconds():.0f} seconds'")
    fades = _before.c.availability == literal(Availability.AVAILABLE, SESSION.availability.type)
    return and_(
        _before.c.expires_at > NOW.op("+")(more),
        _before.c.availability == AVAILABILITY,
        _before.c.activity == ACTIVITY,
        or_(not_(fades), _before.c.set_at > FADED.op("+")(more)),
    )


_changed_at = case((_stands(NO_TIME), _before.c.changed_at), else_=NOW)
_upsert = postgresql.insert(PresenceSession).from_select(
    (*KEY, *SHOWN, "changed_at", "set_at", "expires_at"),
    select(TENANT, USER, APP, AVAILABILITY, ACTIVITY, _changed_at, NOW, EXPIRES).select_from(
        select(literal_column("1")).subquery("one").outerjoin(_before, true())
    ),
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
            .select_from(_set.outerjoin(_before, _stands(IMMINENT)))
            .where(_before.c.session_id.is_(None)),
        ),
    )
    .cte("recorded")
)
SET_SESSION = union_all(select(*_set.c), select(*STATE).where(OTHER_SESSIONS)).add_cte(_recorded)
"""Set the caller's session. Rows: that session as it is now, and the user's others.

A keep-alive leaves no event, unless the session was about to turn: somebody may see it turn before this is kept.
"""


def _record(done: CTE) -> Insert:
    """Return the statement that makes a change and records it, when it changed anything."""
    event = select(_recorded_at(NOW), TENANT, USER, APP, KIND).add_columns(AVAILABILITY, ACTIVITY, EXPIRES, REQUEST)
    return insert(PresenceEvent).from_select(RECORD, event.select_from(done)).add_cte(done)


SET_PART = {part: _record(_put(part, postgresql.insert).returning(SAID.user_id).cte("done")) for part in Part}
CLEAR_PARTS = {parts: _record(_drop(parts).cte("done")) for parts in CLEARABLE}
