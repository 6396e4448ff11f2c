"""The admin site's frame: signing in and out, who may see a page, and the headers that every page has."""

import logging
import re
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any, NamedTuple

from flask import (
    Blueprint,
    Response,
    g,
    make_response,
    redirect,
    render_template,
    request,
    send_from_directory,
    url_for,
)
from flask.typing import ResponseReturnValue

from app.admin import exports, pages, shown
from app.admin.access import Door, Visit
from app.services.browsing import BrowsingService
from app.services.presence import Clock
from app.web import errors
from app.web.guard import declare, public
from app.web.quota import Quota

log = logging.getLogger(__name__)

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
COOKIE = "presence-admin"
REFRESH = "Presence-Refresh"
"""A request header: the page asked for itself again, and nobody used it."""


class Parts(NamedTuple):
    """What the factory built for the site."""

    door: Door
    by_address: Quota
    by_name: Quota
    """How often somebody may try to sign in: from an address, and under a name."""
    browsing: BrowsingService
    clock: Clock


def blueprint(parts: Parts) -> Blueprint:
    """Return the site's routes, all at /admin."""
    bp = Blueprint("admin", __name__, template_folder="templates", url_prefix="/admin")
    door = parts.door

    @bp.before_request
    def recognise() -> None:
        g.now = parts.clock()
        g.sent_visit = g.visit = door.read(request.cookies.get(_cookie_name(), ""), g.now)

    @bp.after_request
    def frame(response: Response) -> Response:
        headers = response.headers
        headers["Content-Security-Policy"] = PAGE_POLICY
        headers["Referrer-Policy"] = "same-origin"
        headers["X-Frame-Options"] = "DENY"
        if "visit" not in g:  # it was refused before anybody looked who asks
            return response
        visit: Visit | None = g.visit
        if visit and REFRESH not in request.headers:
            visit = door.used(visit, g.now)
        if visit != g.sent_visit:
            _send_cookie(response, door.write(visit) if visit else None)
        return response

    @bp.context_processor
    def vocabulary() -> dict[str, object]:
        form_token = door.form_token(g.visit) if g.get("visit") else ""
        return {"visit": g.get("visit"), "form_token": form_token, "now": g.get("now"), **shown.VOCABULARY}

    @bp.errorhandler(Exception)
    def fail(error: Exception) -> Response:
        answer = errors.answer(error)
        message = answer.get_json()["error"]["message"]
        answer.data = render_template("admin/error.html", status=HTTPStatus(answer.status_code), message=message)
        answer.content_type = "text/html; charset=utf-8"
        return answer

    @bp.get("/sign-in")
    @public()
    def sign_in() -> ResponseReturnValue:
        """Ask for name and password."""
        if g.visit and g.visit.name:
            return redirect(_way_on(), HTTPStatus.SEE_OTHER)
        return _sign_in_page(door)

    @bp.post("/sign-in")
    @public()
    def enter() -> ResponseReturnValue:
        """Let somebody in who knows the password."""
        form = request.form
        if not _is_ours(door):
            return _sign_in_page(door, "This page was open for too long. Please try again.", HTTPStatus.BAD_REQUEST)
        name = form.get("name", "")
        parts.by_address.take("admin sign-in from", request.remote_addr or "")
        parts.by_name.take("admin sign-in as", name[:64])
        if not door.knows(name, form.get("password", "")):
            log.warning("admin sign-in refused", extra={"request_id": g.request_id, "from": request.remote_addr})
            return _sign_in_page(door, "Name or password is wrong.", HTTPStatus.FORBIDDEN)
        log.info("admin signed in", extra={"request_id": g.request_id, "admin": name, "from": request.remote_addr})
        g.visit = door.visit(g.now, name)
        return redirect(_way_on(), HTTPStatus.SEE_OTHER)

    @bp.post("/sign-out")
    @public()
    def leave() -> ResponseReturnValue:
        """Forget who had signed in."""
        if _is_ours(door):
            g.visit = None
        return redirect(url_for("admin.sign_in"), HTTPStatus.SEE_OTHER)

    @bp.get("/static/<name>")
    @public()
    def static(name: str) -> ResponseReturnValue:
        """Return the style sheet or the script."""
        g.visit = g.sent_visit  # what no person asks for is no use
        return send_from_directory("admin/static", name)

    for rule, methods, view in (*pages.routes(parts.browsing), *exports.routes(parts.browsing)):
        bp.add_url_rule(rule, view.__name__, _signed_in(view, door), methods=methods)
    return bp


def _signed_in(view: Callable[..., ResponseReturnValue], door: Door) -> Callable[..., ResponseReturnValue]:
    """Let those pass who have signed in; what changes something must come from a form of theirs."""

    @wraps(view)
    def enter(**said: Any) -> ResponseReturnValue:
        if not (g.visit and g.visit.name):
            back = request.full_path.rstrip("?") if request.method == "GET" else None
            return redirect(url_for("admin.sign_in", next=back), HTTPStatus.SEE_OTHER)
        if request.method == "POST" and not _is_ours(door):
            return make_response(render_template("admin/stale.html"), HTTPStatus.BAD_REQUEST)
        return view(**said)

    return declare(enter, "admin")


def _is_ours(door: Door) -> bool:
    """Tell whether what was posted is a form that this browser got from here."""
    return g.visit is not None and door.wrote(g.visit, request.form.get("form_token", ""))


def _sign_in_page(door: Door, fault: str = "", status: HTTPStatus = HTTPStatus.OK) -> Response:
    ended = not g.visit and _cookie_name() in request.cookies
    g.visit = g.visit or door.visit(g.now)
    shows = {"fault": fault, "ended": ended, "name": request.form.get("name", "")}
    return make_response(render_template("admin/sign_in.html", **shows), status)


def _way_on() -> str:
    """Return the page that was asked for before signing in, if it is one of ours."""
    home = url_for("admin.overview")
    wanted = request.args.get("next", "")
    return wanted if re.fullmatch(rf"{re.escape(home)}(?:[/?][!-\[\]-~]*)?", wanted) else home


def _cookie_name() -> str:
    return f"__Host-{COOKIE}" if request.is_secure else COOKIE


def _send_cookie(response: Response, value: str | None) -> None:
    """Send the cookie, or take it back. It ends with the browser; its own times are in it."""
    about: dict[str, Any] = {"path": "/", "secure": request.is_secure, "httponly": True, "samesite": "Lax"}
    if value is None:
        response.delete_cookie(_cookie_name(), **about)
    else:
        response.set_cookie(_cookie_name(), value, **about)
