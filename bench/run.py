"""Measures this service beside its floors, the bare framework and the database alone. `make bench` runs it.

Every round runs every case, and each case between its two floors, so that what else the machine does falls on all of
them. A figure is the median of the rounds, beside it the smallest and the largest; a ratio is taken within each round.
"""

import argparse
import http.client
import importlib.metadata
import itertools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import NamedTuple

import databases
from cryptography.hazmat.primitives.asymmetric import rsa
from databases import APPS, BASE, CASES, TENANT, Action, Database, Sample
from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]  # of requirements-bench.txt
from sqlalchemy import URL

from app.api.schemas import MOST_IDS
from app.emulator.keys import SigningKey
from app.emulator.tokens import app_only_claims, mint
from config import GRAPH_AUDIENCES, Settings, load

BENCH = Path(__file__).resolve().parent
RESULTS, PLOT = BENCH / "results.jsonl", BENCH / "results.png"
ENGINES, DURABILITIES = ("sqlite", "postgresql"), ("durable", "relaxed")
BARE, SERVICE, FLOOR = "bare route", "service", "database alone"
PATIENCE_SECONDS = 30
UNLESS_TOLD = {"PRESENCE_ENV": "production", "LOG_LEVEL": "WARNING", "RATE_LIMIT": "0"}
"""No hints, no limit, and no line for each request, unless the environment asks for it: the floors have none either."""


class Series(NamedTuple):
    """What is measured once a round; of the bare route, database and case are those that it is measured beside."""

    connections: int
    subject: str
    durability: str
    engine: str
    case: str


Measured = Mapping[Series, Sequence[Sample]]
"""A sample for each round."""


@dataclass(frozen=True)
class Server:
    """A gunicorn on 127.0.0.1, and those who may call it."""

    port: int
    pids: Sequence[int]
    """Processes whose CPU time, descendants included, counts: its own, and its database's."""
    tokens: Sequence[str]

    def load(self, case: str, seconds: int, connections: int) -> Sample:
        """Drive one case with wrk."""
        with TemporaryDirectory() as folder:
            plan = Path(folder, "plan.lua")
            plan.write_text(self._plan(case, seconds))
            before = databases.cpu_seconds(self.pids)
            done = subprocess.run(
                ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", f"{PATIENCE_SECONDS}",
                 "-s", BENCH / "load.lua", f"http://127.0.0.1:{self.port}", "--", plan],
                capture_output=True, text=True, check=True, timeout=seconds + 2 * PATIENCE_SECONDS,
            )  # fmt: skip
            time.sleep(databases.SETTLING_SECONDS)  # wrk leaves with a request under way on every connection
            cpu = databases.cpu_seconds(self.pids) - before
        said = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        found: dict[str, int] = json.loads(said[0].removeprefix("RESULT ")) if said else {}
        if not found.get("requests"):
            sys.exit(f"bench: the server on port {self.port} answered nothing: {done.stdout}{done.stderr}")
        requests = found["requests"]
        return Sample(
            per_second=requests / found["microseconds"] * 1e6,
            p50_ms=found["p50"] / 1000,
            p99_ms=found["p99"] / 1000,
            cpu_us=cpu / requests * 1e6,
            failed=(found["status"] + found["broken"]) / (requests + found["broken"]),
        )

    def _plan(self, case: str, seconds: int) -> str:
        """Return what load.lua is to send: a walk for each action, and its request for each application."""
        walks = {
            name: {
                "first": action.first,
                "users": action.count,
                "together": action.together,
                "passes": [
                    [self._request(action, shown._asdict(), app) for app in range(APPS)] for shown in action.passes
                ],
            }
            for name, action in databases.actions(case, seconds).items()
        }
        return "return " + _lua(
            {
                "base": BASE,
                "stride": databases.STRIDE,
                "between": f'","{databases.PREFIX}',
                "cycle": list(CASES[case]),
                "actions": walks,
            }
        )

    def _request(self, action: Action, shown: Mapping[str, str], app: int) -> list[str]:
        """Return the request before and after the numbers of its users."""
        head = f" HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.tokens[app]}\r\n"
        user = f"/v1.0/users/{databases.PREFIX}"
        if action.name == "read":
            return [f"GET {user}", f"/presence{head}\r\n"]
        head += "Content-Type: application/json\r\nContent-Length: "
        if action.name == "bulk read":
            ids = [databases.guid(n) for n in range(action.together)]
            body = json.dumps({"ids": ids}, separators=(",", ":"))
            before, after = body.split(",".join(f'"{one}"' for one in ids))
            head += f"{len(body)}\r\n\r\n{before}"
            return [f'POST /v1.0/communications/getPresencesByUserId{head}"{databases.PREFIX}', f'"{after}']
        verb = "clearPresence" if action.name == "clear" else "setPresence"
        about = {} if action.name == "clear" else {**shown, "expirationDuration": "PT4H"}
        body = json.dumps({"sessionId": databases.guid(app), **about})
        return [f"POST {user}", f"/presence/{verb}{head}{len(body)}\r\n\r\n{body}"]


