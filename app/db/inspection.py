"""What operators look at: the history, sessions by application, and figures that do not read everything."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Select, String, case, cast, func, literal, select, true, tuple_

from app.db.database import Database
from app.db.models import PresenceEvent, PresenceSession
from app.db.prepared import Row
from app.db.statements import EVENT, KEY, SESSION, STATE
from app.domain.values import PastEvent, Session, SessionKey, Shown

MOST_SAMPLED = 1_500
"""Sessions that a figure is made from; of more, a sample of about so many."""
SPREAD = 8
"""Of the rows of a page, which were often written together, one in so many is taken."""
ROWS_IN_A_PAGE = 40
"""Of presence_session on PostgreSQL: 8 KiB at a fill factor of 70, some 130 bytes each."""
MINUTE = timedelta(minutes=1)
NEWEST_EVENTS = 50_000
"""How far back the events of each minute are looked for; more would be slow."""


class StoredSession(NamedTuple):
    """A session, and whose it is."""

    tenant_id: str
    user_id: str
    session: Session

    @property
    def key(self) -> SessionKey:
        """What the store knows it by."""
        return SessionKey(self.tenant_id, self.user_id, self.session.session_id)


class Sample(NamedTuple):
    """Live sessions, all or some of them."""

    sessions: Sequence[StoredSession]
    each_stands_for: float
    """1: these are all."""


class Minute(NamedTuple):
    """How many events were recorded in the minute that begins at `at`."""

    at: datetime
    events: int


class Inspector(Database):
    """Reads one database for its operators. No statement here is part of a request of the API."""

    def history(
        self, tenant_id: str, user_id: str, most: int, before: tuple[datetime, int] | None = None
    ) -> list[PastEvent]:
        """Return a user's events, newest first: those before the one of a moment and id."""
        found = select(PresenceEvent.__table__).where(EVENT.tenant_id == tenant_id, EVENT.user_id == user_id)
        if before is not None:
            found = found.where(tuple_(EVENT.at, EVENT.id) < _row((EVENT.at, EVENT.id), before))
        return [
            PastEvent(id_, at, app_id, kind, Shown(availability, activity) if availability else None, *rest)
            for id_, at, _tenant, _user, app_id, kind, availability, activity, *rest in self._rows(
                found.order_by(EVENT.at.desc(), EVENT.id.desc()).limit(most)
            )
        ]

    def live_sessions(
        self,
        now: datetime,
        most: int,
        *,
        tenant_id: str | None = None,
        user_id: str | None = None,
        app_id: str | None = None,
        after: SessionKey | None = None,
    ) -> list[StoredSession]:
        """Return the live sessions of a tenant, a user, an application, in the order of their keys, after one."""
        key = tuple(SESSION[name] for name in KEY)
        wanted = zip(key, (tenant_id, user_id, app_id), strict=True)
        found = select(*key[:2], *STATE).where(SESSION.expires_at > now)
        found = found.where(*(column == value for column, value in wanted if value is not None))
        if after is not None:
            found = found.where(tuple_(*key) > _row(key, after))
        return self._stored(found.order_by(*key).limit(most))

    def sample(self, now: datetime, tenant_id: str | None) -> Sample:
        """Return live sessions of a tenant, or of all: all of them when there are few, else about MOST_SAMPLED."""
        many = self._has_many(tenant_id)
        source, one_in, share = self._part(tenant_id) if many else (PresenceSession.__table__, 1.0, true())
        columns = (source.c[name] for name in (*KEY[:2], *(column.name for column in STATE)))
        found = select(*columns).where(source.c.expires_at > now, share)
        if tenant_id is not None:
            found = found.where(source.c.tenant_id == tenant_id)
        return Sample(self._stored(found), one_in)

    def _has_many(self, tenant_id: str | None) -> bool:
        few = select(SESSION.session_id).limit(MOST_SAMPLED + 1)
        if tenant_id is not None:
            few = few.where(SESSION.tenant_id == tenant_id)
        ((count,),) = self._rows(select(func.count()).select_from(few.subquery("few")))
        return bool(count > MOST_SAMPLED)

    def _part(self, tenant_id: str | None) -> tuple[Any, float, ColumnElement[bool]]:
        """Return a random part of the sessions: what to select from, how many each stands for, and by what condition.

        PostgreSQL reads some pages and no others, of all tenants; SQLite has to pass over every row.
        """
        table, name = PresenceSession.__table__, PresenceSession.__tablename__
        if self._dialect.name == "postgresql":
            page_bytes = cast(func.current_setting("block_size"), BigInteger)
            ((pages,),) = self._rows(select(func.pg_relation_size(name) / page_bytes))
            one_in = max(1.0, float(pages) * ROWS_IN_A_PAGE / MOST_SAMPLED)
            percent = min(100.0, 100 * SPREAD / one_in)
            return table.tablesample(func.system(percent), name=name), one_in, func.random() < 100 / one_in / percent
        rows = select(func.count()).select_from(PresenceSession)
        if tenant_id is not None:
            rows = rows.where(SESSION.tenant_id == tenant_id)
        ((count,),) = self._rows(rows)
        one_in = count // MOST_SAMPLED
        return table, float(one_in), func.abs(func.random()) % one_in == 0

    def minutes(self, since: datetime, until: datetime, tenant_id: str | None) -> list[Minute]:
        """Return how many events each minute between two full ones brought, oldest first.

        Only the newest NEWEST_EVENTS of all tenants are looked at; minutes that they do not cover are left out.
        """
        newest = select(EVENT.at, EVENT.tenant_id).order_by(EVENT.id.desc()).limit(NEWEST_EVENTS).subquery("newest")
        lately = newest.c.at >= literal(since, EVENT.at.type)
        minute = case((lately, self._minute(newest.c.at)), else_="").label("minute")
        each = select(minute, newest.c.at, newest.c.tenant_id).subquery("each")
        counted = func.count() if tenant_id is None else func.count().filter(each.c.tenant_id == tenant_id)
        rows = self._rows(select(each.c.minute, counted, func.count(), func.min(each.c.at)).group_by(each.c.minute))
        if sum(looked_at for *_, looked_at, _ in rows) == NEWEST_EVENTS:
            since = max(since, min(row[-1] for row in rows).replace(second=0, microsecond=0) + MINUTE)
        found: dict[str, int] = {minute: count for minute, count, *_ in rows}
        moments = (since + n * MINUTE for n in range((until - since) // MINUTE))
        return [Minute(moment, found.get(f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}", 0)) for moment in moments]

    def _minute(self, moment: ColumnElement[datetime]) -> ColumnElement[str]:
        if self._dialect.name == "sqlite":
            return func.substr(moment, 1, 16, type_=String)
        return func.to_char(func.timezone("UTC", moment), "YYYY-MM-DD HH24:MI", type_=String)

    def _stored(self, sessions: Select[Any]) -> list[StoredSession]:
        return [
            StoredSession(tenant_id, user_id, Session(session_id, Shown(availability, activity), *moments))
            for tenant_id, user_id, session_id, availability, activity, *moments in self._rows(sessions)
        ]

    def _rows(self, statement: Any) -> list[Row]:
        return self._run(self._prepared(statement), {})


def _row(columns: Sequence[ColumnElement[Any]], values: Sequence[object]) -> ColumnElement[Any]:
    return tuple_(*(literal(value, column.type) for column, value in zip(columns, values, strict=True)))
