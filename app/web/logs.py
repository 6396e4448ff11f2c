"""What the service logs: one line for each request, and what went wrong. Never a token, a key or a body.

All of it goes through the standard library's `logging`, with facts in `extra`; structlog writes the lines.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping

import structlog
from flask import Flask, Response, g, request

log = logging.getLogger(__name__)


def configure(level: str, *, as_json: bool) -> None:
    """Let this process log to standard error: ourselves from `level` on, the libraries from WARNING on."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(as_json=as_json))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("app").setLevel(level)


def formatter(*, as_json: bool) -> logging.Formatter:
    """Return what makes a line of a record: a JSON object, or something that people would rather read.

    A traceback is written without the values of its variables, as tokens are among them.
    """
    line: structlog.typing.Processor
    if as_json:
        line = structlog.processors.JSONRenderer(serializer=_json)
    else:
        plain = structlog.dev.plain_traceback
        line = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.ExtraAdder(),
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *([structlog.processors.format_exc_info] if as_json else []),
            line,
        ],
    )


_encode = json.JSONEncoder(separators=(",", ":"), default=repr).encode  # json.dumps would make one for each line


def _json(facts: Mapping[str, object], **_: object) -> str:
    return _encode(facts)


def mount(app: Flask) -> None:
    """Log each request at INFO; call it before all else, so that what it times is everything.

    Each request of a batch has a line as well. What is logged of a path is its route.
    """
    app.before_request(_start)
    app.after_request(_log)


def _start() -> None:
    g.started = time.perf_counter()


def _log(response: Response) -> Response:
    if log.isEnabledFor(logging.INFO):
        caller = g.get("caller")
        facts = {
            "request_id": g.request_id,
            "client_request_id": g.client_request_id,
            "tenant": caller and caller.tenant_id,
            "app": caller and caller.app_id,
            "method": request.method,
            "route": request.url_rule and request.url_rule.rule,
            "status": response.status_code,
            "duration_ms": round((time.perf_counter() - g.started) * 1000, 3),
        }
        log.info("request", extra=facts)
    return response