def _lua(value: object) -> str:
    """Return a value as Lua writes it; of text, ASCII alone."""
    if isinstance(value, dict):
        return "{" + ",".join(f"[{_lua(name)}]={_lua(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ",".join(map(_lua, value)) + "}"
    return json.dumps(value)


@contextmanager
def gunicorn(application: Sequence[str], settings: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Run an application under gunicorn.conf.py and give its port and its process id."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "--log-level", "warning", *application],
        env={**UNLESS_TOLD, **os.environ, "HOST": "127.0.0.1", "PORT": str(port), **settings},
    )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"bench: gunicorn {application[-1]} does not answer on port {port}")
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(2 * PATIENCE_SECONDS)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        connection.getresponse()
    except OSError:
        return False
    finally:
        connection.close()
    return True


def start(
    stack: ExitStack, options: argparse.Namespace
) -> tuple[Server, Mapping[tuple[str, str], tuple[Server, Database]]]:
    """Start the bare route, and the service on each database, by durability and engine. The stack ends them."""
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
    key = SigningKey(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    (folder / "jwks.json").write_text(json.dumps(key.jwks()))
    audience, now, day = GRAPH_AUDIENCES[0], datetime.now(UTC), timedelta(days=1)
    callers = [
        app_only_claims(TENANT, databases.guid(app), audience, ["Presence.ReadWrite.All"], now, day)
        for app in range(APPS)
    ]
    tokens = [mint(claims, key) for claims in callers]
    (folder / "tokens").write_text("\n".join(tokens))
    settings = {
        "AUTH_TENANTS": TENANT,
        "AUTH_AUDIENCES": audience,
        "AUTH_JWKS_URI": str(folder / "jwks.json"),
        "BENCH_TOKENS": str(folder / "tokens"),
    }

    def serve(application: Sequence[str], extra: Mapping[str, str], database_pids: Sequence[int] = ()) -> Server:
        port, pid = stack.enter_context(gunicorn(application, {**settings, **extra}))
        return Server(port, (pid, *database_pids), tokens)

    bare = serve(["--pythonpath", str(BENCH), "bare:app"], {})
    postgres = stack.enter_context(databases.postgres_server()) if "postgresql" in options.engines else None
    servers = {}
    for durability, engine in itertools.product(options.durability, options.engines):
        durable = durability == "durable"
        database: Database
        if engine == "postgresql" and postgres:
            database = postgres(durability, durable)
        else:
            url = URL.create("sqlite+pysqlite", database=str(folder / f"{durability}.sqlite3"))
            database = databases.Sqlite(url, durable=durable)
        stack.callback(database.close)
        where = {
            "DATABASE_URL": database.url.render_as_string(hide_password=False),
            "SQLITE_SYNCHRONOUS": database.sqlite_synchronous,
        }
        servers[durability, engine] = serve(["wsgi:app"], where, database.pids), database
    return bare, servers


def measure(options: argparse.Namespace) -> Measured:
    """Run all rounds."""
    measured: dict[Series, list[Sample]] = defaultdict(list)
    settings = common_settings()

    def note(number: int, series: Series, sample: Sample) -> None:
        measured[series].append(sample)
        name = " ".join((series.durability, series.engine, series.case, series.subject))
        done = f"{sample.per_second:8,.0f}/s {sample.cpu_us:6,.0f} µs of CPU"
        say(f"round {number}/{options.rounds}, {series.connections} connections: {name:45} {done}")

    with ExitStack() as stack:
        say("starting the servers")
        bare, servers = start(stack, options)
        for server in (bare, *(server for server, _ in servers.values())):
            server.load("read", 1, max(options.connections))  # nobody is measured cold
        for number, connections in itertools.product(range(1, options.rounds + 1), options.connections):
            pooled = min(connections, settings.web_concurrency * settings.database_pool)  # what the service would use
            for ((durability, engine), (server, database)), case in itertools.product(servers.items(), options.cases):
                service = Series(connections, SERVICE, durability, engine, case)
                note(number, service._replace(subject=BARE), bare.load("read", options.seconds, connections))
                for subject, run, clients in ((SERVICE, server.load, connections), (FLOOR, database.floor, pooled)):
                    database.fill(case, options.seconds)
                    note(number, service._replace(subject=subject), run(case, options.seconds, clients))
    return measured


def common_settings() -> Settings:
    """Return the settings that every server here takes from the environment."""
    return load(Settings, presence_env="development")  # which asks for the fewest others


def circumstances(options: argparse.Namespace) -> dict[str, object]:
    """Return what has to be the same for two runs to be compared, and what tells how far they can be trusted."""
    settings = common_settings()
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "filesystem": _filesystem(Path(gettempdir()).resolve()),
        "mode": {**UNLESS_TOLD, **os.environ}["PRESENCE_ENV"],
        "workers": settings.web_concurrency,
        "threads": settings.web_threads,
        "pool": settings.database_pool,
        "seconds": options.seconds,
        "python": sys.version.split()[0],
        "versions": {name: importlib.metadata.version(name) for name in ("flask", "gunicorn", "sqlalchemy", "psycopg")},
    }


