"""The service on a clock that jumps: it is off by as many seconds as a file says.

Debian's libfaketime would move all of the process's clocks, but its time.sleep() fails (EINVAL) in CPython 3.11, and
gunicorn's master sleeps. The service asks the time in one place only, and that one is moved.
"""

import os
from datetime import datetime, timedelta
from pathlib import Path

from app.factory import create_app, utc_now
from config import Settings, load

OFFSET = Path(os.environ["CLOCK_OFFSET_FILE"])


def jumpy_clock() -> datetime:
    """Return the time that the service believes in."""
    return utc_now() + timedelta(seconds=float(OFFSET.read_text()))


app = create_app(load(Settings), jumpy_clock)
