"""The lists as CSV."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from flask import Response, g
from flask.typing import ResponseReturnValue

from app.admin import asked
from app.admin.asked import Route
from app.services.browsing import BrowsingService, SeenChange, SeenSession, SeenUser

CHUNK = 16 * 1024
"""Characters of a file that are sent at once."""


def routes(browsing: BrowsingService) -> list[Route]:
    """Return the exports, each with the filter of its list."""

    def users_csv() -> ResponseReturnValue:
        """Return the users of a list."""
        return _csv("users", USER_COLUMNS, map(_user_row, browsing.all_users(asked.wanted())))

    def sessions_csv() -> ResponseReturnValue:
        """Return the sessions of a list."""
        return _csv("sessions", SESSION_COLUMNS, map(_session_row, browsing.all_sessions(asked.wanted())))

    def changes_csv() -> ResponseReturnValue:
        """Return the changes of a list."""
        return _csv("changes", CHANGE_COLUMNS, map(_change_row, browsing.all_changes(asked.wanted())))

    return [
        Route("/users.csv", ["GET"], users_csv),
        Route("/sessions.csv", ["GET"], sessions_csv),
        Route("/changes.csv", ["GET"], changes_csv),
    ]


USER_COLUMNS = (
    "tenant_id", "user_id", "user_principal_name", "display_name", "availability", "activity", "live_sessions",
    "preferred", "status_message", "work_location",
)  # fmt: skip
SESSION_COLUMNS = (
    "tenant_id", "user_id", "user_principal_name", "app_id", "availability", "activity", "set_to", "changed_at",
    "set_at", "expires_at",
)  # fmt: skip
CHANGE_COLUMNS = (
    "id", "at", "tenant_id", "user_id", "user_principal_name", "kind", "app_id", "availability", "activity",
    "expires_at", "request_id", "actor",
)  # fmt: skip


def _user_row(seen: SeenUser) -> Sequence[object]:
    presence, preferred = seen.presence, seen.state.preferred
    return (
        *seen.key,
        seen.user and seen.user.user_principal_name,
        seen.user and seen.user.display_name,
        *presence.shown,
        len(seen.live),
        preferred and preferred.shown,
        presence.message and presence.message.content,
        presence.location and presence.location.type,
    )


def _session_row(seen: SeenSession) -> Sequence[object]:
    session = seen.session
    name = seen.user and seen.user.user_principal_name
    moments = (each.isoformat() for each in (session.changed_at, session.set_at, session.expires_at))
    return (*seen.key, name, session.session_id, *seen.shows, session.shown, *moments)


def _change_row(seen: SeenChange) -> Sequence[object]:
    change = seen.change
    name = seen.user and seen.user.user_principal_name
    shown = (change.availability, change.activity)
    ends = change.expires_at and change.expires_at.isoformat()
    who = (change.tenant_id, change.user_id, name, change.kind)
    return (change.id, change.at.isoformat(), *who, change.session_id, *shown, ends, change.request_id, change.actor)


def _csv(name: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Response:
    """Return a file that is written while it is read from the database."""

    def lines() -> Iterator[str]:
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(value) for value in row])
            if buffer.tell() > CHUNK:
                yield buffer.getvalue()
                buffer.seek(0)
                buffer.truncate()
        yield buffer.getvalue()

    response = Response(lines(), content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = f"attachment; filename={name}-{g.now:%Y%m%d-%H%M%S}.csv"
    return response


def _cell(value: object) -> str:
    """Return a value as text that no spreadsheet takes for a formula. Source: OWASP, "CSV injection"."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
