"""gunicorn's threaded worker, of which each takes its share of the connections."""

import mmap
import time
from typing import Any

from gunicorn.workers.gthread import ThreadWorker
from typing_extensions import override

PATIENCE_SECONDS = 0.005
"""How long a worker leaves a connection to another, who may be stopped, or have as many as it takes."""


class EvenWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn tells no types
    """A worker that leaves new connections to those who have fewer (docs/decisions/0025-an-even-share.md).

    Else whoever wakes up first takes all that come at once. Clients keep them, so one of two workers may be left with
    all the work, and its threads with one interpreter.
    """

    connections = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("i")[:128]
    """One more than each worker has, at its age; 0: no such worker. All of them share it, being forked with it."""

    def __init__(self, age: int, *rest: Any) -> None:
        super().__init__(age, *rest)
        self._place = age % len(self.connections)
        self._left_since = 0.0
        self._looks_away = False

    @override
    def accept(self, listener: Any) -> None:
        now = time.monotonic()
        self._tell()
        if any(0 < others <= self.nr_conns for others in self.connections):
            self._left_since = self._left_since or now
            if now - self._left_since < PATIENCE_SECONDS:
                self._looks_away = True
                return
        super().accept(listener)
        self._left_since = 0.0

    @override
    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        if looks_away := self._looks_away:  # what was left to others would wake this one again at once
            self.set_accept_enabled(False)
            timeout = PATIENCE_SECONDS
        self._looks_away = False
        super().wait_for_and_dispatch_events(timeout)
        if not looks_away and not self._looks_away:  # nothing is left waiting
            self._left_since = 0.0
        self._tell()

    def forget(self) -> None:
        """Let nobody wait for this worker, which has ended."""
        self.connections[self._place] = 0

    def _tell(self) -> None:
        self.connections[self._place] = self.nr_conns + 1 if self.alive else 0
