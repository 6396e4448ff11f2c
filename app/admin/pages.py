"""The pages that somebody sees who has signed in."""

import re
from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus

from flask import g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from app.admin import asked, charts
from app.admin.asked import Route
from app.domain.explain_text import text_of
from app.domain.values import SessionKey
from app.services.browsing import FIRST, BrowsingService, UserKey
from app.services.inspection import ENDS
from app.services.presence import SessionNotFound
from app.web.errors import InvalidArgument

HOURS = ("1", "4", "24")
"""How much of the past a user's picture may show."""
HOURS_UNLESS_ASKED = "4"
EVENT_ID = re.compile("[0-9]{1,18}", re.ASCII)


def routes(browsing: BrowsingService) -> list[Route]:
    """Return the pages, none of which looks at who asks."""

    def overview() -> ResponseReturnValue:
        """Show how it all adds up."""
        stats, soonest = browsing.overview()
        ending = list(zip((timedelta(0), *ENDS), stats.ending.items(), strict=False))
        bars = charts.bars(stats.minutes)
        return render_template("admin/overview.html", stats=stats, soonest=soonest, ending=ending, bars=bars)

    def users() -> ResponseReturnValue:
        """Show users and what they show, or those whom a search finds."""
        wanted, text = asked.wanted(), request.args.get("q", "").strip()
        if text:
            found = browsing.find(text, wanted.tenant_id)
            return render_template("admin/users.html", wanted=wanted, text=text, rows=found, later=None)
        part = browsing.users(wanted, UserKey(*ids) if (ids := asked.after(2)) else FIRST)
        later = part.later and asked.later(after="/".join(part.later))
        return render_template("admin/users.html", wanted=wanted, text="", rows=part.rows, later=later, part=part)

    def sessions() -> ResponseReturnValue:
        """Show live sessions."""
        wanted = asked.wanted()
        after = SessionKey(*ids) if (ids := asked.after(3)) else None
        rows, last = browsing.sessions(wanted, after)
        later = last and asked.later(after="/".join(last))
        return render_template("admin/sessions.html", wanted=wanted, rows=rows, later=later)

    def changes() -> ResponseReturnValue:
        """Show what happened, the newest first."""
        wanted, before = asked.wanted(), request.args.get("before", "")
        if before and not EVENT_ID.fullmatch(before):
            raise InvalidArgument("before: must be the number of a change")
        rows, earlier = browsing.changes(wanted, int(before) if before else None)
        later = earlier and asked.later(before=str(earlier))
        return render_template("admin/changes.html", wanted=wanted, rows=rows, later=later, newest=not before)

    def user(tenant_id: str, user_id: str) -> ResponseReturnValue:
        """Show all about one user."""
        key = asked.user_key(tenant_id, user_id)
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
            ended=asked.guid("ended", request.args.get("ended", "")),
        )

    def ask(tenant_id: str, user_id: str, app_id: str) -> ResponseReturnValue:
        """Ask whether to end a session."""
        key, app_id = asked.user_key(tenant_id, user_id), asked.guid("app", app_id)
        seen = browsing.user(key, timedelta(hours=1))
        session = next((each for each in seen.explanation.live if each.session.session_id == app_id), None)
        if session is None:
            raise SessionNotFound(SessionKey(*key, app_id))
        return render_template("admin/end_session.html", seen=seen, session=session)

    def end(tenant_id: str, user_id: str, app_id: str) -> ResponseReturnValue:
        """End a session in its application's place, as who has signed in."""
        key, app_id = asked.user_key(tenant_id, user_id), asked.guid("app", app_id)
        browsing.inspection.end_session(SessionKey(*key, app_id), f"admin:{g.visit.name}", g.request_id)
        there = url_for("admin.user", tenant_id=key.tenant_id, user_id=key.user_id, ended=app_id)
        return redirect(there, HTTPStatus.SEE_OTHER)

    return [
        Route("", ["GET"], overview),
        Route("/users", ["GET"], users),
        Route("/sessions", ["GET"], sessions),
        Route("/changes", ["GET"], changes),
        Route("/users/<tenant_id>/<user_id>", ["GET"], user),
        Route("/users/<tenant_id>/<user_id>/sessions/<app_id>/end", ["GET"], ask),
        Route("/users/<tenant_id>/<user_id>/sessions/<app_id>/end", ["POST"], end),
    ]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Return the lines of an explanation, each with how many blanks it begins with."""
    for line in text.splitlines():
        yield len(line) - len(line.lstrip(" ")), line.strip()
