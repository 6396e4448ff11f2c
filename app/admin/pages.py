"""The pages that somebody sees who has signed in, and the lists as CSV."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlencode

from flask import Response, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from app.admin import charts
from app.domain.explain_text import text_of
from app.domain.values import DASHED_GUID, Availability, SessionKey
from app.services.browsing import FIRST, BrowsingService, SeenChange, SeenSession, SeenUser, UserKey, Wanted
from app.services.presence import SessionNotFound
from app.web.errors import InvalidArgument

HOURS = ("1", "4", "24")
"""How much of the past a user's picture may show."""
HOURS_UNLESS_ASKED = "4"
EVENT_ID = re.compile("[0-9]{1,18}", re.ASCII)
CHUNK = 16 * 1024
"""Characters of a CSV file that are sent at once."""

View = Callable[..., ResponseReturnValue]


class Route(NamedTuple):
    """A path, below that of the site, and what answers there."""

    rule: str
    methods: Sequence[str]
    view: View


def routes(browsing: BrowsingService) -> list[Route]:
    """Return the pages, none of which looks at who asks."""

    def overview() -> ResponseReturnValue:
        """Show how it all adds up."""
        seen = browsing.overview()
        return render_template("admin/overview.html", seen=seen, bars=charts.bars(seen.stats.minutes))

    def users() -> ResponseReturnValue:
        """Show users and what they show, or those whom a search finds."""
        wanted, text = _wanted(), request.args.get("q", "").strip()
        if text:
            found = browsing.find(text, wanted.tenant_id)
            return render_template("admin/users.html", wanted=wanted, text=text, rows=found, later=None)
        part = browsing.users(wanted, UserKey(*ids) if (ids := _after(2)) else FIRST)
        later = part.later and _later(after="/".join(part.later))
        return render_template("admin/users.html", wanted=wanted, text="", rows=part.rows, later=later, part=part)

    def sessions() -> ResponseReturnValue:
        """Show live sessions."""
        wanted = _wanted()
        after = SessionKey(*ids) if (ids := _after(3)) else None
        rows, last = browsing.sessions(wanted, after)
        later = last and _later(after="/".join(last))
        return render_template("admin/sessions.html", wanted=wanted, rows=rows, later=later)

    def changes() -> ResponseReturnValue:
        """Show what happened, the newest first."""
        wanted, before = _wanted(), request.args.get("before", "")
        if before and not EVENT_ID.fullmatch(before):
            raise InvalidArgument("before: must be the number of a change")
        rows, earlier = browsing.changes(wanted, int(before) if before else None)
        later = earlier and _later(before=str(earlier))
        return render_template("admin/changes.html", wanted=wanted, rows=rows, later=later, newest=not before)

    def user(tenant_id: str, user_id: str) -> ResponseReturnValue:
        """Show all about one user."""
        key = _user_key(tenant_id, user_id)
        hours = request.args.get("hours", HOURS_UNLESS_ASKED)
        if hours not in HOURS:
            raise InvalidArgument(f"hours: must be one of {', '.join(HOURS)}")
        seen = browsing.user(key, timedelta(hours=int(hours)))
        name = seen.user.display_name if seen.user else seen.key.user_id
        return render_template(
            "admin/user.html",
            seen=seen,
            name=name,
            why=list(_lines(text_of(seen.explanation._replace(history=()), name))),
            picture=charts.picture(seen.timeline),
            choices=HOURS,
            hours=hours,
            ended=_guid("ended", request.args.get("ended", "")),
        )

    def ask(tenant_id: str, user_id: str, app_id: str) -> ResponseReturnValue:
        """Ask whether to end a session."""
        key, app_id = _user_key(tenant_id, user_id), _guid("app", app_id)
        seen = browsing.user(key, timedelta(hours=1))
        session = next((each for each in seen.explanation.live if each.session.session_id == app_id), None)
        if session is None:
            raise SessionNotFound(SessionKey(*key, app_id))
        return render_template("admin/end_session.html", seen=seen, session=session)

    def end(tenant_id: str, user_id: str, app_id: str) -> ResponseReturnValue:
        """End a session in its application's place, as who has signed in."""
        key, app_id = _user_key(tenant_id, user_id), _guid("app", app_id)
        browsing.inspection.end_session(SessionKey(*key, app_id), f"admin:{g.visit.name}", g.request_id)
        there = url_for("admin.user", tenant_id=key.tenant_id, user_id=key.user_id, ended=app_id)
        return redirect(there, HTTPStatus.SEE_OTHER)

    def users_csv() -> ResponseReturnValue:
        """Return the users of a list."""
        return _csv("users", USER_COLUMNS, map(_user_row, browsing.all_users(_wanted())))

    def sessions_csv() -> ResponseReturnValue:
        """Return the sessions of a list."""
        return _csv("sessions", SESSION_COLUMNS, map(_session_row, browsing.all_sessions(_wanted())))

    def changes_csv() -> ResponseReturnValue:
        """Return the changes of a list."""
        return _csv("changes", CHANGE_COLUMNS, map(_change_row, browsing.all_changes(_wanted())))

    return [
        Route("", ["GET"], overview),
        Route("/users", ["GET"], users),
        Route("/sessions", ["GET"], sessions),
        Route("/changes", ["GET"], changes),
        Route("/users/<tenant_id>/<user_id>", ["GET"], user),
        Route("/users/<tenant_id>/<user_id>/sessions/<app_id>/end", ["GET"], ask),
        Route("/users/<tenant_id>/<user_id>/sessions/<app_id>/end", ["POST"], end),
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


def _wanted() -> Wanted:
    """Return what the query narrows the list to.

    Raises:
        InvalidArgument: a value is not what it must be.
    """
    availability = request.args.get("availability", "")
    if availability and availability not in set(Availability):
        raise InvalidArgument(f"availability: must be one of {', '.join(Availability)}")
    ids = (_guid(name, request.args.get(name, "").strip()) or None for name in ("tenant", "app", "user"))
    return Wanted(Availability(availability) if availability else None, *ids)


def _guid(name: str, value: str) -> str:
    """Return a GUID in lower case, or nothing for nothing."""
    if value and not DASHED_GUID.fullmatch(value):
        raise InvalidArgument(f"{name}: must be a GUID such as 22553876-f5ab-4529-bffb-cfe50aa89f87")
    return value.lower()


def _user_key(tenant_id: str, user_id: str) -> UserKey:
    return UserKey(_guid("tenant", tenant_id), _guid("user", user_id))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Return the lines of an explanation, each with how many blanks it begins with."""
    for line in text.splitlines():
        yield len(line) - len(line.lstrip(" ")), line.strip()


def _after(length: int) -> list[str] | None:
    """Return the key that the query says to go on after; None: none."""
    ids = request.args.get("after", "").lower().split("/")
    if ids == [""]:
        return None
    if len(ids) != length or not all(map(DASHED_GUID.fullmatch, ids)):
        raise InvalidArgument(f"after: must be {length} ids with slashes between them")
    return ids


def _later(**where: str) -> str:
    """Return the URL of the next page of this list."""
    kept = {name: value for name, value in request.args.items() if value}
    return f"{request.script_root}{request.path}?{urlencode({**kept, **where})}"
