"""What nobody needs any more, and how it goes: a table's rows in the order of its key, a batch at a time.

No index leads to the rows that have expired (docs/decisions/0004-no-index-on-expiry.md), so a sweep walks them all: it
looks at the next rows without a lock and then, when some are stale, removes those in one short transaction, on
PostgreSQL one statement that passes over what somebody else has locked. Many may sweep at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from time import monotonic, sleep
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Engine,
    Select,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    literal,
    null,
    select,
    tuple_,
    update,
)
from typing_extensions import override

from app.db.database import Database
from app.db.models import PresenceEvent, PresenceSession, PresenceUser
from app.db.statements import EVENT, MOST, RECORD, SAID, SESSION, TICK, Part
from app.db.store import Event, EventLog
from app.domain.values import NIL, EventKind

Pause = Callable[[float], None]
"""Waits for so many seconds."""
PAUSES = 2
"""How many times as long as it held the write lock a sweep on SQLite leaves it to others."""
CUTOFF = bindparam("cutoff", type_=EVENT.at.type)
"""What ended at or before this moment is stale."""


@dataclass(frozen=True, eq=False)
class Stale:
    """What a sweep removes from one table."""

    table: Any
    looks_stale: ColumnElement[bool]
    besides: tuple[ColumnElement[bool], ...] = ()
    """What is asked of those that look so, and would cost too much to ask of all."""
    nulls: tuple[str, ...] = ()
    """The columns that become null; none: the row goes."""
    event: tuple[Any, ...] = ()
    """What is recorded of it: session_id, kind, availability, activity, expires_at; or nothing is."""
    by_age: bool = False
    """True when the key is in the order of age: after a batch in which nothing looks stale, nothing is."""

    @property
    def key(self) -> tuple[ColumnElement[Any], ...]:
        """The columns in whose order the table is walked."""
        return tuple(self.table.primary_key)

    def bound(self, name: str) -> tuple[ColumnElement[Any], ...]:
        """Return the parameters for a row's key."""
        return tuple(bindparam(f"{name}_{column.name}", type_=column.type) for column in self.key)

    def page(self) -> Select[Any]:
        """Return the query for the next rows: the last one's key, and how many of them look stale."""
        stale = case((self.looks_stale, 1), else_=0).label("stale")
        rows = select(*self.key, stale).where(tuple_(*self.key) > tuple_(*self.bound("after")))
        page = rows.order_by(*self.key).limit(MOST).offset(0).subquery("page")
        key = [page.c[column.name] for column in self.key]
        return select(*key, func.sum(page.c.stale).over()).order_by(*(each.desc() for each in key)).limit(1).offset(0)

    def within(self) -> tuple[ColumnElement[bool], ...]:
        """Return the conditions for what is stale in such a page."""
        key = tuple_(*self.key)
        after, last = tuple_(*self.bound("after")), tuple_(*self.bound("last"))
        return (key > after, key <= last, self.looks_stale, *self.besides)

    def find(self) -> Select[Any]:
        """Return the query for what is stale in such a page, and what is recorded of it."""
        names = ("session_id", "kind", "availability", "activity", "expires_at")
        told = [column.label(f"told_{name}") for name, column in zip(names, self.event, strict=False)]
        return select(*self.key, *told).where(*self.within())

    def remove(self, *which: ColumnElement[bool]) -> Any:
        """Return the statement that removes what meets all conditions, and returns a row for each."""
        change = update(self.table).values(dict.fromkeys(self.nulls, null())) if self.nulls else delete(self.table)
        return change.where(*which).returning(self.key[-1])


def _part(part: Part, kind: EventKind) -> Stale:
    availability, activity = (SAID[name] for name in Part.PREFERRED.value[:2])
    shown = (availability, activity) if part is Part.PREFERRED else _no_state
    expires_at = SAID[part.value[-1]]
    event = (literal(NIL, SESSION.session_id.type), literal(kind, EVENT.kind.type), *shown, expires_at)
    return Stale(PresenceUser.__table__, expires_at <= CUTOFF, nulls=part.value, event=event)


_no_state = (cast(null(), EVENT.availability.type), cast(null(), EVENT.activity.type))
_expired = literal(EventKind.EXPIRED, EVENT.kind.type)
_newer = PresenceEvent.__table__.alias("newer")

