"""Who may write to a SQLite file next."""

import fcntl
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


class Turns:
    """A queue in front of SQLite's one write lock: threads queue for their process, processes on a lock file.

    SQLite itself does not queue: whoever finds the lock taken sleeps, for up to 100 ms, and tries again, while those
    who have just come take it. Nothing polls here, a process that dies gives way, and no wait is longer than `timeout`
    seconds.
    """

    def __init__(self, lock_file: Path, timeout: float) -> None:
        self._lock_file = lock_file
        self._timeout = timeout
        self._first = threading.Lock()
        self._waiter = ThreadPoolExecutor(1, "sqlite-turn")  # a wait for flock has no end of its own
        self._file = -1

    def begin(self) -> None:
        """Wait for a turn.

        Raises:
            OSError: it did not come in time (TimeoutError), or the lock file cannot be had.
        """
        deadline = time.monotonic() + self._timeout
        if not self._first.acquire(timeout=self._timeout):
            raise TimeoutError
        try:
            self._file = self._locked(deadline)
        except BaseException:
            self._first.release()
            raise

    def end(self) -> None:
        """Let the next one have a turn."""
        os.close(self._file)  # and so the lock goes
        self._first.release()

    def _locked(self, deadline: float) -> int:
        file = os.open(self._lock_file, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
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
