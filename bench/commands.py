"""Measures the operator's commands with few users and with many on PostgreSQL: `make bench-commands`.

Each command runs in this process, as often as there are rounds, so that a figure is what it costs once Python has
started; the first line is that start. A round runs every command at every size; a figure is the median.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import databases
import seed
from flask import Flask

from app.cli import commands
from app.db.engine import make_engine
from app.domain.values import NIL, SessionKey
from app.factory import create_app
from app.services.inspection import InspectionService
from config import Settings, load

LINES = {
    "show": ("show", "{user}"),
    "explain, by id": ("explain", "{user}"),
    "explain, by name": ("explain", "{name}"),
    "history": ("history", "{user}"),
    "clear": ("clear", "{user}", "{app}", "--yes"),
    "sessions of a user": ("sessions", "--user", "{user}"),
    "sessions of an app, 100": ("sessions", "--app", "{app}"),
    "sessions of a rare app": ("sessions", "--app", "{nobody}"),
    "sessions, 100": ("sessions",),
    "stats": ("stats",),
    "stats of a tenant": ("stats", "--tenant", seed.TENANT),
    "doctor": ("doctor",),
}
STRIDE = 7919
"""A prime: users of one round are none of the next."""
ONCE = {
    "sweep": ("sweep",),
    "export": ("export", "{file}"),
    "import": ("import", "{file}"),
}
"""What passes over every row, and is run once, at the end. The import is of what is there already."""
Took = dict[tuple[str, int], list[float]]
"""Seconds, by what was run and with how many users."""


def run(app: Flask, words: Sequence[str]) -> float:
    """Run a command to its end and return how many seconds it took."""
    began = time.perf_counter()
    done = app.test_cli_runner().invoke(commands, words)
    took = time.perf_counter() - began
    if done.exit_code:
        sys.exit(f"bench: {' '.join(words)} ended with {done.exit_code}: {done.output}")
    return took


def start() -> float:
    """Run a command that looks at nothing in a process of its own, and return how many seconds it took."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "app.cli", "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def live_session(app: Flask, near: str) -> SessionKey:
    """Return the key of the first live session at or after a user."""
    service: InspectionService = app.extensions["inspection"]
    (found,) = service.sessions(1, tenant_id=seed.TENANT, after=SessionKey(seed.TENANT, near, NIL))
    return found.key


def measure(sizes: Sequence[int], rounds: int, once: Sequence[str]) -> Took:
    """Seed a database of each size and run all rounds."""
    took: Took = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="presence-commands-")))
        postgres = stack.enter_context(databases.postgres_server())
        apps: dict[int, Flask] = {}
        urls: dict[int, str] = {}
        for size in sizes:
            print(f"{size:,} users", flush=True)
            database = postgres(f"commands_{size}", True)
            stack.callback(database.close)
            engine = make_engine(database.url, pool=1, timeout=seed.TIMEOUT)
            seed.seed(seed.Seeder(engine), seed.Users([seed.TENANT], datetime.now(UTC)), range(size))
            engine.dispose()
            urls[size] = database.url.render_as_string(hide_password=False)
            os.environ.update(PRESENCE_ENV="development", AUTH_TENANTS=seed.TENANT, DATABASE_URL=urls[size])
            apps[size] = create_app(load(Settings, instance_path=folder))
            stack.callback(apps[size].extensions["engine"].dispose)
        for number in range(rounds):
            took["start", sizes[0]].append(start())
            last = {label: ONCE[label] for label in once if number == rounds - 1}
            for label, words in {**LINES, **last}.items():
                for size in sizes:
                    user = (number * STRIDE + len(took)) % size
                    os.environ["DATABASE_URL"] = urls[size]  # doctor reads it
                    key = live_session(apps[size], seed.guid(user))
                    known = {
                        "user": key.user_id,
                        "name": f"user{user}@contoso.example",
                        "app": key.session_id,
                        "nobody": seed.guid(0, salt=1),
                        "file": str(folder / f"{size}.jsonl"),
                    }
                    seconds = run(apps[size], [word.format(**known) for word in words])
                    took[label, size].append(seconds)
                    print(f"round {number + 1}/{rounds}: {label}, {size:,} users: {seconds:.3f} s", flush=True)
    return took


def table(took: Took, sizes: Sequence[int]) -> str:
    """Return the table: milliseconds with each number of users, and what the last is beside the first."""
    lines = [f"{'ms':26}" + "".join(f"{f'{size:,} users':>18}" for size in sizes) + f"{'ratio':>10}"]
    for label in dict.fromkeys(label for label, _ in took):
        middles = [statistics.median(took[label, size]) * 1000 for size in sizes if (label, size) in took]
        ratio = f"{middles[-1] / middles[0]:10.2f}" if len(middles) > 1 else ""
        lines.append(f"{label:26}" + "".join(f"{middle:18,.0f}" for middle in middles) + ratio)
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=lambda text: [*map(int, text.split(","))], default=[10_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--once", type=lambda text: [*filter(None, text.split(","))], default=[*ONCE])
    options = parser.parse_args()
    load = os.getloadavg()[0]
    took = measure(options.sizes, options.rounds, options.once)
    print(f"\n{os.cpu_count()} cores (load {load:.1f} before), median of {options.rounds}.\n")
    print(table(took, options.sizes))


if __name__ == "__main__":
    main()
