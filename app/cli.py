"""The operator's commands: `flask --app wsgi presence …`."""

import csv
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup
from typing_extensions import override

from app.db.schema import SchemaCheck
from app.db.sweeping import make_sweeper
from app.domain.values import DASHED_GUID
from app.services.directory import Row
from app.services.presence import StoreUnavailable
from app.services.sweep import SweepService, Swept
from config import Settings, load

PATIENCE_SECONDS = 2.0
"""After which a command that is still at it says how far it is."""
UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}

commands = AppGroup("presence", help="Look after the presence store.")


def needs_the_store(command: Callable[..., None]) -> Callable[..., None]:
    """End a command with a line and status 1 when the database is not there or not migrated."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        if fault := SchemaCheck(current_app.extensions["engine"]).fault():
            raise click.ClickException(fault)
        try:
            command(*arguments, **options)
        except StoreUnavailable as error:
            raise click.ClickException(f"The presence store did not answer: {error.__cause__}") from error

    return run


class Guid(click.ParamType[str]):
    """A GUID, in any letter case."""

    name = "guid"

    @override
    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not DASHED_GUID.fullmatch(value):
            self.fail(f"{value!r} is no GUID such as 22553876-f5ab-4529-bffb-cfe50aa89f87", param, ctx)
        return value.lower()


class Length(click.ParamType[timedelta]):
    """A length of time: a number of days, hours, minutes or seconds."""

    name = "length"

    @override
    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        match = re.fullmatch(r"(\d{1,5})([dhms])", value, re.ASCII)
        if match is None:
            self.fail(f"{value!r} is no length of time such as 90d, 12h, 30m or 45s", param, ctx)
        return timedelta(**{UNITS[match[2]]: int(match[1])})


@commands.command("import-users")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--tenant", "tenant_id", type=Guid(), help="The users' tenant; not needed when AUTH_TENANTS is one.")
@click.option("--keep-going", is_flag=True, help="Import the good rows although there are bad ones.")
@needs_the_store
def import_users(file: str, tenant_id: str | None, *, keep_going: bool) -> None:
    """Write the users of FILE into the directory, in place of those that have their ids.

    FILE ("-": standard input) is CSV with a header, or JSON lines. A row has userPrincipalName, and may have id (else
    one is derived from the name) and displayName (else the name shows). Other columns are not read. Users whom FILE
    does not name stay.

    Bad rows are named on standard error, and stop the import before anything is written.

    Exit status: 0 when all rows are in the directory, 1 when a row was bad or the database did not answer, 2 when the
    command was not understood.
    """
    service = current_app.extensions["wiring"].directory
    tenant_id = tenant_id or _only_tenant()
    with shown("Reading rows") as show:
        users, faults = service.judge(tenant_id, counted(rows_of(file), show))
    for fault in faults:
        click.echo(f"{file}:{fault.line}: {fault.said}", err=True)
    if faults and not keep_going:
        raise click.ClickException(f"Nothing was imported: {_many(len(faults), 'bad row')}, {len(users)} good.")
    with shown("Importing users", len(users)) as show:
        for count in service.import_users(tenant_id, users):
            show(count)
    click.echo(f"Imported {_many(len(users), 'user')}.")
    if faults:
        raise click.ClickException(f"Left out {_many(len(faults), 'bad row')}.")


@commands.command()
@click.option("--keep-events", type=Length(), default="90d", show_default=True, help="Age at which an event goes.")
@click.option("--batch", type=click.IntRange(1, 10_000), default=500, show_default=True, help="Rows looked at at once.")
@needs_the_store
def sweep(keep_events: timedelta, batch: int) -> None:
    """Remove what has expired, and old events.

    Presence is right without it; it keeps the tables small. It can run at any time, from several places, and be
    stopped at any time. Each user's newest event stays, however old.

    Exit status: 0 when done, 1 when the database did not answer, 2 when the command was not understood.
    """
    service = SweepService(make_sweeper(current_app.extensions["engine"]), current_app.extensions["clock"])
    swept = Swept()
    with shown("Removing rows") as show:
        for swept in service.sweep(keep_events, batch):
            show(sum(swept))
    click.echo(
        f"Removed {_many(swept.sessions, 'expired session')}, {_many(swept.said, 'expired preference')} (messages and"
        f" locations included), {_many(swept.users, 'empty user')} and {_many(swept.events, 'old event')}."
    )


def rows_of(file: str) -> Iterator[Row]:
    """Return the rows of a list of users, with the numbers of the lines on which they end.

    Raises:
        ClickException: it is no list of users.
    """
    try:
        with click.open_file(file, encoding="utf-8-sig") as opened:
            lines = opened.readlines()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file} cannot be read as UTF-8: {error}") from None
    first = next((line for line in lines if line.strip()), "")
    return _json_rows(lines) if first.lstrip().startswith("{") else _csv_rows(lines, file)


def _json_rows(lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _json_row(number, line)


def _json_row(number: int, line: str) -> Row:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    return Row(number, record) if isinstance(record, dict) else Row(number, None, "must be a JSON object")


def _csv_rows(lines: list[str], name: str) -> Iterator[Row]:
    reader = csv.DictReader(lines, strict=True)
    try:
        header = reader.fieldnames or ()
        if "userPrincipalName" not in header:
            raise click.ClickException(f"{name} has no column userPrincipalName, only {', '.join(header) or 'none'}.")
        for record in reader:
            yield _csv_row(reader.line_num, record)
    except csv.Error as error:
        yield Row(min(reader.line_num + 1, len(lines)), None, f"is no CSV: {error}; nothing after it was read")


def _csv_row(number: int, record: Mapping[Any, Any]) -> Row:
    more = None in record
    return Row(number, None, "has more cells than the header has names") if more else Row(number, record)


def counted(rows: Iterable[Row], show: Callable[[int], None]) -> Iterator[Row]:
    """Return the same rows, and show how many there have been."""
    for number, row in enumerate(rows, 1):
        show(number)
        yield row


@contextmanager
def shown(label: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Lend a function that takes how many are done, and shows it on standard error once that is worth it.

    Who looks at a terminal gets a bar; a log gets a line now and then.
    """
    from rich.console import Console  # noqa: PLC0415  # gunicorn loads this module, too, and has no use for a bar
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(label, total=total)
    last = time.monotonic()

    def show(done: int) -> None:
        nonlocal last
        if bar.live.is_started:
            bar.update(task, completed=done)
        elif time.monotonic() - last >= PATIENCE_SECONDS:
            last = time.monotonic()
            if bar.console.is_terminal:
                bar.update(task, completed=done)
                bar.start()
            else:
                click.echo(f"{label}: {done:,}{'' if total is None else f' of {total:,}'}", err=True)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


def _only_tenant() -> str:
    tenants = load(Settings).auth_tenants
    if len(tenants) != 1:
        raise click.UsageError("Say whose users they are: --tenant, or AUTH_TENANTS with one tenant.")
    return tenants[0]


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