SESSIONS = Stale(
    PresenceSession.__table__,
    SESSION.expires_at <= CUTOFF,
    event=(SESSION.session_id, _expired, SESSION.availability, SESSION.activity, SESSION.expires_at),
)
PARTS = (
    _part(Part.PREFERRED, EventKind.PREFERRED_EXPIRED),
    _part(Part.MESSAGE, EventKind.MESSAGE_EXPIRED),
    _part(Part.MANUAL_LOCATION, EventKind.LOCATION_EXPIRED),
    _part(Part.AUTOMATIC_LOCATION, EventKind.LOCATION_EXPIRED),
)
USERS = Stale(PresenceUser.__table__, and_(*(SAID[part.value[0]].is_(None) for part in Part)))
"""Users of whom nothing is said any more."""
EVENTS = Stale(
    PresenceEvent.__table__,
    EVENT.at <= CUTOFF,
    besides=(
        select(_newer.c.id)
        .where(_newer.c.tenant_id == EVENT.tenant_id, _newer.c.user_id == EVENT.user_id)
        .where(tuple_(_newer.c.at, _newer.c.id) > tuple_(EVENT.at, EVENT.id))
        .exists(),
    ),
    by_age=True,
)
"""Old events, but never a user's newest, which his sequenceNumber is made of."""
ALL = (SESSIONS, *PARTS, USERS, EVENTS)


def _in_one(what: Stale) -> Any:
    """Return the PostgreSQL statement that removes what is stale in a page, records it and returns how much it was."""
    stale = what.find().with_for_update(skip_locked=True).cte("stale")
    gone = what.remove(*(column == stale.c[column.name] for column in what.key)).cte("gone")
    counted = select(func.count()).select_from(gone)
    if not what.event:
        return counted
    ended_at, user = stale.c.told_expires_at, (stale.c.tenant_id, stale.c.user_id)
    newest = select(func.max(EVENT.at)).where(EVENT.tenant_id == user[0], EVENT.user_id == user[1]).scalar_subquery()
    order = (ended_at, stale.c.told_session_id)
    before = func.row_number().over(partition_by=user, order_by=order) - 1  # others of the same user in this batch
    at = func.greatest(ended_at, newest.op("+")(TICK)) + before * TICK
    told = (stale.c[f"told_{name}"] for name in ("session_id", "kind", "availability", "activity", "expires_at"))
    events = select(at, *user, *told, cast(null(), EVENT.request_id.type)).order_by(*user, *order)
    return counted.add_cte(insert(PresenceEvent).from_select(RECORD, events).cte("recorded"))


class Sweeper(Database, ABC):
    """Removes what is stale from one database."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._page = {what: self._prepared(what.page()) for what in ALL}

    def batches(self, what: Stale, cutoff: datetime, most: int) -> Iterator[int]:
        """Remove what was stale at `cutoff`, looking at `most` rows at a time; yield how many went each time.

        Raises:
            StoreUnavailable: the database does not answer, or not in time. What went before is gone.
        """
        names = [column.name for column in what.key]
        last: tuple[object, ...] = (0,) if what is EVENTS else (NIL,) * len(names)
        while True:
            bounds = {"cutoff": cutoff, "most": most, **{f"after_{n}": v for n, v in zip(names, last, strict=True)}}
            page = self._run(self._page[what], bounds)
            if not page:
                return
            *last_key, looks_stale = page[0]
            last = tuple(last_key)
            if looks_stale:
                yield self._remove(what, {**bounds, **{f"last_{n}": v for n, v in zip(names, last, strict=True)}})
            elif what.by_age:
                return
            else:
                yield 0

    @abstractmethod
    def _remove(self, what: Stale, bounds: Mapping[str, object]) -> int:
        """Remove and record what is stale in one page, in one transaction; return how much it was."""


class PostgresSweeper(Sweeper):
    """One statement a batch."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._in_one = {what: self._prepared(_in_one(what)) for what in ALL}

    @override
    def _remove(self, what: Stale, bounds: Mapping[str, object]) -> int:
        ((count,),) = self._run(self._in_one[what], bounds)
        return int(count)


class SqliteSweeper(Sweeper):
    """A few steps under the database's one write lock, and then a pause: most of the time it is there for others."""

    def __init__(self, engine: Engine, pause: Pause) -> None:
        super().__init__(engine)
        self._pause = pause
        self._find = {what: self._prepared(what.find()) for what in ALL}
        self._drop = {what: self._prepared(what.remove(*what.within())) for what in ALL}
        self._record = EventLog(self._dialect).record

    @override
    def _remove(self, what: Stale, bounds: Mapping[str, object]) -> int:
        began = monotonic()
        removed = self._remove_at_once(what, bounds)
        self._pause(PAUSES * (monotonic() - began))
        return removed

    def _remove_at_once(self, what: Stale, bounds: Mapping[str, object]) -> int:
        with self._write() as cursor:
            found = self._find[what].run(cursor, bounds) if what.event else []
            for *key, app_id, kind, availability, activity, ended_at in sorted(found, key=itemgetter(-1)):
                self._record(
                    cursor, Event(key[0], key[1], app_id, kind, ended_at, None, availability, activity, ended_at)
                )
            return len(self._drop[what].run(cursor, bounds))


def make_sweeper(engine: Engine, pause: Pause = sleep) -> Sweeper:
    """Return the sweeper for the engine's kind of database."""
    return PostgresSweeper(engine) if engine.dialect.name == "postgresql" else SqliteSweeper(engine, pause)
