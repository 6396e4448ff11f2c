"""What a mutation leaves in the tables, and what becomes of it when the database cannot be had."""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import psycopg
import pytest
from sqlalchemy import URL, ColumnElement, Engine, delete, select, text

from app.api.presence import sequence_number
from app.db.engine import LastingCursor, make_engine
from app.db.models import PresenceEvent, PresenceSession
from app.db.store import PostgresStore, Store, StoreUnavailable, make_store
from app.db.turns import Line, Place, Turns
from app.domain.aggregate import IMMINENT, UserState, presence_of
from app.domain.values import (
    AVAILABLE,
    AWAY,
    IN_A_CALL,
    PRESENTING,
    SETTABLE,
    EventKind,
    Session,
    SessionKey,
    Shown,
)
from app.factory import create_app
from config import Settings
from tests.builders import START, new_id, on_postgresql, on_sqlite

TICK = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
SOON = timedelta(milliseconds=200)
"""The longest wait of a store that is to give up."""


class Event(NamedTuple):
    """What the history says of one event about one user."""

    kind: EventKind
    shown: Shown
    at: datetime
    session_id: str
    expires_at: datetime
    request_id: str | None


class Desk:
    """One user, whom applications show and clear in a store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.store: Store = make_store(engine)
        self.tenant_id, self.user_id = new_id(), new_id()
        self.bot, self.phone = self.key(), self.key()

    def key(self) -> SessionKey:
        return SessionKey(self.tenant_id, self.user_id, new_id())

    def sets(
        self,
        key: SessionKey,
        shown: Shown,
        now: datetime = START,
        lifetime: timedelta = HOUR,
        request_id: str | None = None,
    ) -> Sequence[Session]:
        return self.store.set_session(key, shown, lifetime, now, request_id or new_id())

    def ends(self, key: SessionKey, now: datetime = START, request_id: str | None = None) -> Sequence[Session] | None:
        return self.store.end_session(key, now, request_id or new_id())

    def state(self) -> UserState:
        return self.store.read_user(self.tenant_id, self.user_id)

    def sessions(self) -> list[Session]:
        return sorted(self.state().sessions)

    def session(self, key: SessionKey) -> Session:
        (found,) = (session for session in self.sessions() if session.session_id == key.session_id)
        return found

    def events(self) -> list[Event]:
        mine = (PresenceEvent.tenant_id == self.tenant_id, PresenceEvent.user_id == self.user_id)
        columns = (
            PresenceEvent.kind,
            PresenceEvent.availability,
            PresenceEvent.activity,
            PresenceEvent.at,
            PresenceEvent.session_id,
            PresenceEvent.expires_at,
            PresenceEvent.request_id,
        )
        with self.engine.connect() as connection:
            rows: Iterable[Any] = connection.execute(select(*columns).where(*mine).order_by(PresenceEvent.id))
            return [Event(row[0], Shown(*row[1:3]), *row[3:]) for row in rows]

    def told(self) -> list[tuple[EventKind, Shown]]:
        return [(event.kind, event.shown) for event in self.events()]


@pytest.fixture
def desk(engine: Engine) -> Desk:
    return Desk(engine)


@contextmanager
def statements_of(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """All that goes to the database meanwhile, on an engine of one connection."""
    sent: list[str] = []
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
        driver.set_trace_callback(sent.append)
        yield sent
        driver.set_trace_callback(None)
    else:

        def noting(run: Callable[..., Any]) -> Callable[..., Any]:
            def note(cursor: Any, statement: Any, *rest: Any, **options: Any) -> Any:
                sent.append(statement)
                return run(cursor, statement, *rest, **options)

            return note

        with monkeypatch.context() as patch:
            patch.setattr(psycopg.Cursor, "execute", noting(psycopg.Cursor.execute))
            patch.setattr(LastingCursor, "rows", noting(LastingCursor.rows))
            yield sent


@contextmanager
def impatient_engine(url: URL, pool: int = 1) -> Iterator[Engine]:
    engine = make_engine(url, pool=pool, timeout=SOON)
    try:
        yield engine
    finally:
        engine.dispose()


# --- The history


def test_a_set_appends_what_was_set_until_when_and_in_which_request(desk: Desk) -> None:
    request_id = new_id()
    desk.sets(desk.bot, IN_A_CALL, START, HOUR, request_id)
    assert desk.events() == [Event(EventKind.SET, IN_A_CALL, START, desk.bot.session_id, START + HOUR, request_id)]
    assert desk.sessions() == [Session(desk.bot.session_id, IN_A_CALL, START, START, START + HOUR)]


def test_a_clear_appends_what_was_shown_until_then(desk: Desk) -> None:
    desk.sets(desk.bot, IN_A_CALL)
    request_id = new_id()
    assert desk.ends(desk.bot, START + MINUTE, request_id) == []
    cleared = Event(EventKind.CLEARED, IN_A_CALL, START + MINUTE, desk.bot.session_id, START + HOUR, request_id)
    assert desk.events()[1:] == [cleared]
    assert desk.sessions() == []


@pytest.mark.parametrize("shown", SETTABLE)
def test_a_keep_alive_moves_the_expiry_and_appends_nothing(desk: Desk, shown: Shown) -> None:
    desk.sets(desk.bot, shown)
    later = START + 5 * MINUTE - IMMINENT - TICK
    desk.sets(desk.bot, shown, later, 2 * HOUR)
    assert desk.told() == [(EventKind.SET, shown)]
    assert desk.sessions() == [Session(desk.bot.session_id, shown, START, later, later + 2 * HOUR)]


@pytest.mark.parametrize(("shown", "lifetime"), [(AVAILABLE, HOUR), (AVAILABLE, 5 * MINUTE), (IN_A_CALL, 5 * MINUTE)])
@pytest.mark.parametrize("early", [IMMINENT, TICK])
def test_a_keep_alive_that_comes_late_is_told_as_somebody_may_have_seen_the_session_turn(
    desk: Desk, shown: Shown, lifetime: timedelta, early: timedelta
) -> None:
    desk.sets(desk.bot, shown, START, lifetime)
    set_at = START + 5 * MINUTE - early
    numbers = [sequence_number(presence_of(desk.state(), set_at + after)) for after in (-TICK, 2 * early)]
    desk.sets(desk.bot, shown, set_at, HOUR)  # it took until then
    numbers += [sequence_number(presence_of(desk.state(), set_at + 2 * early + TICK))]
    assert numbers == sorted(set(numbers))
    assert desk.told() == [(EventKind.SET, shown)] * 2
    assert desk.session(desk.bot).changed_at == START


def test_each_keep_alive_puts_off_the_fade(desk: Desk) -> None:
    for minutes in (0, 4, 8, 12):
        desk.sets(desk.bot, AVAILABLE, START + minutes * MINUTE)
    assert desk.told() == [(EventKind.SET, AVAILABLE)]
    assert desk.session(desk.bot).changed_at == START


@pytest.mark.parametrize("idle", [5 * MINUTE, 10 * MINUTE, HOUR - TICK])
def test_setting_a_faded_session_to_available_again_is_a_change(desk: Desk, idle: timedelta) -> None:
    desk.sets(desk.bot, AVAILABLE)
    desk.sets(desk.bot, AVAILABLE, START + idle)
    assert desk.told() == [(EventKind.SET, AVAILABLE)] * 2
    assert desk.session(desk.bot).changed_at == START + idle


def test_setting_a_session_that_faded_to_away_to_away_is_a_change(desk: Desk) -> None:
    desk.sets(desk.bot, AVAILABLE)
    desk.sets(desk.bot, AWAY, START + 10 * MINUTE)
    assert desk.told() == [(EventKind.SET, AVAILABLE), (EventKind.SET, AWAY)]
    assert desk.session(desk.bot).changed_at == START + 10 * MINUTE


@pytest.mark.parametrize("before", SETTABLE)
@pytest.mark.parametrize("after", SETTABLE)
def test_setting_another_state_is_a_change(desk: Desk, before: Shown, after: Shown) -> None:
    desk.sets(desk.bot, before)
    desk.sets(desk.bot, after, START + MINUTE)
    changed = before != after
    assert desk.told() == [(EventKind.SET, before), (EventKind.SET, after)][: 1 + changed]
    assert desk.session(desk.bot).changed_at == (START + MINUTE if changed else START)


@pytest.mark.parametrize("late", [timedelta(0), TICK, HOUR])
@pytest.mark.parametrize("after", [IN_A_CALL, AWAY])
def test_a_set_over_an_expired_session_tells_its_end_first(desk: Desk, late: timedelta, after: Shown) -> None:
    desk.sets(desk.bot, IN_A_CALL, START, MINUTE)
    now, request_id = START + MINUTE + late, new_id()
    desk.sets(desk.bot, after, now, HOUR, request_id)
    _, expired, set_again = desk.events()
    app_id = desk.bot.session_id
    assert expired == Event(EventKind.EXPIRED, IN_A_CALL, START + MINUTE, app_id, START + MINUTE, request_id)
    assert set_again._replace(at=now) == Event(EventKind.SET, after, now, app_id, now + HOUR, request_id)
    assert max(now, expired.at + TICK) == set_again.at
    assert desk.sessions() == [Session(app_id, after, now, now, now + HOUR)]


def test_an_expiry_is_told_after_what_another_application_did_since(desk: Desk) -> None:
    desk.sets(desk.bot, IN_A_CALL, START, MINUTE)
    desk.sets(desk.phone, AWAY, START + 2 * MINUTE)
    desk.sets(desk.bot, PRESENTING, START + 3 * MINUTE)
    told = [(event.kind, event.at - START) for event in desk.events()]
    assert told[2:] == [(EventKind.EXPIRED, 2 * MINUTE + TICK), (EventKind.SET, 3 * MINUTE)]


def test_events_move_on_although_the_clock_stands_still(desk: Desk) -> None:
    for shown in SETTABLE:
        desk.sets(desk.bot, shown)
        desk.sets(desk.phone, shown)
    desk.ends(desk.bot)
    assert [event.at for event in desk.events()] == [START + n * TICK for n in range(11)]


def test_events_move_on_although_the_clock_runs_behind(desk: Desk) -> None:
    desk.sets(desk.bot, IN_A_CALL)
    behind = START - HOUR
    desk.sets(desk.phone, AWAY, behind)
    desk.ends(desk.phone, behind)
    desk.sets(desk.bot, PRESENTING, behind)
    assert [event.at for event in desk.events()] == [START + n * TICK for n in range(4)]


def test_the_end_and_the_set_of_one_request_have_moments_of_their_own_behind_a_clock_ahead(desk: Desk) -> None:
    desk.sets(desk.bot, IN_A_CALL, START, MINUTE)
    desk.sets(desk.phone, AWAY, START + HOUR)
    desk.sets(desk.bot, PRESENTING, START + 2 * MINUTE)
    assert [event.at for event in desk.events()][1:] == [START + HOUR + n * TICK for n in range(3)]


def test_a_user_is_recorded_at_the_newest_event(desk: Desk) -> None:
    assert desk.state().recorded_at is None
    desk.sets(desk.bot, IN_A_CALL)
    assert desk.state().recorded_at == START
    desk.ends(desk.bot, START + MINUTE)
    assert desk.state().recorded_at == START + MINUTE


def test_clearing_what_is_not_there_changes_no_row(desk: Desk) -> None:
    desk.sets(desk.bot, IN_A_CALL, START, MINUTE)
    before = desk.sessions(), desk.events()
    assert desk.ends(desk.phone) is None
    assert desk.ends(desk.bot, START + MINUTE) is None
    assert (desk.sessions(), desk.events()) == before


def test_a_mutation_returns_what_stands_after_it(desk: Desk) -> None:
    bot, phone, third = sorted(desk.key() for _ in range(3))
    assert desk.sets(bot, IN_A_CALL) == desk.sessions()
    assert sorted(desk.sets(phone, AWAY)) == desk.sessions()
    assert sorted(desk.sets(third, AVAILABLE)) == desk.sessions()
    assert sorted(desk.sets(phone, PRESENTING, START + MINUTE)) == desk.sessions()
    assert sorted(desk.ends(bot) or []) == desk.sessions()
    assert [session.session_id for session in desk.sessions()] == [phone.session_id, third.session_id]


def test_other_users_and_tenants_are_left_alone(desk: Desk) -> None:
    others = [desk.bot._replace(user_id=new_id()), desk.bot._replace(tenant_id=new_id())]
    for key in others:
        desk.sets(key, AWAY)
    before = [desk.store.read_user(key.tenant_id, key.user_id) for key in others]
    assert desk.sets(desk.bot, IN_A_CALL, START + MINUTE) == [desk.session(desk.bot)]
    assert desk.ends(desk.bot, START + 2 * MINUTE) == []
    assert [desk.store.read_user(key.tenant_id, key.user_id) for key in others] == before


# --- The cost


@pytest.fixture
def lone_desk(database: URL) -> Iterator[Desk]:
    """A desk with one connection."""
    engine = make_engine(database, pool=1, timeout=timedelta(seconds=10))
    desk = Desk(engine)
    desk.state()  # what the first connection asks of its server is not counted
    yield desk
    engine.dispose()


def test_a_read_is_one_statement(lone_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    lone_desk.sets(lone_desk.bot, IN_A_CALL)
    with statements_of(lone_desk.engine, monkeypatch) as sent:
        assert len(lone_desk.state().sessions) == 1
    assert len(sent) == 1, sent


@on_postgresql
def test_a_mutation_is_one_statement(lone_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    bot, late = lone_desk.bot, START + 2 * HOUR
    mutations: list[Callable[[], object]] = [
        lambda: lone_desk.sets(bot, AVAILABLE),
        lambda: lone_desk.sets(bot, AVAILABLE),
        lambda: lone_desk.sets(bot, AWAY),
        lambda: lone_desk.sets(bot, AWAY, late),
        lambda: lone_desk.ends(bot, late),
        lambda: lone_desk.ends(bot, late),
    ]
    for mutate in mutations:
        with statements_of(lone_desk.engine, monkeypatch) as sent:
            mutate()
        assert len(sent) == 1, sent
    assert len(lone_desk.events()) == 5


# --- A database that cannot be had


def row_of(key: SessionKey) -> list[ColumnElement[bool]]:
    return [getattr(PresenceSession, name) == value for name, value in key._asdict().items()]


@contextmanager
def locked(engine: Engine, key: SessionKey) -> Iterator[None]:
    """Hold what a mutation of this session must wait for: SQLite's write lock, PostgreSQL's row."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql(
                "SET LOCAL idle_in_transaction_session_timeout = '20s'"
            )  # a wait without end: red
            connection.execute(select(PresenceSession).where(*row_of(key)).with_for_update())
        try:
            yield
        finally:
            connection.exec_driver_sql("ROLLBACK")


