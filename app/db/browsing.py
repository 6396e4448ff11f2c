"""What people look through across all tenants: a bounded number of rows at a time, in the order of a key.

Nothing is counted in full and nothing is skipped over by OFFSET, so that a page costs the same however many rows there
are. docs/decisions/0022-an-admin-site-of-our-own.md names the exception.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import FromClause, Select, String, cast, func, literal, select, text, tuple_, union
from sqlalchemy.dialects import postgresql

from app.db.inspection import Inspector
from app.db.models import DirectoryUser, PresenceEvent, PresenceSession, PresenceUser
from app.db.statements import EVENT, SAID, SESSION
from app.domain.directory import User
from app.domain.values import NIL, Activity, Availability, EventKind

TABLES = tuple(model.__table__ for model in (PresenceSession, PresenceUser, DirectoryUser, PresenceEvent))
"""Where users are; the key of each, or an index, begins with tenant and user."""
USER = DirectoryUser.__table__.c
MOST_TENANTS = 1000
WINDOW = 50_000
"""The newest events, of which a query without an index to go by looks at no more."""


class UserKey(NamedTuple):
    """Who, in which tenant."""

    tenant_id: str
    user_id: str


FIRST = UserKey(NIL, NIL)


class Change(NamedTuple):
    """One event, whosever it is. What the members hold, app/db/models.py tells."""

    id: int
    at: datetime
    tenant_id: str
    user_id: str
    session_id: str
    kind: EventKind
    availability: Availability | None
    activity: Activity | None
    expires_at: datetime | None
    request_id: str | None
    actor: str | None

    @property
    def key(self) -> UserKey:
        """Whom it is about."""
        return UserKey(self.tenant_id, self.user_id)


CHANGE = tuple(EVENT[name] for name in Change._fields)


class Browser(Inspector):
    """Looks users and changes up in one database."""

    def users(self, after: UserKey, tenant_id: str | None, app_id: str | None, most: int) -> list[UserKey]:
        """Return the next users after one of whom anything is stored, in order: of a tenant, with a session of an app.

        An app's are found by a walk over the index of all sessions; no other index leads to them.
        """
        found = self._keys(SESSION, after, tenant_id, most)
        if app_id is not None:
            found = found.where(SESSION.session_id == app_id)
        else:
            others = self._keys(SAID, after, tenant_id, most).subquery()
            both = union(select(*found.subquery().c), select(*others.c)).subquery()
            found = select(*both.c).order_by(*both.c).limit(most)
        return [UserKey(*row) for row in self._rows(found)]

    def tenants(self) -> list[str]:
        """Return the tenants of which anything is stored, in order; of thousands the first."""
        found: set[str] = set()
        for table in TABLES:
            column = table.c.tenant_id
            first = select(column).order_by(column).limit(1)
            walk = select(first.scalar_subquery().label("tenant_id")).cte(recursive=True)
            later = first.where(column > walk.c.tenant_id).scalar_subquery()
            walk = walk.union_all(select(later).select_from(walk).where(walk.c.tenant_id.is_not(None)))
            query = select(walk.c.tenant_id).where(walk.c.tenant_id.is_not(None)).limit(MOST_TENANTS)
            found.update(tenant_id for (tenant_id,) in self._rows(query))
        return sorted(found)[:MOST_TENANTS]

    def known(self, keys: Sequence[UserKey]) -> list[UserKey]:
        """Return those of some users of whom anything is stored, a name or an event included."""
        found: set[UserKey] = set()
        for tenant_id, listed in self._by_tenant(keys):
            for table in TABLES:
                there = select(table.c.user_id).where(table.c.tenant_id == tenant_id, table.c.user_id == listed.c.id)
                rows = self._rows(select(listed.c.id).select_from(listed).where(there.exists()))
                found.update(UserKey(tenant_id, user_id) for (user_id,) in rows)
        return sorted(found)

    def names(self, keys: Sequence[UserKey]) -> dict[UserKey, User]:
        """Return those of some users whom the directory knows."""
        columns = [USER[name] for name in User._fields]
        found = {}
        for tenant_id, listed in self._by_tenant(keys):
            query = select(*columns).join(listed, USER.user_id == listed.c.id).where(USER.tenant_id == tenant_id)
            found.update({UserKey(tenant_id, row[0]): User(*row) for row in self._rows(query)})
        return found

    def named(self, beginning: str, tenant_id: str | None, most: int) -> list[UserKey]:
        """Return the users of the directory whose userPrincipalName begins like this, in any letter case, by name."""
        name, least = USER.user_principal_name_lower, beginning.lower()
        at_least, below = (">=", "<") if self._dialect.name == "sqlite" else ("~>=~", "~<~")  # in the index's order
        query = select(USER.tenant_id, USER.user_id).where(
            name.bool_op(at_least)(least), name.bool_op(below)(f"{least}\x7f")
        )
        if tenant_id is not None:
            query = query.where(USER.tenant_id == tenant_id)
        order = name if self._dialect.name == "sqlite" else text(f"{name} USING ~<~")
        return [UserKey(*row) for row in self._rows(query.order_by(order).limit(most))]

    def changes(
        self, before: int | None, tenant_id: str | None, user_id: str | None, app_id: str | None, most: int
    ) -> tuple[list[Change], int | None]:
        """Return the newest events before one, the newest first, and before which to go on; None: that is all.

        Of one user all are looked at, else the newest WINDOW of them.
        """
        earlier = select(*CHANGE) if before is None else select(*CHANGE).where(EVENT.id < before)
        of_one = tenant_id is not None and user_id is not None
        if of_one:
            looked_at = earlier.where(EVENT.tenant_id == tenant_id, EVENT.user_id == user_id).subquery()
        else:
            looked_at = earlier.order_by(EVENT.id.desc()).limit(WINDOW).subquery()
        wanted = {"tenant_id": tenant_id, "user_id": user_id, "session_id": app_id}
        query = select(*looked_at.c).where(*(looked_at.c[n] == v for n, v in wanted.items() if v is not None))
        found = [Change(*row) for row in self._rows(query.order_by(looked_at.c.id.desc()).limit(most))]
        if len(found) == most:
            return found, found[-1].id
        if of_one:
            return found, None
        last = earlier.with_only_columns(EVENT.id).order_by(EVENT.id.desc()).limit(1).offset(WINDOW - 1)
        return found, next((row[0] for row in self._rows(last)), None)

    def _by_tenant(self, keys: Sequence[UserKey]) -> list[tuple[str, FromClause]]:
        """Return the user ids in each tenant as a table with one column, `id`."""
        tenants = dict.fromkeys(key.tenant_id for key in keys)
        return [(each, self._listed([key.user_id for key in keys if key.tenant_id == each])) for each in tenants]

    def _listed(self, user_ids: Sequence[str]) -> FromClause:
        if self._dialect.name == "sqlite":
            values = func.json_each(literal(json.dumps(user_ids), String)).table_valued("value", name="listed")
            return select(values.c.value.label("id")).subquery("ids")
        array = literal(list(user_ids), postgresql.ARRAY(SESSION.user_id.type))
        values = func.unnest(array).table_valued("id").render_derived(name="listed")
        return select(cast(values.c.id, SESSION.user_id.type).label("id")).subquery("ids")

    def _keys(self, columns: Any, after: UserKey, tenant_id: str | None, most: int) -> Select[Any]:
        key = (columns.tenant_id, columns.user_id)
        beyond = tuple_(*key) > tuple_(*(literal(value, column.type) for value, column in zip(after, key, strict=True)))
        query = select(*key).distinct().where(beyond).order_by(*key).limit(most)
        return query if tenant_id is None else query.where(columns.tenant_id == tenant_id)
