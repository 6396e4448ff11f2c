"""Who may use the database next, and for whom else as well."""

import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")

MOST_TOGETHER = 64
"""How many are served at once at most, so that others need not wait long."""


class Place(Generic[T]):
    """A thread's place in a line, and what is to be done when it has come up."""

    def __init__(self, work: Callable[[Any], T] | None = None, error: Exception | None = None) -> None:
        self.work = work
        """Given a cursor, does it; whoever has come up may. None: the thread itself has to."""
        self.result: T | None = None
        self.error = error
        """Why there is no result. As it is given, it stands for one who came up and did not come back."""
        self.served = False
        self.called = threading.Lock()
        self.called.acquire()


class Line:
    """Threads that wait for one of them to come back, and come up in the order in which they came.

    Whoever has come up may do what those behind him want, and so save them the way.
    """

    def __init__(self, timeout: float) -> None:
        """No wait is longer than `timeout` seconds."""
        self._timeout = timeout
        self._order = threading.Lock()
        self._taken = False
        self._queue: deque[Place[Any]] = deque()
        self._served: list[Place[Any]] = []

    def enter(self, place: Place[Any]) -> bool:
        """Wait until this thread has come up; return False when it was served instead.

        Raises:
            TimeoutError: neither happened in time.
        """
        with self._order:
            if not self._taken:
                self._taken = True
                return True
            self._queue.append(place)
        if not place.called.acquire(timeout=self._timeout):
            with self._order:
                if place in self._queue:
                    self._queue.remove(place)
                    raise TimeoutError
            place.called.acquire()  # it was called up just now, or is being served
        return not place.served

    def company(self) -> list[Place[Any]]:
        """Return the next ones, up to one who wants to come up himself. They wait until this thread leaves."""
        with self._order:
            while self._queue and self._queue[0].work and len(self._served) < MOST_TOGETHER:
                self._served.append(self._queue.popleft())
                self._served[-1].served = True
        return self._served

    def leave(self) -> None:
        """Let the next one come up, and those go who were served."""
        served, self._served = self._served, []
        with self._order:
            if self._queue:
                self._queue.popleft().called.release()
            else:
                self._taken = False
        for place in served:
            place.called.release()


class Turns:
    """A queue in front of SQLite's one write lock: threads stand in a line, processes queue on lock files.

    SQLite itself does not queue: whoever finds the lock taken sleeps, for up to 100 ms, and tries again, while those
    who have just come take it. Nothing polls here, a process that dies gives way, and no wait is longer than `timeout`
    seconds. A process that has had a turn does not have the next one while others wait: who is next holds a lock of
    its own, and gives it up only when its turn has begun.
    """

    def __init__(self, lock_file: Path, timeout: float) -> None:
        self._turn_file = lock_file
        self._next_file = lock_file.with_name(f"{lock_file.name}-next")
        self._timeout = timeout
        self.line = Line(timeout)
        self._file = -1

    def begin(self, place: Place[Any] | None = None) -> bool:
        """Wait for a turn; return False when there is no need for one any more, as another has served this place.

        Raises:
            OSError: it did not come in time (TimeoutError), or a lock file cannot be had.
        """
        deadline = time.monotonic() + self._timeout
        if not self.line.enter(place or Place()):
            return False
        try:
            following = self._locked(self._next_file, deadline)
            try:
                self._file = self._locked(self._turn_file, deadline)
            finally:
                os.close(following)
        except BaseException:
            self.line.leave()
            raise
        return True

    def end(self) -> None:
        """Let the next one have a turn."""
        os.close(self._file)  # and so the lock goes
        self.line.leave()

    @cached_property
    def _waiter(self) -> ThreadPoolExecutor:
        """The thread that waits for flock, which has no end of its own.

        It is started with nothing to do: where no thread can be, what it was given would stay, and be done later.
        """
        waiter = ThreadPoolExecutor(1, "sqlite-turn")
        waiter.submit(int)
        return waiter

    def _locked(self, path: Path, deadline: float) -> int:
        file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                waiter = self._waiter
            except BaseException:
                os.close(file)
                raise
            locked = waiter.submit(fcntl.flock, file, fcntl.LOCK_EX)
            try:
                locked.result(deadline - time.monotonic())
            except BaseException:
                locked.add_done_callback(lambda _: os.close(file))  # it may still come, and then nobody wants it
                locked.cancel()
                raise
        return file