def test_a_mutation_gives_up_on_a_lock_and_changes_nothing(desk: Desk, database: URL) -> None:
    desk.sets(desk.bot, IN_A_CALL)
    before = desk.sessions(), desk.events()
    with impatient_engine(database) as engine:
        store = make_store(engine)
        with locked(desk.engine, desk.bot):
            with pytest.raises(StoreUnavailable):
                store.end_session(desk.bot, START, new_id())
            with pytest.raises(StoreUnavailable):
                store.set_session(desk.bot, PRESENTING, HOUR, START, new_id())
            assert store.read_user(desk.tenant_id, desk.user_id).sessions == before[0]
        assert (desk.sessions(), desk.events()) == before
        assert store.end_session(desk.bot, START, new_id()) == []


@on_sqlite
def test_a_writer_whose_turn_does_not_come_gives_up_and_holds_up_no_reader(desk: Desk, database: URL) -> None:
    desk.sets(desk.bot, IN_A_CALL)
    other = Turns(Path(f"{database.database}-turn"), timeout=60)
    with impatient_engine(database) as engine:
        store = make_store(engine)
        other.begin()
        try:
            with pytest.raises(StoreUnavailable):
                store.end_session(desk.bot, START, new_id())
            assert store.read_user(desk.tenant_id, desk.user_id).sessions == [desk.session(desk.bot)]
        finally:
            other.end()
        assert store.end_session(desk.bot, START, new_id()) == []


