"""Carrying presence from one database to another, as JSON."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from app.db.directory import DirectoryStore
from app.db.transfer import TABLES, Reader, Values, Writer, row_of
from app.domain.directory import User
from app.services.presence import Clock

FORMAT, VERSION = "graph-presence", 1
WRITTEN_AT_ONCE = 1_000


class NoExport(Exception):
    """What is to be imported is not what an export printed."""

    def __init__(self, line: int, said: str) -> None:
        """`line` is counted from 1."""
        super().__init__(f"line {line}: {said}")


class Imported(NamedTuple):
    """How far an import is."""

    rows: int
    """Read so far."""
    written: Mapping[str, int]
    """How many of them, by table, made a difference."""


class TransferService:
    """Exports all presence of a tenant or of all, and imports it, at any time and as often as one likes."""

    def __init__(self, reader: Reader, writer: Writer, directory: DirectoryStore, clock: Clock) -> None:
        self._reader = reader
        self._writer = writer
        self._directory = directory
        self._clock = clock

    def export(self, tenant_id: str | None) -> Iterator[dict[str, Any]]:
        """Yield what there is, as of one moment: a head, an object for each row, and at the end how many there were.

        Raises:
            StoreUnavailable: the database does not answer, or not in time.
        """
        yield {"format": FORMAT, "version": VERSION, "at": self._clock(), "tenant": tenant_id}
        count = 0
        for table, rows in self._reader.pages(tenant_id):
            for row in rows:
                yield {table: row}
            count += len(rows)
        yield {"rows": count}

    def import_rows(self, lines: Iterable[Mapping[str, Any] | None]) -> Iterator[Imported]:
        """Write what `export` yielded; yield how far it is after each batch, which is one transaction.

        What the store has learned since the export stays, and so does what the export does not name. An import that
        was interrupted is completed by another one, and one more changes nothing. None is a line that is no object.

        Raises:
            NoExport: a line is not what it should be, or the end is missing. What came before is written.
            StoreUnavailable: the database does not answer, or not in time.
        """
        numbered = enumerate(lines, 1)
        at = _snapshot_at(next(numbered, (1, None)))
        rows, written, ended = 0, Counter[str](), False
        batch: list[tuple[str, Values]] = []
        for number, line in numbered:
            if ended:
                raise NoExport(number, "nothing should follow the number of rows")
            if line is not None and line.keys() == {"rows"}:
                if line["rows"] != rows + len(batch):
                    raise NoExport(number, f"{rows + len(batch)} rows came before it, not {line['rows']!r:.20}")
                ended = True
                continue
            batch.append(_row(number, line))
            if len(batch) == WRITTEN_AT_ONCE:
                written.update(self._write(batch, at))
                rows += len(batch)
                batch.clear()
                yield Imported(rows, written)
        if not ended:
            raise NoExport(rows + len(batch) + 2, "the file ends too early: the number of rows should follow")
        written.update(self._write(batch, at))
        yield Imported(rows + len(batch), written)

    def _write(self, batch: Iterable[tuple[str, Values]], at: datetime) -> dict[str, int]:
        return {
            table: self._write_table(table, [row for _, row in rows], at)
            for table, rows in groupby(batch, itemgetter(0))
        }

    def _write_table(self, table: str, rows: list[Values], at: datetime) -> int:
        if table != "directory_user":
            return self._writer.write(table, rows, at)
        for tenant_id, of_tenant in groupby(rows, itemgetter("tenant_id")):
            self._directory.put(tenant_id, [User(*(row[name] for name in User._fields)) for row in of_tenant])
        return len(rows)


def _snapshot_at(first: tuple[int, Mapping[str, Any] | None]) -> datetime:
    _, head = first
    if head is None or (head.get("format"), head.get("version")) != (FORMAT, VERSION):
        raise NoExport(1, f'should begin with {{"format": "{FORMAT}", "version": {VERSION}, ...}}')
    try:
        at = datetime.fromisoformat(head["at"])
    except (KeyError, TypeError, ValueError):
        at = None
    if at is None or at.tzinfo is None:
        raise NoExport(1, f'"at" should be a moment, not {head.get("at")!r:.60}')
    return at


def _row(number: int, line: Mapping[str, Any] | None) -> tuple[str, Values]:
    if line is None or len(line) != 1:
        raise NoExport(number, "should be an object with the name of one table")
    ((table, said),) = line.items()
    if table not in TABLES or not isinstance(said, dict):
        raise NoExport(number, f"{table!r:.60} is no table with a row")
    try:
        return table, row_of(TABLES[table], said)
    except ValueError as error:
        raise NoExport(number, str(error)) from None
