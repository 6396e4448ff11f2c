"""Fills a migrated database with users: `make seed-users N=1000000`, or `python -m bench.seed 1000000`.

What it writes is what the service itself would have left: sessions that stay live for minutes to hours, what users
prefer and say, the history that led to all of it, and a directory entry for each user.
"""

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from sqlalchemy import bindparam, insert, select

from app.db.database import Database
from app.db.engine import make_engine
from app.db.models import Base
from app.db.schema import SchemaCheck
from app.db.statements import EVENT, RECORD
from app.domain.values import DASHED_GUID, PREFERABLE, SETTABLE, EventKind, Shown, WorkLocationType
from config import DatabaseSettings, SettingsError, load

TENANT = "8fe37d9e-6d4d-4a0c-b4e8-9fb5a6d7e2a1"
APPS = 20
BATCH_USERS = 5_000
TIMEOUT = timedelta(minutes=30)
"""Longest single statement; the last one looks through all tables."""
STRIDE = 0x9E3779B97F4A7C15F39CC0605CEDC835
"""2^128 over the golden ratio: its multiples lie far apart, so that neighbours in number are none on disk."""
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PLACES = [*WorkLocationType]
MESSAGES = ("In the lab until noon", "On the late shift", "Call the front desk", "Back on Monday")

TABLES = Base.metadata.tables
COLUMNS = {name: [*table.c] for name, table in TABLES.items()}
COLUMNS["presence_event"] = [EVENT[name] for name in RECORD]
Rows = dict[str, list[tuple[Any, ...]]]
"""What to insert into each table, in the order of COLUMNS."""
Said = tuple[Any, Any, Any]
"""One of the four parts of presence_user."""


def guid(number: int, salt: int = 0) -> str:
    """Return the id of a user, or with a salt of its own that of something else."""
    digits = f"{((number + 1) * STRIDE + salt) % (1 << 128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def app_id(number: int) -> str:
    """Return the id of one of APPS applications."""
    return guid(number % APPS, salt=1 << 124)


