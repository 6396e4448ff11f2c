"""What all workers of a development server share without asking each other: one page of memory behind a file."""

import mmap
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

CLOCK, FAULTS = 0, 1
"""Words of the page: the clock, and the generation of the faults (0: there are none)."""


class SharedPage:
    """A few 64-bit words that every process sees change at once. Reading one costs no system call."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, mmap.PAGESIZE)
            self.words = memoryview(mmap.mmap(descriptor, mmap.PAGESIZE)).cast("q")
        finally:
            os.close(descriptor)


class MovableClock:
    """The time of a development server: the machine's own, moved by an offset, or frozen.

    One word says which, so that no two workers are ever at different times: twice the microseconds of the offset, or
    twice those of the frozen moment since 1970, plus one.
    """

    def __init__(self, page: SharedPage) -> None:
        self._words = page.words

    def __call__(self) -> datetime:
        """Return the time now."""
        word = self._words[CLOCK]
        if word & 1:
            return EPOCH + (word >> 1) * MICROSECOND
        return datetime.now(UTC) + (word >> 1) * MICROSECOND

    @property
    def frozen(self) -> bool:
        """True when it stands still."""
        return bool(self._words[CLOCK] & 1)

    def set(self, moment: datetime, *, frozen: bool) -> None:
        """Let it be `moment` now, and stand still or go on from there."""
        origin = EPOCH if frozen else datetime.now(UTC)
        self._words[CLOCK] = ((moment - origin) // MICROSECOND) * 2 + frozen

    def reset(self) -> None:
        """Show the machine's own time again."""
        self._words[CLOCK] = 0
