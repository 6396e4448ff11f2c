"""How users are stored."""

from collections.abc import Sequence

from sqlalchemy import Engine, bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from app.db.database import Database
from app.db.models import DirectoryUser
from app.domain.directory import User

TABLE = DirectoryUser.__table__
TENANT = bindparam("tenant_id", type_=TABLE.c.tenant_id.type)
USER = bindparam("user_id", type_=TABLE.c.user_id.type)
NAME = bindparam("user_principal_name_lower", type_=TABLE.c.user_principal_name_lower.type)

_user = select(*(TABLE.c[name] for name in User._fields))
FIND_BY_ID = _user.where(TABLE.c.tenant_id == TENANT, TABLE.c.user_id == USER)
FIND_BY_NAME = _user.where(TABLE.c.tenant_id == TENANT, TABLE.c.user_principal_name_lower == NAME)
LIST_NAMES = select(TABLE.c.user_principal_name_lower, TABLE.c.user_id).where(TABLE.c.tenant_id == TENANT)
FREE_NAME = delete(DirectoryUser).where(
    TABLE.c.tenant_id == TENANT, TABLE.c.user_principal_name_lower == NAME, TABLE.c.user_id != USER
)


class DirectoryStore(Database):
    """The users of all tenants, in one database."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        insert = (postgresql if self._dialect.name == "postgresql" else sqlite).insert(DirectoryUser)
        put = insert.values({column.name: bindparam(column.name, type_=column.type) for column in TABLE.c})
        known = {column.name: put.excluded[column.name] for column in TABLE.c if not column.primary_key}
        self._find_by_id = self._prepared(FIND_BY_ID)
        self._find_by_name = self._prepared(FIND_BY_NAME)
        self._list_names = self._prepared(LIST_NAMES)
        self._free_name = self._prepared(FREE_NAME)
        self._put = self._prepared(put.on_conflict_do_update(index_elements=("tenant_id", "user_id"), set_=known))

    def find_by_id(self, tenant_id: str, user_id: str) -> User | None:
        """Return a user, or None when the directory has none with this id."""
        rows = self._run(self._find_by_id, {"tenant_id": tenant_id, "user_id": user_id})
        return User(*rows[0]) if rows else None

    def find_by_name(self, tenant_id: str, user_principal_name: str) -> User | None:
        """Return a user by his name in any letter case, or None."""
        named = {"tenant_id": tenant_id, "user_principal_name_lower": user_principal_name.lower()}
        rows = self._run(self._find_by_name, named)
        return User(*rows[0]) if rows else None

    def names(self, tenant_id: str) -> dict[str, str]:
        """Return the id of each user of a tenant by his name in lower case."""
        return dict(self._run(self._list_names, {"tenant_id": tenant_id}))

    def put(self, tenant_id: str, users: Sequence[User]) -> None:
        """Write users in one transaction, new ones or others in place of those with their ids.

        Whoever else has one of their names goes.
        """
        rows = [
            {"tenant_id": tenant_id, "user_principal_name_lower": user.user_principal_name.lower(), **user._asdict()}
            for user in users
        ]
        with self._write() as cursor:
            if self._dialect.name == "postgresql":
                cursor.execute("LOCK TABLE directory_user IN SHARE ROW EXCLUSIVE MODE")  # one writer; readers read on
            for statement in (self._free_name, self._put):
                cursor.executemany(statement.sql, [statement.values(row) for row in rows])