def shown_by(number: int, place: int = 0) -> Shown:
    """Return what a user's session shows: that of `app_id(number)`, which each user has, or the next in place."""
    return SETTABLE[(number // 5 + place) % len(SETTABLE)]


class Happened(NamedTuple):
    """What presence_event says of a change, but for whose it is."""

    at: datetime
    session_id: str
    kind: str
    availability: str | None = None
    activity: str | None = None
    expires_at: datetime | None = None


class Users:
    """Makes users up: the same ones for the same numbers, but for the moments, which count from now."""

    def __init__(self, tenants: Sequence[str], now: datetime, shortest: timedelta = 5 * MINUTE) -> None:
        """`shortest` is how long each session lasts at least; none lasts longer than 4 hours."""
        self._tenants = tenants
        self._now = now
        self._shortest = shortest
        self._chance = random.Random(1)  # noqa: S311  # the same users each time

    def rows(self, numbers: range) -> Rows:
        """Return the rows of some users: of sessions one, two and three in turn, so two on average."""
        rows: Rows = {name: [] for name in COLUMNS}
        for number in numbers:
            key = self._tenants[number % len(self._tenants)], guid(number)
            history = list(self._former(number))
            for place, app in enumerate(map(app_id, range(number, number + 1 + number % 3))):
                shown, set_at = shown_by(number, place), self._ago(15 * MINUTE)
                changed_at = set_at - 2 * HOUR * self._chance.random()
                expires_at = self._ahead(self._shortest, 4 * HOUR)
                rows["presence_session"].append((*key, app, *shown, changed_at, set_at, expires_at))
                history.append(Happened(changed_at, app, EventKind.SET, *shown, expires_at))
            said = self._said(number, history)
            if any(said):
                rows["presence_user"].append((*key, *said))
            name = f"user{number}@contoso.example"
            rows["directory_user"].append((*key, name, name, f"User {number}"))
            request_id = guid(number, salt=1 << 125)
            rows["presence_event"] += [(event.at, *key, *event[1:], request_id) for event in sorted(history)]
        return rows

    def _former(self, number: int) -> Iterator[Happened]:
        """Give the history of a session that was cleared, which every fourth user had."""
        if number % 4 == 0:
            began, app = self._ago(30 * DAY) - DAY, app_id(number)
            shown = (*self._chance.choice(SETTABLE), began + 4 * HOUR)
            yield Happened(began, app, EventKind.SET, *shown)
            yield Happened(began + HOUR, app, EventKind.CLEARED, *shown)

    def _said(self, number: int, history: list[Happened]) -> tuple[Any, ...]:
        """Return what presence_user says of a user, and add to the history how it came to."""
        preferred: Said = (None, None, None)
        message = manual = automatic = preferred
        app = app_id(number)
        if number % 5 == 0:
            preferred = (*self._chance.choice(PREFERABLE), self._ahead(HOUR, 7 * DAY))
            history.append(Happened(self._ago(DAY), app, EventKind.PREFERRED_SET, *preferred))
        if number % 7 == 0:
            message = (self._chance.choice(MESSAGES), self._ago(DAY), self._ahead(HOUR, DAY) if number % 2 else None)
            history.append(Happened(message[1], app, EventKind.MESSAGE_SET, expires_at=message[2]))
        if number % 6 == 0:
            manual = (self._chance.choice(PLACES), None, self._ahead(HOUR, DAY))
            history.append(Happened(self._ago(DAY), app, EventKind.LOCATION_SET, expires_at=manual[2]))
        if number % 9 == 0:
            automatic = (self._chance.choice(PLACES), f"building-{number % 50}", self._ahead(HOUR, DAY))
            history.append(Happened(self._ago(DAY), app, EventKind.LOCATION_SET, expires_at=automatic[2]))
        return (*preferred, *message, *manual, *automatic)

    def _ago(self, longest: timedelta) -> datetime:
        return self._now - longest * self._chance.random()

    def _ahead(self, shortest: timedelta, longest: timedelta) -> datetime:
        return self._now + shortest + (longest - shortest) * self._chance.random()


class Seeder(Database):
    """Writes rows by the thousand: COPY on PostgreSQL, executemany on SQLite."""

    def is_empty(self) -> bool:
        """Tell whether no table has a row."""
        return not any(self._run(self._prepared(select(table).limit(1)), {}) for table in TABLES.values())

    def write(self, rows: Rows) -> None:
        """Insert rows in one transaction."""
        with self._write() as cursor:
            for name, columns in COLUMNS.items():
                names = ", ".join(column.name for column in columns)
                if self._dialect.name == "postgresql":
                    with cursor.copy(f"COPY {name} ({names}) FROM STDIN".encode()) as copy:
                        for row in rows[name]:
                            copy.write_row(row)
                else:
                    new = {column.name: bindparam(column.name, type_=column.type) for column in columns}
                    put = self._prepared(insert(TABLES[name]).values(new))
                    cursor.executemany(put.sql, (put.values(dict(zip(new, row, strict=True))) for row in rows[name]))

    def finish(self) -> None:
        """Let the database count what it holds, which its plans depend on."""
        with self._cursor() as cursor:
            cursor.execute("VACUUM (ANALYZE)" if self._dialect.name == "postgresql" else "ANALYZE")


def seed(seeder: Seeder, users: Users, numbers: range) -> None:
    """Write all of these users, and show how far it is."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task("users", total=len(numbers))
        for first in range(numbers.start, numbers.stop, BATCH_USERS):
            batch = range(first, min(first + BATCH_USERS, numbers.stop))
            seeder.write(users.rows(batch))
            progress.advance(task, len(batch))
        progress.console.print("counting (ANALYZE)")
        seeder.finish()


def _guid(value: str) -> str:
    if not DASHED_GUID.fullmatch(value):
        raise argparse.ArgumentTypeError(f"{value!r:.60} is not a GUID")
    return value.lower()


def main() -> None:
    """Seed the database that DATABASE_URL names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("users", type=int, help="how many")
    parser.add_argument("--tenant", type=_guid, action="append", help=f"again for more; {TENANT} unless given")
    parser.add_argument("--first", type=int, help="number of the first user; unless given, the database must be empty")
    options = parser.parse_args()
    try:
        url = load(DatabaseSettings).database_url
    except SettingsError as error:
        sys.exit(f"seed: {error}")
    engine = make_engine(url, pool=1, timeout=TIMEOUT, sqlite_synchronous="NORMAL")
    try:
        if fault := SchemaCheck(engine).fault():
            sys.exit(f"seed: {fault}")
        seeder, first = Seeder(engine), options.first
        if first is None and not seeder.is_empty():
            sys.exit("seed: the database is not empty; --first NUMBER adds users from that number on")
        numbers = range(first or 0, (first or 0) + options.users)
        seed(seeder, Users(options.tenant or [TENANT], datetime.now(UTC)), numbers)
    finally:
        engine.dispose()


if __name__ == "__main__":
    main()
