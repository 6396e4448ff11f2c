"""Clients that write down whatever was acknowledged to them, and a check of that ledger against the database."""

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from tests.builders import Application, Clock, application, new_id

CLIENTS = 8
PAUSE_SECONDS = 0.03
AFTER_AN_ERROR_SECONDS = 0.2
"""Sooner than Retry-After asks for, so that the end of an outage is seen when it comes."""
GIVE_UP_SECONDS = 30.0

ACKNOWLEDGED, UNAVAILABLE, DISCONNECTED = "200", "503", "connection"


@dataclass(frozen=True)
class Attempt:
    """One request and what became of it. Moments are those of time.monotonic()."""

    kind: str
    user_id: str
    outcome: str
    request_id: str
    begun_at: float
    ended_at: float

    @property
    def written(self) -> bool:
        """True when a write was acknowledged."""
        return self.outcome == ACKNOWLEDGED and self.kind != "read"


class Load:
    """Applications at work: for one user after another set, keep alive, read, and mostly clear."""

    def __init__(self, base: str, tenant_id: str) -> None:
        self.attempts: list[Attempt] = []
        self._address = urlsplit(base).netloc
        self._over = threading.Event()
        clock = Clock(datetime.now(UTC))
        self._threads = [
            threading.Thread(target=self._work, args=[application(clock, tenant_id, "Presence.ReadWrite.All")])
            for _ in range(CLIENTS)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def has_written_since(self, moment: float) -> bool:
        """Tell whether a write that began after this moment was acknowledged."""
        return any(attempt.written and attempt.begun_at > moment for attempt in self.attempts[-1000:])

    def _work(self, app: Application) -> None:
        client = http.client.HTTPConnection(self._address, timeout=GIVE_UP_SECONDS)
        for round_ in itertools.count():
            user = new_id()
            for kind in ("set", "keep-alive", "read", "clear")[: 3 if round_ % 4 == 0 else 4]:
                attempt = self._attempt(client, app, kind, user)
                self.attempts.append(attempt)
                if self._over.wait(PAUSE_SECONDS if attempt.outcome == ACKNOWLEDGED else AFTER_AN_ERROR_SECONDS):
                    client.close()
                    return
                if attempt.outcome != ACKNOWLEDGED:
                    break  # what holds for this user is not known any more

    def _attempt(self, client: http.client.HTTPConnection, app: Application, kind: str, user: str) -> Attempt:
        path = f"/v1.0/users/{user}/presence"
        body: dict[str, str] = {"sessionId": app.app_id}
        if kind in {"set", "keep-alive"}:
            length = "PT1H" if kind == "set" else "PT2H"
            body |= {"availability": "Busy", "activity": "InACall", "expirationDuration": length}
        begun, request_id = time.monotonic(), ""
        try:
            if kind == "read":
                client.request("GET", path, headers=app.headers)
            else:
                action = "clearPresence" if kind == "clear" else "setPresence"
                headers = {**app.headers, "Content-Type": "application/json"}
                client.request("POST", f"{path}/{action}", json.dumps(body), headers)
            response = client.getresponse()
            text = response.read()
            request_id = response.headers["request-id"] or ""
            outcome = str(response.status)
            if outcome == UNAVAILABLE and "Retry-After" not in response.headers:
                outcome = "503 without Retry-After"
            if kind == "read" and outcome == ACKNOWLEDGED and json.loads(text)["activity"] != "InACall":
                outcome = "read shows no acknowledged set"
        except (ConnectionError, http.client.BadStatusLine):
            outcome = DISCONNECTED
            client.close()
        except TimeoutError:
            outcome = "no answer"
            client.close()
        return Attempt(kind, user, outcome, request_id, begun, time.monotonic())


@dataclass(frozen=True)
class Phase:
    """What clients saw between two moments."""

    name: str
    attempts: list[Attempt]
    begun_at: float
    ended_at: float

    @property
    def outcomes(self) -> Counter[str]:
        """How often each thing happened."""
        return Counter(attempt.outcome for attempt in self.attempts)

    @property
    def seconds_without_writes(self) -> float:
        """The longest time in which no write was acknowledged."""
        moments = sorted(attempt.ended_at for attempt in self.attempts if attempt.written)
        return max(after - before for before, after in itertools.pairwise((self.begun_at, *moments, self.ended_at)))

    @property
    def slowest_seconds(self) -> float:
        """The longest that a client waited for an answer."""
        return max(attempt.ended_at - attempt.begun_at for attempt in self.attempts)

    @property
    def unexpected(self) -> Counter[str]:
        """What no client should ever see."""
        return Counter({o: n for o, n in self.outcomes.items() if o not in {ACKNOWLEDGED, UNAVAILABLE, DISCONNECTED}})


def lost(attempts: list[Attempt], query: Callable[[str], list[tuple[Any, ...]]]) -> list[Attempt]:
    """Return the acknowledged writes that a database knows nothing of.

    Each set and clear has an event with its request id. A keep-alive has none: it shows in the session's length, as
    long as nothing was tried for its user afterwards.
    """
    events = set(query("SELECT request_id::text, user_id::text, kind FROM presence_event"))
    lengths = dict(query("SELECT user_id::text, extract(epoch FROM expires_at - set_at)::int FROM presence_session"))
    last = {attempt.user_id: attempt for attempt in attempts if attempt.kind != "read"}
    recorded = {"set": "set", "clear": "cleared"}
    kept = {"set": 3600, "keep-alive": 7200, "clear": None}
    return [
        attempt
        for attempt in attempts
        if attempt.written
        and (
            (attempt.kind in recorded and (attempt.request_id, attempt.user_id, recorded[attempt.kind]) not in events)
            or (last[attempt.user_id] is attempt and lengths.get(attempt.user_id) != kept[attempt.kind])
        )
    ]
