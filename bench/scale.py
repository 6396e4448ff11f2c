"""Measures what a request costs with few users and with many: `make bench-scale`.

The service's own store, in this process, on databases that bench/seed.py filled: one connection, users all over the
table. Each round runs every case at every size, so that what else the machine does falls on all of them; each case has
users of its own, so that none finds its rows in a cache where another case has just put them. A ratio is taken within a
round; a figure is the median of the rounds.
"""

import argparse
import itertools
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import databases
import seed
from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]
from sqlalchemy import URL

from app.api.schemas import MOST_IDS
from app.db.engine import make_engine
from app.db.store import Store, make_store
from app.domain.values import AVAILABLE, SessionKey

PLOT = Path("docs/img/scale.png")
ENGINES = ("sqlite", "postgresql")
CASES = ("read", "set", "keep-alive", "clear", "bulk read")
"""Users go by number: every fifth is read, the next one set, and so on."""
BULK_READS = 20
STRIDE = 7919
"""A prime: a walk in steps of it visits all users of a class, and neighbours in time are none in number."""
LIFETIME = timedelta(hours=4)


class Sample(NamedTuple):
    """One case at one size, once."""

    cpu_us: float
    """CPU time of store and database, for each request."""
    p50_ms: float
    p99_ms: float


@dataclass
class Subject:
    """A seeded database, and how far the walk of each class of users has come."""

    engine: str
    size: int
    database: databases.Database
    store: Store
    walked: Counter[int] = field(default_factory=Counter)

    def measure(self, case: str, requests: int) -> Sample:
        """Run one case; what it takes away is put back afterwards."""
        users = self._next_users(CASES.index(case), requests)
        if case == "keep-alive":  # of what has not faded
            users = [(user, times) for user, times in users if seed.shown_by(user) != AVAILABLE]
        calls = self._calls(case, users)
        took: list[float] = []
        cpu, cpu_of_database = time.process_time(), databases.cpu_seconds(self.database.pids)
        for call in calls:
            began = time.perf_counter()
            call()
            took.append(time.perf_counter() - began)
        spent = time.process_time() - cpu + databases.cpu_seconds(self.database.pids) - cpu_of_database
        if case == "clear":
            for call in self._calls("keep-alive", users):
                call()
        took.sort()
        p50, p99 = (databases.percentile(took, percent) * 1000 for percent in (50, 99))
        return Sample(spent / len(calls) * 1e6, p50, p99)

    def _next_users(self, of: int, count: int) -> list[tuple[int, int]]:
        """Return the next users of a case, each with how often the walk has been through all of them before."""
        each, first = self.size // len(CASES), self.walked[of]
        self.walked[of] += count
        return [(of + n * STRIDE % each * len(CASES), n // each) for n in range(first, first + count)]

    def _calls(self, case: str, users: Sequence[tuple[int, int]]) -> list[Callable[[], object]]:
        now, request_id = datetime.now(UTC), seed.guid(0)
        keys = [SessionKey(seed.TENANT, seed.guid(user), seed.app_id(user)) for user, _ in users]
        match case:
            case "read":
                return [partial(self.store.read_user, key.tenant_id, key.user_id) for key in keys]
            case "bulk read":
                ids = [key.user_id for key in keys]
                starts = range(0, len(ids) - MOST_IDS + 1, MOST_IDS)
                return [partial(self.store.read_users, seed.TENANT, ids[n : n + MOST_IDS]) for n in starts]
            case "clear":
                return [partial(self.store.end_session, key, now, request_id) for key in keys]
            case "set":  # another state than the last time
                shown = [seed.shown_by(user, 1 + times) for user, times in users]
            case _:
                shown = [seed.shown_by(user) for user, _ in users]
        return [
            partial(self.store.set_session, key, of, LIFETIME, now, request_id)
            for key, of in zip(keys, shown, strict=True)
        ]


Measured = dict[tuple[str, str, int], list[Sample]]
"""By engine, case and size: a sample for each round."""


def measure(options: argparse.Namespace) -> Measured:
    """Seed a database for each engine and size, and run all rounds."""
    measured: Measured = defaultdict(list)
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="presence-scale-"))
        postgres = None
        if "postgresql" in options.engines:
            postgres = stack.enter_context(databases.postgres_server())
        subjects = []
        for engine, size in itertools.product(options.engines, options.sizes):
            print(f"{engine}: {size:,} users", flush=True)
            if engine == "postgresql" and postgres:
                database: databases.Database = postgres(f"scale_{size}", True)
            else:
                url = URL.create("sqlite+pysqlite", database=str(Path(folder, f"{size}.sqlite3")))
                database = databases.Sqlite(url, durable=True)
            stack.callback(database.close)
            pool = make_engine(database.url, pool=1, timeout=seed.TIMEOUT)
            stack.callback(pool.dispose)
            subjects.append(Subject(engine, size, database, make_store(pool)))
            seed.seed(seed.Seeder(pool), seed.Users([seed.TENANT], datetime.now(UTC)), range(size))
        for number, case, subject in itertools.product(range(options.rounds + 1), options.cases, subjects):
            requests = MOST_IDS * BULK_READS if case == "bulk read" else options.requests
            sample = subject.measure(case, requests)
            if number:  # in the first round nobody is measured: caches fill, prepared statements get their plans
                measured[subject.engine, case, subject.size].append(sample)
                done = f"{sample.cpu_us:9,.0f} µs of CPU, p50 {sample.p50_ms:.2f} ms, p99 {sample.p99_ms:.2f} ms"
                what = f"{subject.engine} {case}, {subject.size:,} users"
                print(f"round {number}/{options.rounds}: {what:40}{done}", flush=True)
    return measured


