"""Faults on demand: the next few requests that match get what no healthy server would give them."""

import fcntl
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path
from typing import IO, Annotated, Any, Self

from flask import Flask, Response, g, request
from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from app.domain.durations import parse_duration
from app.emulator.shared import FAULTS, SharedPage
from app.web.bodies import GraphBody, sentence
from app.web.errors import envelope

CODES = {429: "TooManyRequests", 500: "InternalServerError", 503: "ServiceUnavailable", 504: "GatewayTimeout"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
LONGEST_DELAY = timedelta(minutes=1)
MOUNT = re.compile(r"^/(?:v1\.0|beta)(?=/)")


def _delay(value: object) -> object:
    if value is None:
        return None
    try:
        delay = parse_duration(value) if isinstance(value, str) else timedelta(0)
    except ValueError:
        delay = timedelta(0)
    if not timedelta(0) < delay <= LONGEST_DELAY:
        rule = "must be an ISO 8601 duration of more than PT0S, and at most PT1M, got {got}"
        raise PydanticCustomError("duration", rule, {"got": f"{value!r:.60}"})
    return delay


def _method(value: object) -> object:
    if value is not None and (not isinstance(value, str) or value.upper() not in METHODS):
        rule = "must be one of {methods}, got {got}"
        raise PydanticCustomError("method", rule, {"methods": ", ".join(METHODS), "got": f"{value!r:.60}"})
    return value.upper() if isinstance(value, str) else None


class Fault(GraphBody):
    """What the next `times` requests get: an error, a delay, or no answer to what was done."""

    path: str = "*"
    """A pattern as in a shell, with or without the mount: `/users/*`, `*/clearPresence`."""
    method: Annotated[str | None, BeforeValidator(_method, json_schema_input_type=str | None)] = None
    """In any letter case; absent: any method."""
    times: int = Field(1, ge=1, le=10_000)
    status: int | None = None
    retry_after: int | None = Field(None, alias="retryAfter", ge=0, le=3600)
    """Seconds."""
    delay: Annotated[timedelta | None, BeforeValidator(_delay, json_schema_input_type=str | None)] = None
    lose_answer: bool = Field(default=False, alias="loseAnswer")
    """Do all that was asked, then drop the connection."""

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if [self.status is not None, self.delay is not None, self.lose_answer].count(True) != 1:
            raise sentence("[Status], [Delay], [LoseAnswer]: exactly one must be given.")
        if self.status is not None and self.status not in CODES:
            raise sentence(f"[Status]: must be one of {', '.join(map(str, CODES))}, got {self.status}.")
        return self

    def matches(self, method: str, path: str) -> bool:
        """Tell whether a request is meant."""
        paths = {path, MOUNT.sub("", path)}
        return self.method in {None, method} and any(fnmatchcase(each, self.path) for each in paths)


class Faults:
    """The faults that are still to come, in a file that all workers take them from."""

    def __init__(self, page: SharedPage, path: Path) -> None:
        self._words = page.words
        self._path = path

    def mount(self, app: Flask, exempt: tuple[str, ...]) -> None:
        """Let requests meet them, but for those to paths that begin like one of `exempt`."""

        def meet() -> Response | None:
            if not self._words[FAULTS] or request.path.startswith(exempt):
                return None
            fault = self.take(request.method, request.path)
            if fault is None:
                return None
            if fault.delay is not None:
                time.sleep(fault.delay.total_seconds())
            g.lose_answer = fault.lose_answer
            return _error(fault) if fault.status is not None else None

        def lose(response: Response) -> Response:
            return _lost() if g.pop("lose_answer", False) else response

        app.before_request(meet)
        app.after_request(lose)

    def add(self, fault: Fault) -> None:
        """Queue a fault behind those that are there."""
        with self._open() as (waiting, keep):
            keep([*waiting, fault])

    def waiting(self) -> list[dict[str, Any]]:
        """Return what is still to come."""
        with self._open() as (waiting, _):
            return [_written(fault) for fault in waiting]

    def clear(self) -> None:
        """Forget them all."""
        with self._open() as (_, keep):
            keep([])

    def take(self, method: str, path: str) -> Fault | None:
        """Return the first fault that means this request, and count it down."""
        with self._open() as (waiting, keep):
            for place, fault in enumerate(waiting):
                if fault.matches(method, path):
                    left = [fault.model_copy(update={"times": fault.times - 1})] if fault.times > 1 else []
                    keep([*waiting[:place], *left, *waiting[place + 1 :]])
                    return fault
        return None

    @contextmanager
    def _open(self) -> Iterator[tuple[list[Fault], Any]]:
        with self._path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            waiting = [Fault.model_validate(fault) for fault in json.loads(file.read() or "[]")]
            yield waiting, lambda faults: self._keep(file, faults)

    def _keep(self, file: IO[str], faults: "list[Fault]") -> None:
        file.seek(0)
        file.truncate()
        file.write(json.dumps([_written(fault) for fault in faults]))
        file.flush()
        self._words[FAULTS] = len(faults)


def _written(fault: Fault) -> dict[str, Any]:
    body = fault.model_dump(by_alias=True, exclude_defaults=True)
    if fault.delay is not None:
        body["delay"] = f"PT{fault.delay.total_seconds():f}S"
    return {**body, "path": fault.path, "times": fault.times}


def _error(fault: Fault) -> Response:
    status = HTTPStatus(fault.status or 0)
    response = envelope(status, CODES[status], "A fault that was asked for.")
    if fault.retry_after is not None:
        response.headers["Retry-After"] = str(fault.retry_after)
    return response


def _lost() -> Response:
    """Close the connection under the answer; a test client, which has none, gets a 500 in its place."""
    connection = request.environ.get("gunicorn.socket")
    if connection is not None:
        connection.shutdown(socket.SHUT_RDWR)
    return envelope(HTTPStatus.INTERNAL_SERVER_ERROR, CODES[500], "The answer was lost, as asked for.")
