"""Applications that set and clear presence without a pause, and write down what they were told."""

import http.client
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from app.domain.values import AVAILABLE, AWAY, IN_A_CALL, IN_A_CONFERENCE_CALL, PRESENTING, Shown
from tests.builders import Application, Clock, application, new_id
from tests.chaos.ledger import Key, Request

SHOWN = (AVAILABLE, AWAY, IN_A_CALL, IN_A_CONFERENCE_CALL, PRESENTING)
LIFETIME = "PT4H"
"""Longer than any jump of the clock."""
PATIENCE_SECONDS = 20
"""A request without an answer by then hangs."""
RECOVERY_SECONDS = 30
PAUSE_SECONDS = 0.01


class Client(threading.Thread):
    """One application on one kept-alive connection. It never asks about a user again whose state it does not know."""

    def __init__(self, port: int, app: Application) -> None:
        super().__init__(daemon=True)
        self.requests: list[Request] = []
        self.not_connected = 0
        self.problems: list[str] = []
        self.asking_since: float | None = None
        self._port = port
        self._app = app
        self._connection: http.client.HTTPConnection | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            self._one_user()
        self._drop()

    def end(self) -> None:
        self._ended.set()

    def _one_user(self) -> None:
        user_id = new_id()
        for shown in self._plan():
            if self._ended.is_set():
                return
            answered = self._send(user_id, shown)
            if answered is None or answered.status not in {200, 404}:
                return
            self._ended.wait(PAUSE_SECONDS)

    @staticmethod
    def _plan() -> Iterator[Shown | None]:
        """What to ask for about one user: perhaps clears, of which one too many. No set repeats the one before it:
        that would be a keep-alive, which leaves no event to look for."""
        first, second, third = random.sample(SHOWN, 3)
        yield from (first, second)
        if random.random() < 0.8:  # noqa: S311
            yield from (None, None)
        if random.random() < 0.3:  # noqa: S311
            yield third

    def _send(self, user_id: str, shown: Shown | None) -> Request | None:
        """Send one request and write down how it ends; None when it could not be sent at all."""
        body: dict[str, object] = {"sessionId": self._app.app_id}
        if shown:
            body |= {**shown._asdict(), "expirationDuration": LIFETIME}
        path = f"/v1.0/users/{user_id}/presence/{'set' if shown else 'clear'}Presence"
        headers = {"Content-Type": "application/json", **self._app.headers}
        try:
            connection = self._connect()
        except OSError:
            self.not_connected += 1
            self._ended.wait(10 * PAUSE_SECONDS)
            return None
        status, request_id = None, None
        self.asking_since = sent_at = time.monotonic()
        try:
            connection.request("POST", path, json.dumps(body), headers)
            with connection.getresponse() as response:
                response.read()
                status, request_id = response.status, response.headers["request-id"]
                if status == 503 and not int(response.headers.get("Retry-After", 0)) > 0:
                    self.problems.append("a 503 without Retry-After")
        except TimeoutError:
            self.problems.append(f"no answer within {PATIENCE_SECONDS} s")
            self._drop()
        except (OSError, http.client.HTTPException):
            self._drop()
        self.asking_since = None
        request = Request(Key(user_id, self._app.app_id), shown, sent_at, time.monotonic(), status, request_id)
        self.requests.append(request)
        return request

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)
            connection.connect()
            self._connection = connection
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Clients:
    """A tenant's applications, each in a thread, while the block runs."""

    def __init__(self, port: int, count: int) -> None:
        self.tenant_id = new_id()
        yesterday = Clock(datetime.now(UTC) - timedelta(days=1))  # so that a token stands when the clock jumps back
        apps = (application(yesterday, self.tenant_id, "Presence.ReadWrite.All") for _ in range(count))
        self._threads = [Client(port, app) for app in apps]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.end()
        for thread in self._threads:
            thread.join(2 * PATIENCE_SECONDS)

    @property
    def requests(self) -> list[Request]:
        """All requests so far; those about one key in their order."""
        return [request for thread in self._threads for request in thread.requests.copy()]

    @property
    def problems(self) -> list[str]:
        """What no client should meet."""
        return list(itertools.chain(*(thread.problems for thread in self._threads)))

    @property
    def not_connected(self) -> int:
        """How often a connection was refused."""
        return sum(thread.not_connected for thread in self._threads)

    def acknowledged(self) -> int:
        """Return how many requests have been answered with 200."""
        return sum(request.status == 200 for request in self.requests)

    def served(self) -> bool:
        """Wait until each client can have been acknowledged once more; tell whether that comes to pass."""
        enough = self.acknowledged() + len(self._threads)
        return until(lambda: self.acknowledged() > enough, RECOVERY_SECONDS)

    def refused(self) -> int:
        """Return how many requests have been answered with 503."""
        return sum(request.status == 503 for request in self.requests)

    def waiting(self, since: float) -> int:
        """Return how many requests have been under way since then or longer."""
        return sum((thread.asking_since or since + 1) <= since for thread in self._threads)


def until(true: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is true, for so long at most; tell whether it is."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
