"""Who is calling, as the token proves it."""

from dataclasses import dataclass, field

from app.domain.values import SessionKey


class ForeignSession(Exception):
    """The session that a request names is not that of the application which calls."""

    def __init__(self, session_id: str, app_id: str) -> None:
        super().__init__(session_id, app_id)
        self.session_id = session_id
        self.app_id = app_id


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified token's claims, as far as anything is decided by them."""

    tenant_id: str
    app_id: str
    app_only: bool
    """True when no user is involved: no `scp`, and `idtyp` absent or "app"."""
    roles: frozenset[str]
    """Application permissions (`roles`)."""
    scopes: frozenset[str] = frozenset()
    """Delegated permissions (`scp`)."""
    user_id: str | None = None
    """`oid` of the signed-in user; None when app_only."""
    user_name: str | None = field(default=None, compare=False)
    """What the signed-in user is called (`preferred_username`): nothing is decided by it."""

    def acting_for(self, user_id: str) -> SessionKey:
        """Return who acts on whom: the caller's tenant and application, and a user of that tenant."""
        return SessionKey(self.tenant_id, user_id, self.app_id)

    def session_key(self, user_id: str, session_id: str) -> SessionKey:
        """Return the key of the caller's own session for a user.

        Raises:
            ForeignSession: `session_id` is not the caller's application id.
        """
        if session_id != self.app_id:
            raise ForeignSession(session_id, self.app_id)
        return self.acting_for(user_id)