def _filesystem(path: Path) -> str:
    """Return the kind of file system that the databases stand on: on tmpfs nothing is durable."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [(len(point), kind) for point, kind in mounts if path.is_relative_to(point)]
    return max(holding)[1]


def table(measured: Measured) -> Iterator[str]:
    """Return the lines of the table: the medians of the rounds, and in brackets the smallest and the largest."""
    head = ("", "requests/s", "p50 ms", "p99 ms", "CPU µs", "p99÷p50", "req/s÷bare", "CPU÷floors", "failed")
    for connections, durability in _groups(measured):
        yield ""
        yield f"{connections} connections, {durability}"
        rows: list[Sequence[str]] = [head]
        for series, samples in measured.items():
            if series[:3] != (connections, SERVICE, durability):
                continue
            bare, floor = (measured[series._replace(subject=it)] for it in (BARE, FLOOR))
            speed = statistics.median(s.per_second / b.per_second for s, b in zip(samples, bare, strict=True))
            cost = statistics.median(
                s.cpu_us / (b.cpu_us + f.cpu_us) for s, b, f in zip(samples, bare, floor, strict=True)
            )
            name = f"{series.engine} {series.case}"
            rows.append((name, *_figures(samples), f"{speed:.2f}", f"{cost:.2f}", _percent(samples)))
            rows.append((f"    {BARE}", *_figures(bare), "", "", _percent(bare)))
            rows.append((f"    {FLOOR}", *_figures(floor), "", "", _percent(floor)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for name, *cells in rows:
            yield "  ".join([name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])])
        for series, samples in measured.items():
            single = measured.get(series._replace(case="read"))
            if series[:3] == (connections, SERVICE, durability) and series.case == "bulk read" and single:
                reads = statistics.median(s.cpu_us / r.cpu_us for s, r in zip(samples, single, strict=True))
                yield f"{series.engine}: a bulk read of {MOST_IDS} costs {reads:.1f} single ones"


def _groups(measured: Measured) -> Sequence[tuple[int, str]]:
    return sorted({(series.connections, series.durability) for series in measured})


def _figures(samples: Sequence[Sample]) -> tuple[str, ...]:
    return (
        _spread((sample.per_second for sample in samples), ",.0f"),
        f"{statistics.median(sample.p50_ms for sample in samples):.2f}",
        f"{statistics.median(sample.p99_ms for sample in samples):.2f}",
        _spread((sample.cpu_us for sample in samples), ",.0f"),
        f"{statistics.median(sample.p99_ms / sample.p50_ms for sample in samples):.1f}",
    )


def _spread(values: Iterable[float], form: str) -> str:
    ordered = sorted(values)
    return f"{statistics.median(ordered):{form}} [{ordered[0]:{form}}…{ordered[-1]:{form}}]"


def _percent(samples: Sequence[Sample]) -> str:
    return f"{max(sample.failed for sample in samples):.2%}"


def plot(measured: Measured, path: Path) -> None:
    """Draw requests/s and CPU for each request: a bar is the median, its whisker from the smallest to the largest."""
    figures: Sequence[tuple[str, Callable[[Sample], float]]] = (
        ("requests/s", lambda sample: sample.per_second),
        ("CPU µs for each request", lambda sample: sample.cpu_us),
    )
    groups = _groups(measured)
    drawn = Figure(figsize=(14, 4.5 * len(groups)), layout="constrained")
    grid = drawn.subplots(len(groups), len(figures), squeeze=False)
    for row, (connections, durability) in zip(grid, groups, strict=True):
        chosen = [series for series in measured if (series.connections, series.durability) == (connections, durability)]
        places = {place: number for number, place in enumerate(dict.fromkeys((s.engine, s.case) for s in chosen))}
        for axes, (title, figure) in zip(row, figures, strict=True):
            for subject, shift in ((SERVICE, -0.2), (FLOOR, 0.2)):
                values = {series: list(map(figure, measured[series])) for series in chosen if series.subject == subject}
                middles = [statistics.median(found) for found in values.values()]
                whiskers = [
                    [middle - min(found) for middle, found in zip(middles, values.values(), strict=True)],
                    [max(found) - middle for middle, found in zip(middles, values.values(), strict=True)],
                ]
                at = [places[series.engine, series.case] + shift for series in values]
                axes.bar(at, middles, 0.4, yerr=whiskers, capsize=3, label=subject)
            bare = statistics.median(figure(it) for s in chosen if s.subject == BARE for it in measured[s])
            axes.axhline(bare, color="black", linestyle="--", label=BARE)
            axes.set_xticks(range(len(places)), [" ".join(place) for place in places], rotation=35, ha="right")
            axes.set_yscale("log")
            axes.set_title(f"{title}: {connections} connections, {durability}")
    drawn.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    drawn.savefig(path, dpi=110)


def say(line: str) -> None:
    """Show how far the run is."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