def table(measured: Measured, sizes: Sequence[int]) -> Iterator[str]:
    """Return the lines of the table: CPU µs for each request, and what it is beside that at the smallest size."""
    yield f"{'CPU µs':22}" + "".join(f"{f'{size:,} users':>20}" for size in sizes) + f"{'ratio':>20}{'p99 ms':>18}"
    for engine, case in dict.fromkeys((engine, case) for engine, case, _ in measured):
        columns = [measured[engine, case, size] for size in sizes]
        ratios = [last.cpu_us / first.cpu_us for first, last in zip(columns[0], columns[-1], strict=True)]
        cells = "".join(f"{_spread([sample.cpu_us for sample in column], ',.0f'):>20}" for column in columns)
        p99 = " ".join(f"{statistics.median(sample.p99_ms for sample in column):.1f}" for column in columns)
        yield f"{engine} {case:10}".ljust(22) + cells + f"{_spread(ratios, '.2f'):>20}{p99:>18}"


def _spread(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}} [{min(values):{form}}…{max(values):{form}}]"


def plot(measured: Measured, path: Path) -> None:
    """Draw the cost of each case against the number of users, one picture for each engine."""
    engines = [*dict.fromkeys(engine for engine, _, _ in measured)]
    drawn = Figure(figsize=(5.5 * len(engines), 4.5), layout="constrained")
    for axes, engine in zip(drawn.subplots(1, len(engines), squeeze=False)[0], engines, strict=True):
        for case in CASES:
            points = [(size, found) for (of, name, size), found in measured.items() if (of, name) == (engine, case)]
            middles = [statistics.median(sample.cpu_us for sample in found) for _, found in points]
            axes.plot([size for size, _ in points], middles, marker="o", label=case)
        axes.set(xscale="log", yscale="log", title=engine, xlabel="users", ylabel="CPU µs for each request")
        axes.grid(visible=True, which="both", alpha=0.3)
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(CASES))
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=110)


def main() -> None:
    """Measure, print the table and draw PLOT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=lambda text: [*map(int, text.split(","))], default=[10_000, 1_000_000])
    parser.add_argument("--engines", type=lambda text: text.split(","), default=[*ENGINES])
    parser.add_argument("--cases", type=lambda text: text.split(","), default=[*CASES])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=1_500, help="requests of one measurement")
    options = parser.parse_args()
    began, load = time.monotonic(), os.getloadavg()[0]
    measured = measure(options)
    print(f"\n{os.cpu_count()} cores (load {load:.1f} before), {options.rounds} rounds of {options.requests} requests,")
    print("one connection, durable. Median [smallest…largest]; CPU is that of store and database, for each request.\n")
    print(*table(measured, options.sizes), sep="\n")
    plot(measured, PLOT)
    print(f"\ndrawn in {PLOT}, after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
