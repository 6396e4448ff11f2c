"""The commands that carry presence from one database to another."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click
from flask import current_app

from app.cli.base import as_json, commands, json_line, many, needs_the_store, print_json, tenant_option
from app.cli.progress import counted, shown
from app.db.directory import DirectoryStore
from app.db.transfer import Reader, Writer
from app.services.transfer import Imported, NoExport, TransferService


@commands.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@tenant_option("Of this tenant only.")
@needs_the_store
def export_rows(file: str, tenant_id: str | None) -> None:
    """Write all presence into FILE, as JSON lines that `import` reads; left out: to standard output.

    Users, sessions, what users said, and the history, all as of one moment, while requests go on.

    Exit status: 0, 1 when FILE cannot be written or the database did not answer, 2 when the command was not
    understood. FILE appears when it is complete.
    """
    try:
        with (
            click.open_file(file, "w", encoding="utf-8", atomic=file != "-") as opened,
            shown("Exporting rows") as show,
        ):
            for line in counted(service().export(tenant_id), show):
                opened.write(f"{json_line(line)}\n")
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error}") from None


@commands.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@as_json
@needs_the_store
def import_rows(file: str, *, as_json: bool) -> None:
    """Write what `export` wrote into FILE ("-": standard input) into this store, be it empty or in use.

    Sessions and what users said stay where this store has heard of them since the export, and so does all that FILE
    does not name. To import the same again changes nothing, and completes an import that was interrupted.

    Exit status: 0, 1 when FILE is no export or the database did not answer, 2 when the command was not understood.
    """
    done = Imported(0, {})
    try:
        with click.open_file(file, encoding="utf-8") as opened, shown("Importing rows") as show:
            for done in service().import_rows(_objects(opened)):
                show(done.rows)
    except NoExport as error:
        raise click.ClickException(f"{file}: {error}. {many(done.rows, 'row')} before it had been read.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file} cannot be read as UTF-8: {error}") from None
    if as_json:
        print_json(done._asdict())
        return
    written = ", ".join(f"{count:,} into {table}" for table, count in done.written.items()) or "none"
    click.echo(f"Read {many(done.rows, 'row')}; written: {written}.")


def service() -> TransferService:
    """Return the service on the application's database."""
    engine = current_app.extensions["engine"]
    return TransferService(Reader(engine), Writer(engine), DirectoryStore(engine), current_app.extensions["clock"])


def _objects(lines: Iterable[str]) -> Iterator[Mapping[str, Any] | None]:
    for line in lines:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        yield said if isinstance(said, dict) else None
