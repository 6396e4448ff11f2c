"""Who may write to a SQLite file next."""

import fcntl
import os
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


class Turns:
    """A queue in front of SQLite's one write lock: threads queue for their process, processes on lock files.

    SQLite itself does not queue: whoever finds the lock taken sleeps, for up to 100 ms, and tries again, while those
    who have just come take it. Nothing polls here, a process that dies gives way, and no wait is longer than `timeout`
    seconds. Threads come up in the order in which they came. A process that has had a turn does not have the next one
    while others wait: who is next holds a lock of its own, and gives it up only when its turn has begun.
    """

    def __init__(self, lock_file: Path, timeout: float) -> None:
        self._turn_file = lock_file
        self._next_file = lock_file.with_name(f"{lock_file.name}-next")
        self._timeout = timeout
        self._order = threading.Lock()
        self._taken = False
        self._queue: deque[threading.Lock] = deque()
        self._waiter = ThreadPoolExecutor(1, "sqlite-turn")  # a wait for flock has no end of its own
        self._file = -1

    def begin(self) -> None:
        """Wait for a turn.

        Raises:
            OSError: it did not come in time (TimeoutError), or a lock file cannot be had.
        """
        deadline = time.monotonic() + self._timeout
        self._line_up()
        try:
            following = self._locked(self._next_file, deadline)
            try:
                self._file = self._locked(self._turn_file, deadline)
            finally:
                os.close(following)
        except BaseException:
            self._call_up()
            raise

    def end(self) -> None:
        """Let the next one have a turn."""
        os.close(self._file)  # and so the lock goes
        self._call_up()

    def _line_up(self) -> None:
        """Wait until this thread is the one that acts for its process."""
        with self._order:
            if not self._taken:
                self._taken = True
                return
            called = threading.Lock()
            called.acquire()
            self._queue.append(called)
        if not called.acquire(timeout=self._timeout):
            with self._order:
                if called in self._queue:
                    self._queue.remove(called)
                    raise TimeoutError
            # it has just been called up after all

    def _call_up(self) -> None:
        with self._order:
            if self._queue:
                self._queue.popleft().release()
            else:
                self._taken = False

    def _locked(self, path: Path, deadline: float) -> int:
        file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            locked = self._waiter.submit(fcntl.flock, file, fcntl.LOCK_EX)
            try:
                locked.result(deadline - time.monotonic())
            except BaseException:
                locked.add_done_callback(lambda _: os.close(file))  # it may still come, and then nobody wants it
                locked.cancel()
                raise
        return file
