"""The command that fills the directory."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click
from flask import current_app

from app.cli.base import as_json, commands, many, needs_the_store, only_tenant, print_json, tenant_option
from app.cli.progress import counted, shown
from app.services.directory import Row


@commands.command("import-users")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@tenant_option("The users' tenant; not needed when AUTH_TENANTS is one.")
@click.option("--keep-going", is_flag=True, help="Import the good rows although there are bad ones.")
@as_json
@needs_the_store
def import_users(file: str, tenant_id: str | None, *, keep_going: bool, as_json: bool) -> None:
    """Write the users of FILE into the directory, in place of those that have their ids.

    FILE ("-": standard input) is CSV with a header, or JSON lines. A row has userPrincipalName, and may have id (else
    one is derived from the name) and displayName (else the name shows). Other columns are not read. Users whom FILE
    does not name stay.

    Bad rows are named on standard error, and stop the import before anything is written.

    Exit status: 0 when all rows are in the directory, 1 when a row was bad or the database did not answer, 2 when the
    command was not understood.
    """
    service = current_app.extensions["wiring"].directory
    tenant_id = tenant_id or only_tenant()
    with shown("Reading rows") as show:
        users, faults = service.judge(tenant_id, counted(rows_of(file), show))
    for fault in faults:
        click.echo(f"{file}:{fault.line}: {fault.said}", err=True)
    if faults and not keep_going:
        raise click.ClickException(f"Nothing was imported: {many(len(faults), 'bad row')}, {len(users)} good.")
    with shown("Importing users", len(users)) as show:
        for count in service.import_users(tenant_id, users):
            show(count)
    if as_json:
        print_json({"imported": len(users), "leftOut": len(faults)})
    else:
        click.echo(f"Imported {many(len(users), 'user')}.")
    if faults:
        raise click.ClickException(f"Left out {many(len(faults), 'bad row')}.")


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
