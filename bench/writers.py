"""Measures how long a write waits on SQLite beside many others: `make bench-writers`.

Four processes, as gunicorn's workers are, share the writers among them. Each writer sets sessions of users of its own,
one after the other, through the service's store; DATABASE_TIMEOUT is the service's own.
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from alembic import command
from alembic.config import Config
from databases import percentile
from sqlalchemy import URL

from app.db.engine import make_engine
from app.db.store import Store, StoreUnavailable, make_store
from app.domain.values import IN_A_CALL, SessionKey
from config import Settings, load

PROCESSES = 4
LIFETIME = timedelta(hours=1)
PATIENCE_SECONDS = 60
"""For all processes to be there."""
Took = list[float | None]
"""Seconds of each write; None when it was refused."""


def write(store: Store, seconds: int) -> Took:
    """Set sessions for so long."""
    took: Took = []
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        try:
            key = SessionKey(str(uuid4()), str(uuid4()), str(uuid4()))
            store.set_session(key, IN_A_CALL, LIFETIME, datetime.now(UTC), str(uuid4()))
        except StoreUnavailable:
            took.append(None)
        else:
            took.append(time.monotonic() - began)
    return took


def work(url: URL, writers: int, seconds: int, together: Barrier, told: Connection) -> None:
    """Be one process with so many writers."""
    settings = load(Settings, presence_env="development")
    engine = make_engine(url, pool=settings.database_pool, timeout=settings.database_timeout)
    store = make_store(engine)
    together.wait(PATIENCE_SECONDS)
    with ThreadPoolExecutor(writers) as threads:
        parts = threads.map(write, [store] * writers, [seconds] * writers)
        told.send([one for part in parts for one in part])
    engine.dispose()


def measure(url: URL, writers: int, seconds: int) -> str:
    """Return a line of the table."""
    spawn = multiprocessing.get_context("spawn")
    count = min(PROCESSES, writers)
    together, answers = spawn.Barrier(count), list[float | None]()
    with ExitStack() as stack:
        pipes = [spawn.Pipe(duplex=False) for _ in range(count)]
        for number, (_, theirs) in enumerate(pipes):
            share = writers // count + (number < writers % count)
            process = spawn.Process(target=work, args=(url, share, seconds, together, theirs), daemon=True)
            process.start()
            stack.callback(process.join)
        for ours, _ in pipes:
            answers += ours.recv() if ours.poll(PATIENCE_SECONDS + seconds) else []
    took = sorted(one for one in answers if one is not None)
    p50, p99 = percentile(took, 50) * 1000, percentile(took, 99) * 1000
    figures = f"{len(took) / seconds:9,.0f}{p50:9.1f}{p99:9.1f}{took[-1] * 1000:12.1f}{p99 / p50:9.1f}"
    return f"{writers:7}{figures}{len(answers) - len(took):9}"


def main() -> None:
    """Measure with a few writers and with many."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=lambda text: [*map(int, text.split(","))], default=[1, 16, 64])
    parser.add_argument("--seconds", type=int, default=5, help="length of one measurement")
    options = parser.parse_args()
    migrations = Config()
    migrations.set_main_option("script_location", "migrations")
    migrations.set_main_option("path_separator", "os")
    with TemporaryDirectory() as folder:
        url = URL.create("sqlite+pysqlite", database=str(Path(folder, "presence.sqlite3")))
        migrations.attributes["database_url"] = url
        command.upgrade(migrations, "head")
        print("writers writes/s   p50 ms   p99 ms  longest ms  p99÷p50  refused", flush=True)
        for writers in options.writers:
            print(measure(url, writers, options.seconds), flush=True)


if __name__ == "__main__":
    main()
