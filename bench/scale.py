"""Measures what a request costs with few users and with many: `make bench-scale`.

The service as gunicorn calls it, in this process, on databases that bench/seed.py filled: one connection, users all
over the tables. Each round runs every case at every size, so that what else the machine does falls on all of them; each
case has users of its own, so that none finds its rows in a cache where another case has just put them. A ratio is taken
within a round; a figure is the median of the rounds.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import databases
import seed
from cryptography.hazmat.primitives.asymmetric import rsa
from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]  # of requirements-bench.txt
from sqlalchemy import URL

from app.api.schemas import MOST_IDS
from app.db.engine import make_engine
from app.domain.values import AVAILABLE
from app.emulator.keys import SigningKey
from app.emulator.tokens import app_only_claims, mint
from app.factory import create_app
from config import GRAPH_AUDIENCES, Rate, Settings

PLOT = Path("docs/img/scale.png")
ENGINES = ("sqlite", "postgresql")
CASES = ("read", "set", "keep-alive", "clear", "bulk read")
"""Users go by number: every fifth is read, the next one set, and so on."""
BULK_READS = 20
STRIDE = 7919
"""A prime: a walk in steps of it visits all users of a class, and neighbours in time are none in number."""


class Sample(NamedTuple):
    """One case at one size, once."""

    cpu_us: float
    """CPU time of service and database, for each request."""
    p50_ms: float
    p99_ms: float


class Service:
    """The application on a database, and applications that may call it."""

    def __init__(self, url: URL, key: SigningKey, jwks_file: Path) -> None:
        audience, now, day = GRAPH_AUDIENCES[0], datetime.now(UTC), timedelta(days=1)
        self._app = create_app(
            Settings(
                database_url=url,
                database_pool=1,
                rate_limit=Rate(0, 1),
                auth_tenants=(seed.TENANT,),
                auth_audiences=(audience,),
                auth_jwks_uri=str(jwks_file),
            )
        )
        self.close = self._app.extensions["engine"].dispose
        callers = (
            app_only_claims(seed.TENANT, seed.app_id(app), audience, ["Presence.ReadWrite.All"], now, day)
            for app in range(seed.APPS)
        )
        self._tokens = [mint(claims, key) for claims in callers]

    def call(self, app: int, path: str, body: object = None) -> Callable[[], None]:
        """Return what makes one request of an application; ready, so that only the answer is measured."""
        data = b"" if body is None else json.dumps(body).encode()
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET" if body is None else "POST",
            "PATH_INFO": f"/v1.0{path}",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "127.0.0.1:8000",
            "HTTP_AUTHORIZATION": f"Bearer {self._tokens[app % seed.APPS]}",
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(data),
            "wsgi.errors": sys.stderr,
        }
        if data:
            environ |= {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(data))}

        def answered(status: str, _headers: object, _error: object = None) -> Callable[[bytes], object]:
            if not status.startswith("200 "):
                sys.exit(f"bench-scale: {environ['PATH_INFO']} is answered {status}")
            return lambda _data: None

        def make() -> None:
            for _part in self._app(environ, answered):
                pass

        return make


@dataclass
class Subject:
    """A seeded database, and how far the walk of each class of users has come."""

    engine: str
    size: int
    database: databases.Database
    service: Service
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

    def _calls(self, case: str, users: Sequence[tuple[int, int]]) -> list[Callable[[], None]]:
        if case == "bulk read":
            ids = [seed.guid(user) for user, _ in users]
            starts = range(0, len(ids) - MOST_IDS + 1, MOST_IDS)
            path = "/communications/getPresencesByUserId"
            return [self.service.call(0, path, {"ids": ids[start : start + MOST_IDS]}) for start in starts]
        calls = []
        for user, times in users:
            path, about = f"/users/{seed.guid(user)}/presence", {"sessionId": seed.app_id(user)}
            if case == "read":
                calls.append(self.service.call(user, path))
            elif case == "clear":
                calls.append(self.service.call(user, f"{path}/clearPresence", about))
            else:  # a set to another state than the last time, or to the same
                shown = seed.shown_by(user, 1 + times if case == "set" else 0)._asdict()
                body = {**about, **shown, "expirationDuration": "PT4H"}
                calls.append(self.service.call(user, f"{path}/setPresence", body))
        return calls


Measured = dict[tuple[str, str, int], list[Sample]]
"""By engine, case and size: a sample for each round."""


def measure(options: argparse.Namespace) -> Measured:
    """Seed a database for each engine and size, and run all rounds."""
    measured: Measured = defaultdict(list)
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="presence-scale-"))
        key = SigningKey(rsa.generate_private_key(public_exponent=65537, key_size=2048))
        (jwks_file := Path(folder, "jwks.json")).write_text(json.dumps(key.jwks()))
        postgres = None
        if "postgresql" in options.engines:
            postgres = stack.enter_context(databases.postgres_server(options.shared_buffers))
        subjects = []
        for engine, size in itertools.product(options.engines, options.sizes):
            print(f"{engine}: {size:,} users", flush=True)
            if engine == "postgresql" and postgres:
                database: databases.Database = postgres(f"scale_{size}", True)
            else:
                url = URL.create("sqlite+pysqlite", database=str(Path(folder, f"{size}.sqlite3")))
                database = databases.Sqlite(url, durable=True)
            stack.callback(database.close)
            subjects.append(Subject(engine, size, database, Service(database.url, key, jwks_file)))
            stack.callback(subjects[-1].service.close)
            pool = make_engine(database.url, pool=1, timeout=seed.TIMEOUT, sqlite_synchronous="NORMAL")
            stack.callback(pool.dispose)
            users = seed.Users([seed.TENANT], datetime.now(UTC), shortest=3 * seed.HOUR)
            seed.seed(seed.Seeder(pool), users, range(size))
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
    parser.add_argument("--shared-buffers", default="1GB", help="PostgreSQL's; its own default is 128MB")
    options = parser.parse_args()
    began, load = time.monotonic(), os.getloadavg()[0]
    measured = measure(options)
    print(f"\n{os.cpu_count()} cores (load {load:.1f} before), {options.rounds} rounds of {options.requests} requests,")
    print(f"one connection, durable, shared_buffers {options.shared_buffers}. Median [smallest…largest];")
    print("CPU is that of service and database, for each request.\n")
    print(*table(measured, options.sizes), sep="\n")
    plot(measured, PLOT)
    print(f"\ndrawn in {PLOT}, after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
