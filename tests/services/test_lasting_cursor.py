"""The cursor that keeps what it has prepared: the same rows as psycopg's own, the same errors, and no end of names."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import URL

from app.db.engine import LastingCursor, make_engine

MOMENT = datetime(2026, 11, 25, 8, 30, tzinfo=UTC)
TYPED = "SELECT $1::timestamptz, $2::int8, $3::uuid"
GUID = "22553876-f5ab-4529-bffb-cfe50aa89f87"


@contextmanager
def lent(url: URL, timeout: timedelta = timedelta(seconds=5), *, prepare: bool = True) -> Iterator[LastingCursor]:
    engine = make_engine(url, pool=1, timeout=timeout, prepare=prepare)
    connection = engine.raw_connection()
    cursor = connection.driver_connection.lasting_cursor  # type: ignore[union-attr]
    yield cursor
    connection.close()
    engine.dispose()


def prepared(cursor: LastingCursor) -> int:
    ((count,),) = cursor.connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchall()
    return int(count)


def test_a_statement_is_prepared_once_for_the_types_of_its_values(postgres: URL) -> None:
    with lent(postgres) as cursor:
        for number in (1, 2, 3):
            assert cursor.rows(TYPED, [MOMENT, number, GUID]) == [(MOMENT, number, GUID)]
        assert prepared(cursor) == 1
        assert cursor.rows(TYPED, [None, 2**40, None]) == [(None, 2**40, None)]
        assert cursor.rows(TYPED, [MOMENT, 2**40, None]) == [(MOMENT, 2**40, None)]
        assert cursor.rows(TYPED, [MOMENT, 4, GUID]) == [(MOMENT, 4, GUID)]
        assert prepared(cursor) == 3


def test_what_returns_no_rows_gives_none(postgres: URL) -> None:
    with lent(postgres) as cursor:
        assert cursor.rows("SET search_path = public", []) == []
        assert cursor.rows("SELECT 1 WHERE false", []) == []


def test_an_error_is_psycopgs_and_leaves_the_statement_as_it_was(postgres: URL) -> None:
    with lent(postgres) as cursor:
        for _ in range(2):
            with pytest.raises(psycopg.errors.DivisionByZero):
                cursor.rows("SELECT 1 / $1::int8", [0])
            assert cursor.rows("SELECT 1 / $1::int8", [1]) == [(1,)]
        with pytest.raises(psycopg.errors.SyntaxError):
            cursor.rows("SELECTED", [])


def test_a_rollback_forgets_nothing(postgres: URL) -> None:
    with lent(postgres) as cursor:
        for _ in range(2):
            cursor.execute("BEGIN")
            assert cursor.rows("SELECT 1", []) == [(1,)]
            cursor.connection.rollback()
        assert prepared(cursor) == 1


def test_no_more_is_prepared_than_agreed(postgres: URL) -> None:
    with lent(postgres) as cursor:
        for number in range(LastingCursor.MOST_PREPARED + 3):
            assert cursor.rows(f"SELECT {number}", []) == [(number,)]
        assert prepared(cursor) == LastingCursor.MOST_PREPARED


def test_nothing_is_prepared_behind_a_pooler_that_mixes_sessions(postgres: URL) -> None:
    with lent(postgres, prepare=False) as cursor:
        assert cursor.rows(TYPED, [MOMENT, 1, GUID]) == [(MOMENT, 1, GUID)]
        assert cursor.rows("SET search_path = public", []) == []
        assert prepared(cursor) == 0


def test_a_wait_has_an_end(postgres: URL) -> None:
    with lent(postgres, timedelta(milliseconds=100)) as cursor:
        cursor.execute("SET statement_timeout = 0")
        with pytest.raises(psycopg.OperationalError):
            cursor.rows("SELECT pg_sleep(60)", [])
        assert cursor.connection.closed
