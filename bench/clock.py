"""Tells what it costs to move the emulator's clock with two gunicorn workers. `make bench-clock` runs it.

A move is one request; it is over when its answer is there, and from then on every worker has to show the new time.
"""

import http.client
import json
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from tempfile import TemporaryDirectory

from tests.servers import gunicorn

WORKERS, MOVES = 2, 500
AIM_MS = 50
MORNING = datetime(2026, 3, 2, 8, tzinfo=UTC)


def clock(connection: http.client.HTTPConnection, **how: object) -> datetime:
    """Move the clock, or read it, and return the server's time."""
    body, method = (json.dumps(how), "POST") if how else (None, "GET")
    connection.request(method, "/emulator/clock", body, {"Content-Type": "application/json"})
    return datetime.fromisoformat(json.load(connection.getresponse())["now"])


def main() -> int:
    """Move the clock by each worker in turn, and read it from all of them each time."""
    print(f"Starting a development server with {WORKERS} workers", flush=True)
    spent: list[float] = []
    with TemporaryDirectory() as folder:
        environment = {"PRESENCE_ENV": "development", "LOG_LEVEL": "WARNING", "WEB_CONCURRENCY": str(WORKERS)}
        url = f"sqlite:///{folder}/presence.sqlite3"
        with gunicorn(**environment, INSTANCE_PATH=folder, DATABASE_URL=url) as server:
            workers = server.each_worker(WORKERS)
            clock(workers[0], now=MORNING.isoformat(), frozen=True)
            print(
                f"Moving its clock {MOVES} times by a minute, and reading it from every worker after each", flush=True
            )
            for move in range(MOVES):
                began = time.perf_counter()
                clock(workers[move % WORKERS], advance="PT1M")
                spent.append((time.perf_counter() - began) * 1000)
                if any(clock(worker) != MORNING + (move + 1) * timedelta(minutes=1) for worker in workers):
                    print(f"After move {move + 1} the workers show different times")
                    return 1
            for worker in workers:
                worker.close()
    spent.sort()
    median, late = statistics.median(spent), spent[MOVES * 99 // 100]
    print(f"A move takes {median:.1f} ms (median; 99 of 100: {late:.1f} ms, longest: {spent[-1]:.1f} ms),")
    print(f"{median / AIM_MS:.1%} of the {AIM_MS} ms that it may. Both workers showed each new time at once.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
