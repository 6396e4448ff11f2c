"""Who may see the admin site: a password, and a signed cookie that says who gave it.

The cookie holds no secret and nothing is kept on the server, so that all workers know everybody who has signed in.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from threading import Lock
from typing import NamedTuple

from itsdangerous import BadData, URLSafeSerializer
from werkzeug.security import check_password_hash

IDLE = timedelta(minutes=30)
"""After so long without a page somebody has to sign in again. Source: OWASP, "session management", idle time-out."""
LONGEST = timedelta(hours=8)
"""And after so long in any case."""
MOST_PASSWORD = 1024
"""Characters of a password; a longer one is not looked at."""
_FORM = b"form"
_USED = timedelta(minutes=1)
"""How much older the cookie says its last use is, at most, than it was."""


class Visit(NamedTuple):
    """One browser's cookie: nobody's until somebody signs in, who then gets another one."""

    id: str
    name: str
    """Who has signed in; empty: nobody."""
    password_mark: str
    """Of the password's hash: a new password ends the visits that the old one began."""
    began_at: int
    used_at: int
    """Seconds since 1970."""


class Door:
    """Lets people in by name and password, and knows them again by their cookie."""

    def __init__(self, password_hashes: Mapping[str, str], secret_key: str) -> None:
        """`password_hashes` is by name and not empty; each is werkzeug's, of scrypt."""
        self._hashes = password_hashes
        self._form_key = hmac.digest(secret_key.encode(), _FORM, "sha256")
        self._signed = URLSafeSerializer(
            secret_key, salt="admin visit", signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256}
        )
        self._one_at_a_time = Lock()  # a check takes 32 MiB and 60 ms of CPU

    def knows(self, name: str, password: str) -> bool:
        """Tell whether this is somebody's name and password; that takes as long for a name that is nobody's."""
        decoy = next(iter(self._hashes.values()))
        if len(password) > MOST_PASSWORD:
            return False
        with self._one_at_a_time:
            matches = check_password_hash(self._hashes.get(name, decoy), password)
        return matches and name in self._hashes

    def visit(self, now: datetime, name: str = "") -> Visit:
        """Return a new visit, of somebody or of nobody yet."""
        seconds = int(now.timestamp())
        return Visit(secrets.token_urlsafe(16), name, self._mark(name), seconds, seconds)

    def read(self, cookie: str, now: datetime) -> Visit | None:
        """Return the visit that a cookie tells of; None when it is not ours, or it has ended."""
        try:
            visit = Visit(*self._signed.loads(cookie))
        except (BadData, TypeError):
            return None
        known = hmac.compare_digest(visit.password_mark, self._mark(visit.name))
        seconds = now.timestamp()
        lasts = seconds < visit.began_at + LONGEST.total_seconds() and seconds < visit.used_at + IDLE.total_seconds()
        return visit if known and lasts else None

    def write(self, visit: Visit) -> str:
        """Return the cookie of a visit."""
        return str(self._signed.dumps(visit))

    def used(self, visit: Visit, now: datetime) -> Visit:
        """Return the visit as it is after a page at `now`; itself when it says so closely enough."""
        seconds = int(now.timestamp())
        return visit._replace(used_at=seconds) if seconds >= visit.used_at + _USED.total_seconds() else visit

    def form_token(self, visit: Visit) -> str:
        """Return what a form of this visit has to bring back. Source: OWASP, "signed double-submit cookie"."""
        return hmac.new(self._form_key, visit.id.encode(), "sha256").hexdigest()

    def wrote(self, visit: Visit, token: str) -> bool:
        """Tell whether a form with this token was one of this visit's."""
        return hmac.compare_digest(self.form_token(visit).encode(), token.encode())

    def _mark(self, name: str) -> str:
        """Return a name's mark; somebody who has been removed has none that any cookie holds."""
        if not name:
            return ""
        return hmac.new(self._form_key, self._hashes.get(name, secrets.token_hex()).encode(), "sha256").hexdigest()
