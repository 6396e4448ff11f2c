"""What real Graph ignores without a word, or refuses with a bare 403, said aloud: docs/hints.md has each hint."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, get_args

from flask import Flask, Response, g, request
from pydantic_core import to_jsonable_python

from app.auth.caller import ForeignSession
from app.services.presence import Clock
from app.web.bodies import GraphBody, body_read
from app.web.errors import PermissionMissing, answer

log = logging.getLogger(__name__)

HEADER = "presence-hint"
MOST_HINTS = 5
"""Of one request; what follows is left out."""
MOST_CHARACTERS = 240
"""Of one hint's text."""
MOST_NAME_CHARACTERS = 40
"""Of what a client calls a member: nothing else of its own words is ever repeated, so no token is."""
MOST_BYTES = 8 * 1024 * 1024
"""Of all hints that are kept; the one after that begins anew."""

_TIMEDELTA = re.compile(r"(?:(-?\d{1,5}) days?, )?(\d{1,2}):(\d\d):(\d\d)(?:\.(\d{6}))?", re.ASCII)
_UNPRINTABLE = re.compile(r"[^ -~]")


class HintId(StrEnum):
    """What each hint is known by, for good."""

    UNKNOWN_MEMBER = "unknown-member"
    TIMEDELTA_DURATION = "timedelta-duration"
    FOREIGN_SESSION = "foreign-session"
    MISSING_PERMISSION = "missing-permission"
    HIDDEN_BY_PREFERRED = "hidden-by-preferred"
    OUTRANKED = "outranked"
    ALREADY_SHOWN = "already-shown"
    KEEP_ALIVE = "keep-alive"
    NO_LIVE_SESSION = "no-live-session"
    NOTHING_TO_CLEAR = "nothing-to-clear"

    @property
    def level(self) -> int:
        """How loud it is: a keep-alive is as it should be, all else may surprise."""
        return logging.INFO if self is HintId.KEEP_ALIVE else logging.WARNING


class Hint(NamedTuple):
    """One thing to say about one request."""

    id: HintId
    text: str


class Hints:
    """What was said by all workers, in a file that each appends to: one JSON object a line."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def mount(self, app: Flask) -> None:
        """Watch the application's requests, and say with each answer what there is to say."""
        body_read.connect(_watch_body, app)
        app.register_error_handler(ForeignSession, _explain_foreign_session)
        app.register_error_handler(PermissionMissing, _explain_missing_permission)
        app.after_request(self._say)

    def since(self, first: int) -> tuple[list[dict[str, Any]], int]:
        """Return what was said, from the hint with this number on (the oldest is 0), and the number of the next one.

        Where there are fewer, counting has begun anew since: then it is all.
        """
        try:
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            lines = []
        new = lines if first > len(lines) else lines[first:]
        return [json.loads(line) for line in new], len(lines)

    def clear(self) -> None:
        """Forget it all."""
        self._path.unlink(missing_ok=True)

    def _say(self, response: Response) -> Response:
        hints: list[Hint] = g.pop("hints", [])
        if hints:
            response.headers[HEADER] = " | ".join(f"{hint.id}; {hint.text}" for hint in hints)
            self._keep(hints)
        return response

    def _keep(self, hints: list[Hint]) -> None:
        where = {"method": request.method, "path": _plain(request.path), "requestId": g.request_id}
        for hint in hints:
            log.log(hint.id.level, "%s %s; %s (%s)", HEADER, *hint, " ".join(where.values()))
        at = self._clock().isoformat()
        said = ({**hint._asdict(), "level": _name(hint.id.level), "at": at, **where} for hint in hints)
        with self._path.open("a") as file:
            if file.tell() > MOST_BYTES:
                file.truncate(0)
            file.write("".join(f"{json.dumps(one)}\n" for one in said))  # all in one write, which no other mixes with


def note(hint: Hint) -> None:
    """Let a hint go out with the answer to the present request."""
    hints: list[Hint] = g.setdefault("hints", [])
    if len(hints) < MOST_HINTS:
        hints.append(Hint(hint.id, _plain(hint.text)))


def hints_on_body(model: type[GraphBody], members: Mapping[str, object]) -> Iterator[Hint]:
    """Find what a body says in vain. A member that holds nothing, or annotates another (`@`), is no mistake."""
    fields = {field.alias or name: set(_types(field.annotation)) for name, field in model.model_fields.items()}
    for name, value in members.items():
        types = fields.get(name)
        if types is None:
            if "@" not in name and value not in (None, [], {}):
                yield Hint(HintId.UNKNOWN_MEMBER, _ignored(name, fields))
        elif timedelta in types:
            yield from _hints_on_duration(value)
        else:
            for part in value if isinstance(value, list) else [value]:
                for inner in types:
                    if isinstance(part, dict) and isinstance(inner, type) and issubclass(inner, GraphBody):
                        yield from hints_on_body(inner, part)


def _hints_on_duration(value: object) -> Iterator[Hint]:
    match = _TIMEDELTA.fullmatch(value) if isinstance(value, str) else None
    if match:
        days, hours, minutes, seconds, microseconds = (int(part or 0) for part in match.groups())
        length = timedelta(days, seconds, microseconds, minutes=minutes, hours=hours)
        right = to_jsonable_python(length)
        yield Hint(HintId.TIMEDELTA_DURATION, f'"{match[0]}" is how Python writes a timedelta; send "{right}"')


def _ignored(name: str, fields: Mapping[str, object]) -> str:
    if len(name) > MOST_NAME_CHARACTERS:  # nobody's misspelling, and perhaps a secret
        return f"a member whose name has {len(name)} characters is ignored: there is no such member"
    spelled = {field.lower(): field for field in fields}
    near = get_close_matches(name.lower(), spelled, n=1)
    return f'"{name}": did you mean {spelled[near[0]]}?' if near else f'"{name}" is ignored: there is no such member'


def _types(annotation: object) -> Iterator[object]:
    """Return what an annotation is made of: of `list[X] | None`, X and None."""
    if parts := get_args(annotation):
        for part in parts:
            yield from _types(part)
    else:
        yield annotation


def _watch_body(_app: Flask, model: type[GraphBody], members: Mapping[str, object]) -> None:
    for hint in hints_on_body(model, members):
        note(hint)


def _explain_foreign_session(error: ForeignSession) -> Response:
    text = f"sessionId must be the calling application's id, {error.app_id}, got {error.session_id}"
    note(Hint(HintId.FOREIGN_SESSION, text))
    return answer(error)


def _explain_missing_permission(error: PermissionMissing) -> Response:
    held = "" if error.held is None else f" It has: {', '.join(sorted(error.held)) or 'none'}."
    note(Hint(HintId.MISSING_PERMISSION, f"{error}{held}"))
    return answer(error)


def _name(level: int) -> str:
    return logging.getLevelName(level).lower()


def _plain(text: str) -> str:
    """Return what fits in a header and on a line of a log."""
    return _UNPRINTABLE.sub("?", text)[:MOST_CHARACTERS]
