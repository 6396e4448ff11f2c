"""The use cases of the directory, which turns a userPrincipalName into the id that presence goes by."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from app.db.directory import DirectoryStore
from app.domain.directory import USER_PRINCIPAL_NAME, User, user_of
from app.domain.values import DASHED_GUID, derived_user_id

__all__ = ["DirectoryService", "Row", "RowFault", "User", "UserNotFound"]

IMPORTED_AT_ONCE = 1000
"""Users written in one transaction."""


class UserNotFound(Exception):
    """The directory has no such user."""

    def __init__(self, name: str) -> None:
        """`name` is the id or userPrincipalName asked for. Source: Graph's own words."""
        super().__init__(
            f"Resource '{name:.100}' does not exist or one of its queried reference-property objects are not present."
        )


class Row(NamedTuple):
    """What one line of a list of users says, or why it says nothing."""

    line: int
    record: Mapping[str, object] | None
    fault: str = ""


class RowFault(NamedTuple):
    """What is wrong with a line."""

    line: int
    said: str


class DirectoryService:
    """Finds and imports users. Where `everybody` is one (in development), any GUID and any name finds somebody."""

    def __init__(self, store: DirectoryStore, *, everybody: bool) -> None:
        self._store = store
        self._everybody = everybody

    def find(self, tenant_id: str, name: str, known_as: str | None = None) -> User:
        """Return the user whose id or userPrincipalName `name` is, in any letter case.

        Where everybody is one, who goes by an id alone is called `known_as`, if that is given.

        Raises:
            UserNotFound: there is none.
        """
        if DASHED_GUID.fullmatch(name):
            user_id = name.lower()
            called = known_as or user_id
            found, stranger = self._store.find_by_id(tenant_id, user_id), User(user_id, called, called)
        elif USER_PRINCIPAL_NAME.fullmatch(name):
            found = self._store.find_by_name(tenant_id, name)
            stranger = User(derived_user_id(tenant_id, name), name, name)
        else:
            raise UserNotFound(name)
        if found is None and not self._everybody:
            raise UserNotFound(name)
        return found or stranger

    def id_of(self, tenant_id: str, name: str) -> str:
        """Return the id of whoever has this name, of whatever form: the directory's, or else the derived one."""
        known = self._store.find_by_name(tenant_id, name) if USER_PRINCIPAL_NAME.fullmatch(name) else None
        return known.user_id if known else derived_user_id(tenant_id, name)

    def judge(self, tenant_id: str, rows: Iterable[Row]) -> tuple[list[User], list[RowFault]]:
        """Return the users that rows tell of, and what is wrong with the rows that tell of none.

        Wrong is a malformed row, an id or name that an earlier row has, and the name of a user who keeps it.
        """
        users: dict[str, tuple[int, User]] = {}
        names: dict[str, int] = {}
        faults = []
        for line, record, fault in rows:
            if record is None:
                faults.append(RowFault(line, fault))
                continue
            try:
                user = user_of(tenant_id, record)
            except ValueError as error:
                faults.append(RowFault(line, str(error)))
                continue
            name = user.user_principal_name.lower()
            if user.user_id in users:
                faults.append(RowFault(line, f"id: {user.user_id} is on line {users[user.user_id][0]} already"))
            elif name in names:
                faults.append(RowFault(line, f"userPrincipalName: {name} is on line {names[name]} already"))
            else:
                users[user.user_id] = (line, user)
                names[name] = line
        known = self._store.names(tenant_id)
        while taken := [
            (line, user, holder)
            for line, user in users.values()
            if (holder := known.get(user.user_principal_name.lower(), user.user_id)) not in users
        ]:
            for line, user, holder in taken:  # whoever else relied on this row to give up a name is next
                del users[user.user_id]
                faults.append(RowFault(line, f"userPrincipalName: {user.user_principal_name} is user {holder}'s"))
        return [user for _, user in users.values()], sorted(faults)

    def import_users(self, tenant_id: str, users: Sequence[User]) -> Iterator[int]:
        """Write users, as `judge` returned them, in place of those with their ids; yield how many are written so far.

        Raises:
            StoreUnavailable: the database does not answer, or not in time. To import them again completes it.
        """
        for start in range(0, len(users), IMPORTED_AT_ONCE):
            some = users[start : start + IMPORTED_AT_ONCE]
            self._store.put(tenant_id, some)
            yield start + len(some)