@contextmanager
def writing_at_once(desk: Desk, works: Sequence[Callable[[], object]]) -> Iterator[list[Future[Any]]]:
    """Threads that all wait for a turn to write when the block begins; they are done, or failed, when it has ended."""
    turns = desk.store._turns
    assert turns is not None
    other = Turns(turns._turn_file, timeout=60)
    other.begin()
    with ThreadPoolExecutor(len(works)) as threads:
        try:
            writing = []
            for waiting, work in enumerate(works):
                writing.append(threads.submit(work))
                while not turns.line._taken or len(turns.line._queue) < waiting:
                    assert not writing[-1].done()
            yield writing
        finally:
            other.end()


@on_sqlite
def test_those_who_write_at_the_same_time_share_a_commit(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [desk.key() for _ in range(5)]
    works = [partial(desk.sets, key, IN_A_CALL) for key in keys]
    with statements_of(desk.engine, monkeypatch) as sent, writing_at_once(desk, works) as writing:
        pass
    assert (sent.count("BEGIN IMMEDIATE"), sent.count("COMMIT")) == (1, 1)
    assert [len(done.result()) for done in writing] == [1, 2, 3, 4, 5]  # each sees those before it
    assert sorted(session.session_id for session in desk.sessions()) == sorted(key.session_id for key in keys)
    assert [event.at - START for event in desk.events()] == [n * TICK for n in range(5)]


@on_sqlite
def test_one_write_that_fails_harms_no_other_of_the_same_commit(desk: Desk) -> None:
    desk.sets(desk.bot, IN_A_CALL)
    nobodys = desk.phone._replace(session_id=None)  # type: ignore[arg-type]  # the table refuses it
    works: list[Callable[[], object]] = [
        partial(desk.ends, desk.bot),
        partial(desk.sets, nobodys, AWAY),
        partial(desk.sets, desk.phone, AWAY),
    ]
    with writing_at_once(desk, works) as (ended, refused, kept):
        pass
    assert ended.result() == []
    assert isinstance(refused.exception(), sqlite3.IntegrityError)
    assert kept.result() == desk.sessions() == [desk.session(desk.phone)]
    assert desk.told() == [(EventKind.SET, IN_A_CALL), (EventKind.CLEARED, IN_A_CALL), (EventKind.SET, AWAY)]


@on_sqlite
def test_none_of_those_who_share_a_commit_is_acknowledged_when_it_fails(desk: Desk, database: URL) -> None:
    with impatient_engine(database) as engine:
        desk.store = make_store(engine)
        works = [partial(desk.sets, key, AWAY) for key in (desk.bot, desk.phone)]
        with locked(desk.engine, desk.bot):
            with writing_at_once(desk, works) as writing:
                pass
            assert [type(done.exception()) for done in writing] == [StoreUnavailable] * 2
    assert (desk.sessions(), desk.events()) == ([], [])


# --- Statements that come at the same time, on PostgreSQL


@contextmanager
def asking_at_once(line: Line, works: Sequence[Callable[[], object]]) -> Iterator[list[Future[Any]]]:
    """Threads that wait in a line while the block runs; they are done, or failed, when it has ended."""
    line._timeout = 60
    assert line.enter(Place())
    with ThreadPoolExecutor(len(works)) as threads:
        try:
            asking = []
            for number, work in enumerate(works, 1):
                asking.append(threads.submit(work))
                while len(line._queue) < number:
                    assert not asking[-1].done()
            yield asking
        finally:
            line.leave()


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> list[list[Sequence[Any]]]:
    """The values of the statements of each round trip that several share."""
    made: list[list[Sequence[Any]]] = []
    run = LastingCursor.rows_of_all

    def noted(cursor: LastingCursor, asked: Sequence[tuple[str, Sequence[Any]]]) -> Any:
        made.append([values for _, values in asked])
        return run(cursor, asked)

    monkeypatch.setattr(LastingCursor, "rows_of_all", noted)
    return made


def lines_of(desk: Desk) -> tuple[Line, Line]:
    assert isinstance(desk.store, PostgresStore)
    return desk.store._readers, desk.store._writers


@on_postgresql
def test_changes_that_come_at_the_same_time_share_a_transaction(
    desk: Desk, round_trips: list[list[Sequence[Any]]]
) -> None:
    keys = [desk.key() for _ in range(5)]
    with asking_at_once(lines_of(desk)[1], [partial(desk.sets, key, IN_A_CALL) for key in keys]) as setting:
        pass
    assert sorted(len(done.result()) for done in setting) == [1, 2, 3, 4, 5]  # each sees those before it
    assert [session.session_id for session in desk.sessions()] == sorted(key.session_id for key in keys)
    (together,) = round_trips
    order = [next(key.session_id for key in keys if key.session_id in values) for values in together]
    assert order == sorted(order)  # rows are locked in one order, whoever comes first
    assert [event.at - START for event in desk.events()] == [n * TICK for n in range(5)]


@on_postgresql
def test_reads_that_come_at_the_same_time_share_a_round_trip(
    desk: Desk, round_trips: list[list[Sequence[Any]]]
) -> None:
    desk.sets(desk.bot, IN_A_CALL)
    nobody = partial(desk.store.read_user, desk.tenant_id, new_id())
    with asking_at_once(lines_of(desk)[0], [desk.state, nobody, desk.state]) as (first, second, third):
        pass
    assert len(round_trips) == 1
    assert len(round_trips[0]) == 3
    assert first.result() == third.result() == desk.state()
    assert second.result() == UserState([], None)


@on_postgresql
def test_one_change_that_is_refused_harms_no_other_of_the_same_transaction(desk: Desk) -> None:
    desk.sets(desk.bot, IN_A_CALL)
    wrong = desk.phone._replace(session_id="no GUID")
    works: list[Callable[[], object]] = [
        partial(desk.ends, desk.bot),
        partial(desk.sets, wrong, AWAY),
        partial(desk.sets, desk.phone, AWAY),
    ]
    with asking_at_once(lines_of(desk)[1], works) as (ended, refused, kept):
        pass
    assert isinstance(refused.exception(), psycopg.DataError)
    assert ended.exception() is kept.exception() is None
    assert desk.sessions() == [desk.session(desk.phone)]
    assert sorted(desk.told()) == sorted(
        [(EventKind.SET, IN_A_CALL), (EventKind.CLEARED, IN_A_CALL), (EventKind.SET, AWAY)]
    )


@on_postgresql
def test_a_change_that_waits_for_a_lock_in_vain_fails_alone_and_waits_once(
    desk: Desk, database: URL, statements: list[str]
) -> None:
    desk.sets(desk.bot, IN_A_CALL)
    statements.clear()
    with impatient_engine(database, pool=2) as engine, locked(desk.engine, desk.bot):
        desk.store = make_store(engine)
        works = [partial(desk.sets, key, AWAY) for key in (desk.bot, desk.phone)]
        with asking_at_once(lines_of(desk)[1], works) as (refused, kept):
            pass
        fault = refused.exception()
        assert isinstance(fault, StoreUnavailable)
        assert isinstance(fault.__cause__, psycopg.errors.LockNotAvailable | psycopg.errors.QueryCanceled)
        assert kept.exception() is None
        assert len(statements) == 1  # that of those two which is run again, alone
        assert {session.shown for session in desk.sessions()} == {IN_A_CALL, AWAY}


@on_postgresql
def test_none_of_a_transaction_is_acknowledged_when_its_server_goes(desk: Desk, database: URL) -> None:
    desk.sets(desk.bot, IN_A_CALL)
    before = desk.sessions(), desk.events()
    engine = make_engine(database, pool=1, timeout=HOUR)
    desk.store = make_store(engine)
    waiting = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as threads, locked(desk.engine, desk.bot), desk.engine.connect() as watcher:

        def all_of_them() -> list[Future[Any]]:
            works = [partial(desk.sets, key, AWAY) for key in (desk.bot, desk.phone)]
            with asking_at_once(lines_of(desk)[1], works) as asking:
                pass
            return asking

        done = threads.submit(all_of_them)
        while not watcher.execute(text(f"SELECT pg_terminate_backend(pid) {waiting}")).all():
            assert not done.done()
        for failed in (asked.exception() for asked in done.result()):
            assert isinstance(failed, StoreUnavailable)
            assert isinstance(failed.__cause__, psycopg.OperationalError)  # for the log
    assert (desk.sessions(), desk.events()) == before
    engine.dispose()


@on_postgresql
def test_who_waits_too_long_for_others_goes_alone(desk: Desk, round_trips: list[list[Sequence[Any]]]) -> None:
    readers, writers = lines_of(desk)
    readers._timeout = writers._timeout = 0.01
    assert readers.enter(Place())
    assert writers.enter(Place())
    desk.sets(desk.bot, IN_A_CALL)
    assert len(desk.state().sessions) == 1
    assert round_trips == []


@on_postgresql
def test_behind_a_pooler_each_goes_alone(database: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Line, "enter")
    engine = make_engine(database, pool=1, timeout=HOUR, prepare=False)
    desk = Desk(engine)
    desk.sets(desk.bot, IN_A_CALL)
    assert len(desk.state().sessions) == 1
    engine.dispose()


@on_postgresql
def test_a_lock_on_one_session_holds_up_no_other(desk: Desk, database: URL) -> None:
    desk.sets(desk.bot, IN_A_CALL)
    with impatient_engine(database) as engine, locked(desk.engine, desk.bot):
        store = make_store(engine)
        store.set_session(desk.phone, AWAY, HOUR, START, new_id())
        assert store.end_session(desk.phone, START, new_id()) == [desk.session(desk.bot)]


@on_postgresql
def test_a_set_that_had_to_wait_for_a_clear_is_no_keep_alive(desk: Desk) -> None:
    desk.sets(desk.bot, IN_A_CALL)
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as threads, desk.engine.connect() as other, desk.engine.connect() as watcher:
        other.exec_driver_sql("BEGIN")
        other.execute(delete(PresenceSession).where(*row_of(desk.bot)))
        waiting = threads.submit(desk.sets, desk.bot, IN_A_CALL, START + MINUTE)
        while not watcher.execute(text(waits)).scalar_one():
            assert not waiting.done()
        other.exec_driver_sql("COMMIT")
        waiting.result()
    assert desk.told() == [(EventKind.SET, IN_A_CALL)] * 2
    assert desk.session(desk.bot).changed_at == START + MINUTE


def test_a_call_gives_up_when_all_connections_are_taken(desk: Desk, database: URL) -> None:
    with impatient_engine(database, pool=2) as engine:
        store = make_store(engine)
        with engine.connect(), engine.connect():
            with pytest.raises(StoreUnavailable):
                store.read_user(desk.tenant_id, desk.user_id)
            with pytest.raises(StoreUnavailable):
                store.set_session(desk.bot, AWAY, HOUR, START, new_id())
        assert desk.events() == []
        store.set_session(desk.bot, AWAY, HOUR, START, new_id())
        assert desk.told() == [(EventKind.SET, AWAY)]


@on_postgresql
def test_connections_killed_by_the_server_cost_at_most_one_call(desk: Desk, database: URL) -> None:
    engine = make_engine(database, pool=3, timeout=timedelta(seconds=10))
    store = make_store(engine)
    with engine.connect() as one, engine.connect() as two, engine.connect() as three:
        backends = [c.execute(text("SELECT pg_backend_pid()")).scalar_one() for c in (one, two, three)]
    with desk.engine.connect() as connection:
        for backend in backends:
            assert connection.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": backend}).scalar_one()
    failures = 0
    for shown in SETTABLE:
        try:
            store.set_session(desk.bot, shown, HOUR, START, new_id())
        except StoreUnavailable:
            failures += 1
    engine.dispose()
    assert failures <= 1
    assert len(desk.events()) == len(SETTABLE) - failures
    assert desk.session(desk.bot).shown == SETTABLE[-1]


@on_postgresql
def test_what_the_url_asks_for_holds_but_for_the_time_outs(database: URL) -> None:
    asked = {"options": "-c default_transaction_isolation=serializable -c statement_timeout=1", "connect_timeout": "7"}
    with impatient_engine(database.update_query_dict(asked)) as engine, engine.connect() as connection:
        shown = [
            connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("default_transaction_isolation", "statement_timeout", "lock_timeout", "timezone")
        ]
        assert shown == ["serializable", "200ms", "200ms", "UTC"]
        assert cast("Any", connection.connection.driver_connection).info.get_parameters()["connect_timeout"] == "7"


@on_sqlite
@pytest.mark.parametrize(("said", "level"), [({}, 2), ({"sqlite_synchronous": "NORMAL"}, 1)])
def test_sqlite_waits_for_the_disk_as_often_as_it_is_told_to(database: URL, said: dict[str, str], level: int) -> None:
    settings: dict[str, Any] = {"presence_env": "development", "database_url": database, **said}
    app = create_app(Settings(**settings))
    with app.extensions["engine"].connect() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar_one() == level
    app.extensions["engine"].dispose()


def test_whether_statements_are_prepared_is_a_setting(database: URL) -> None:
    for said in (True, False):
        app = create_app(Settings(presence_env="development", database_url=database, database_prepare=said))
        assert app.extensions["engine"].get_execution_options()["prepares"] is said
        app.extensions["engine"].dispose()


def test_a_database_that_does_not_exist_is_unavailable(database: URL, desk: Desk) -> None:
    elsewhere = f"{database.database}-absent" + ("/nothing" if desk.engine.dialect.name == "sqlite" else "")
    url = database.set(database=elsewhere)
    with impatient_engine(url) as engine, pytest.raises(StoreUnavailable):
        make_store(engine).read_user(desk.tenant_id, desk.user_id)


def test_a_programming_error_is_not_taken_for_an_outage(desk: Desk) -> None:
    with pytest.raises(Exception, match=r"(?i)check") as error:
        desk.sets(desk.bot, AWAY, START, -HOUR)
    assert not isinstance(error.value, StoreUnavailable)
    assert desk.sessions() == []
    assert desk.events() == []


@contextmanager
def no_event_can_be_written(engine: Engine) -> Iterator[None]:
    refuse, allow = {
        "sqlite": (
            ["CREATE TRIGGER refuse BEFORE INSERT ON presence_event BEGIN SELECT RAISE(ABORT, 'halfway'); END"],
            "DROP TRIGGER refuse",
        ),
        "postgresql": (
            [
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'halfway'; END $$",
                "CREATE TRIGGER refuse BEFORE INSERT ON presence_event FOR EACH ROW EXECUTE FUNCTION refuse()",
            ],
            "DROP FUNCTION refuse CASCADE",
        ),
    }[engine.dialect.name]
    with engine.connect() as connection:
        for statement in refuse:
            connection.exec_driver_sql(statement)
        try:
            yield
        finally:
            connection.exec_driver_sql(allow)


def test_a_mutation_that_fails_halfway_leaves_nothing(desk: Desk) -> None:
    desk.sets(desk.bot, IN_A_CALL)
    before = desk.sessions(), desk.events()
    with no_event_can_be_written(desk.engine):
        with pytest.raises(Exception, match="halfway"):
            desk.sets(desk.bot, AWAY)
        with pytest.raises(Exception, match="halfway"):
            desk.ends(desk.bot)
    assert (desk.sessions(), desk.events()) == before
    assert desk.ends(desk.bot) == []


# --- Processes


def backend(engine: Engine) -> str:
    """Which connection it is that the engine's one place in the pool holds."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            return str(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
        return str(id(connection.connection.driver_connection))


def test_a_fork_opens_connections_of_its_own_and_leaves_the_parents_alone(desk: Desk, database: URL) -> None:
    engine = make_engine(database, pool=1, timeout=timedelta(seconds=10))
    store = make_store(engine)
    store.set_session(desk.bot, IN_A_CALL, HOUR, START, new_id())
    mine = backend(engine)
    child = os.fork()
    if child == 0:  # pragma: no cover
        status = 1
        try:
            inherited = engine.pool.status()
            store.set_session(desk.phone, AWAY, HOUR, START, new_id())
            status = 0 if "Connections in pool: 0" in inherited and len(desk_sessions(store, desk)) == 2 else 2
            status = 3 if engine.dialect.name == "postgresql" and backend(engine) == mine else status
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert backend(engine) == mine
    assert len(desk_sessions(store, desk)) == 2
    assert store.end_session(desk.bot, START, new_id()) == [desk.session(desk.phone)]
    engine.dispose()


def desk_sessions(store: Store, desk: Desk) -> Sequence[Session]:
    return store.read_user(desk.tenant_id, desk.user_id).sessions