def require_wrk() -> None:
    """Install wrk when root may, or name what is missing."""
    if shutil.which("wrk"):
        return
    install = ["apt-get", "install", "--yes", "--no-install-recommends", "wrk"]
    if os.geteuid() or not shutil.which("apt-get"):
        sys.exit(f"bench: wrk is missing: {' '.join(install)}")
    say("installing wrk, which is missing")
    subprocess.run(install, check=True, stdout=sys.stderr)


def _listed(*known: str) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        found = text.split(",")
        if unknown := sorted(set(found) - set(known)):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
        return found

    return parse


def main() -> None:
    """Measure, print the table, append to RESULTS and draw PLOT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=lambda text: [*map(int, text.split(","))], default=[16])
    parser.add_argument("--engines", type=_listed(*ENGINES), default=[*ENGINES])
    parser.add_argument("--cases", type=_listed(*CASES), default=[*CASES])
    parser.add_argument("--durability", type=_listed(*DURABILITIES), default=["durable"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="length of one measurement")
    options = parser.parse_args()
    require_wrk()
    about = circumstances(options)
    began = time.monotonic()
    measured = measure(options)
    print(f"\n{about['mode']}, {about['cores']} cores (load {about['load_before']} before), ", end="")
    print(f"{about['workers']} workers, ", end="")
    print(f"{about['filesystem']}, {options.rounds} rounds of {options.seconds} s at {about['commit']}. ", end="")
    print("Median [smallest…largest]; CPU is that of server and database, for each request;")
    print("the floors are the bare route and, for the same case, the database alone.")
    for line in table(measured):
        print(line)
    with RESULTS.open("a") as file:
        results = [
            {
                **series._asdict(),
                "rounds": [{name: round(value, 4) for name, value in s._asdict().items()} for s in samples],
            }
            for series, samples in measured.items()
        ]
        file.write(json.dumps({**about, "results": results}) + "\n")
    plot(measured, PLOT)
    print(f"\nappended to {RESULTS}, drawn in {PLOT}, after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
