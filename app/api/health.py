"""Whether this process runs, and whether it can serve."""

from collections.abc import Callable

from flask import Blueprint
from flask.typing import ResponseReturnValue

from app.web.errors import NotReady
from app.web.guard import public


def blueprint(fault: Callable[[], str | None]) -> Blueprint:
    """Return the health routes; `fault` says why the store cannot serve, or None."""
    bp = Blueprint("health", __name__)

    @bp.get("/healthz")
    @public()
    def healthz() -> ResponseReturnValue:
        """Answer as long as the process does, whatever its database does."""
        return {"status": "ok"}

    @bp.get("/readyz")
    @public()
    def readyz() -> ResponseReturnValue:
        """Answer 200 when the database is there and migrated, else 503."""
        if reason := fault():
            raise NotReady(reason)
        return {"status": "ready"}

    return bp
