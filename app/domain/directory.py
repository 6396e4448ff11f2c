"""Who a user is, apart from his presence."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from app.domain.values import DASHED_GUID, derived_user_id

USER_PRINCIPAL_NAME = re.compile(r"[!-?A-~]{1,64}@[!-?A-~]{1,256}", re.ASCII)
"""Printable ASCII without blanks, and one "@". Entra's own rule is narrower."""
MOST_DISPLAYED = 256
"""Characters of a displayName. Source: Graph, "user"."""
_UNFIT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""What no name holds and no database takes."""


class User(NamedTuple):
    """A user as the directory knows him."""

    user_id: str
    user_principal_name: str
    display_name: str


def user_of(tenant_id: str, record: Mapping[str, object]) -> User:
    """Return the user whom a record tells of: `id`, `userPrincipalName`, `displayName`; others pass unread.

    Without an id he gets the one derived from his name; without a displayName he shows his userPrincipalName.

    Raises:
        ValueError: a value is missing or malformed; the message names it.
    """
    user_id, name, shown = (_text(record, member) for member in ("id", "userPrincipalName", "displayName"))
    if not USER_PRINCIPAL_NAME.fullmatch(name):
        raise ValueError(f"userPrincipalName: must be a name such as adele@contoso.com, got {name!r:.60}")
    if user_id and not DASHED_GUID.fullmatch(user_id):
        raise ValueError(f"id: must be a GUID such as 22553876-f5ab-4529-bffb-cfe50aa89f87, got {user_id!r:.60}")
    if len(shown) > MOST_DISPLAYED or _UNFIT.search(shown):
        raise ValueError(f"displayName: must be {MOST_DISPLAYED} characters or fewer, none of them a control character")
    return User(user_id.lower() or derived_user_id(tenant_id, name), name, shown or name)


def _text(record: Mapping[str, object], member: str) -> str:
    match record.get(member):
        case None:
            return ""
        case str(text):
            return text.strip()
        case value:
            raise ValueError(f"{member}: must be text, got {value!r:.60}")
