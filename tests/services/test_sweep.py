"""Sweeping, at any time and from several places: what goes, what stays, and that nobody sees a difference."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from alembic import command
from sqlalchemy import URL, Engine, select, text

from app.api.presence import sequence_number
from app.db.engine import make_engine
from app.db.models import PresenceEvent, PresenceSession, PresenceUser
from app.db.prepared import Prepared
from app.db.store import make_store
from app.db.sweeping import SESSIONS, PostgresSweeper, make_sweeper
from app.domain.values import (
    AVAILABLE,
    AWAY,
    DO_NOT_DISTURB,
    IN_A_CALL,
    NIL,
    PRESENTING,
    EventKind,
    SessionKey,
    Shown,
    WorkLocationType,
)
from app.services.emulation import Emulation
from app.services.presence import LOCATIONS, Part, PresenceService, SessionNotFound
from app.services.sweep import GRACE, SweepService, Swept
from tests.builders import START, Clock, new_id, on_postgresql, on_sqlite
from tests.conftest import alembic_config

TICK = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
YEAR = timedelta(days=365)


@pytest.fixture(scope="module")
def migrated(make_database: Callable[[], URL]) -> Iterator[Engine]:
    """A database of this module's own, since a sweep goes through all tenants."""
    url = make_database()
    command.upgrade(alembic_config(url), "head")
    engine = make_engine(url, pool=8, timeout=timedelta(seconds=30))
    yield engine
    engine.dispose()


class House:
    """One tenant's presence, those who set it, and those who sweep."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.clock = Clock()
        self.presence = PresenceService(make_store(engine), self.clock)
        self.pauses: list[float] = []
        self.service = SweepService(make_sweeper(engine, self.pauses.append), self.clock)
        self.tenant_id = new_id()

    def key(self, user: str, app: str) -> SessionKey:
        return SessionKey(self.tenant_id, user, app)

    def sets(self, user: str, app: str, shown: Shown = IN_A_CALL, lasts: timedelta = 5 * MINUTE) -> None:
        self.presence.set(self.key(user, app), shown, lasts, new_id())

    def sweeps(self, keep_events: timedelta = YEAR, batch: int = 500) -> Swept:
        return list(self.service.sweep(keep_events, batch))[-1]

    def reads(self, user: str) -> tuple[Any, str]:
        """What a user shows, and its version."""
        seen = self.presence.read(self.tenant_id, user)
        return (seen.shown, seen.message, seen.location, seen.location_source), sequence_number(seen)

    def rows(self, table: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(select(table).order_by(*table.__table__.primary_key)))

    def events(self, user: str) -> list[Any]:
        return [event for event in self.rows(PresenceEvent) if event.user_id == user]


@pytest.fixture
def house(migrated: Engine) -> House:
    Emulation(migrated).reset()
    return House(migrated)


# What goes


def test_an_expired_session_goes_and_leaves_its_event(house: House, alice: str) -> None:
    bot = new_id()
    house.sets(alice, bot, AWAY)
    house.clock.move(hours=1)
    assert house.sweeps() == Swept(sessions=1)
    assert house.rows(PresenceSession) == []
    _, expired = house.events(alice)
    ended_at = START + 5 * MINUTE
    assert expired[1:] == (ended_at, house.tenant_id, alice, bot, EventKind.EXPIRED, *AWAY, ended_at, None, None)
    assert house.sweeps() == Swept()
    assert len(house.events(alice)) == 2


def test_the_history_says_until_when_a_message_was_to_stay(house: House, alice: str) -> None:
    house.presence.say(house.key(alice, new_id()), "x", START + MINUTE, new_id())
    assert [event.expires_at for event in house.events(alice)] == [START + MINUTE]


def test_what_ended_at_one_moment_is_told_so_of_each_user(house: House) -> None:
    for user in (new_id(), new_id()):
        house.sets(user, new_id(), AWAY)
    house.clock.move(hours=1)
    house.sweeps()
    ended = [event.at for event in house.rows(PresenceEvent) if event.kind is EventKind.EXPIRED]
    assert ended == [START + 5 * MINUTE] * 2


def test_the_same_user_of_another_tenant_is_somebody_else(house: House, alice: str) -> None:
    first, later = house.tenant_id, new_id()
    house.sets(alice, new_id(), AWAY)
    house.clock.move(minutes=20)
    house.tenant_id = later
    house.sets(alice, new_id(), AWAY, 2 * YEAR)
    house.clock.move(minutes=20)
    house.sweeps()
    assert [event.at for event in house.events(alice) if event.kind is EventKind.EXPIRED] == [START + 5 * MINUTE]
    house.clock.move(hours=24 * 800)
    house.sweeps()
    assert {event.tenant_id for event in house.events(alice)} == {first, later}, "each keeps the newest event"


@pytest.mark.parametrize(("late", "gone"), [(-TICK, 0), (timedelta(0), 1)])
def test_it_stays_for_as_long_as_clocks_may_differ(house: House, alice: str, late: timedelta, gone: int) -> None:
    house.sets(alice, new_id())
    house.clock.now = START + 15 * MINUTE + late
    assert house.sweeps() == Swept(sessions=gone)
    assert len(house.rows(PresenceSession)) == 1 - gone


def test_live_sessions_stay_whosever_they_are(house: House, alice: str) -> None:
    bot, desk = new_id(), new_id()
    for user, app, lasts in ((alice, bot, 5), (alice, desk, 60), (new_id(), bot, 60)):
        house.sets(user, app, lasts=lasts * MINUTE)
    house.clock.move(minutes=40)
    assert house.sweeps() == Swept(sessions=1)
    assert {(row.user_id, row.session_id) for row in house.rows(PresenceSession)}.isdisjoint({(alice, bot)})
    assert len(house.rows(PresenceSession)) == 2


def test_each_event_comes_after_the_users_newest_and_not_before_its_own_end(house: House, alice: str) -> None:
    for app in (new_id(), new_id(), new_id()):
        house.sets(alice, app)
    house.clock.move(minutes=5, microseconds=-1)
    house.sets(alice, new_id(), lasts=240 * MINUTE)  # just before the three end
    house.clock.move(minutes=30)
    house.sets(alice, new_id(), lasts=240 * MINUTE)  # and well after
    house.clock.move(minutes=30)
    assert house.sweeps() == Swept(sessions=3)
    moments = [event.at for event in house.events(alice)]
    newest = START + 35 * MINUTE - TICK
    assert moments[-3:] == [newest + TICK, newest + 2 * TICK, newest + 3 * TICK]
    assert moments == sorted(set(moments))


def test_ends_are_recorded_in_the_order_in_which_they_came(house: House, alice: str) -> None:
    apps = [new_id() for _ in range(3)]
    for minutes, app in enumerate(apps, 5):
        house.sets(alice, app, lasts=minutes * MINUTE)
    house.clock.move(minutes=40)
    house.sweeps()
    ends = house.events(alice)[3:]
    assert [end.session_id for end in ends] == apps
    for minutes, end in enumerate(ends, 5):
        assert START + minutes * MINUTE <= end.at <= START + minutes * MINUTE + 2 * TICK


def test_what_a_user_said_goes_when_it_has_expired_each_with_its_event(house: House, alice: str) -> None:
    actor, now = house.key(alice, new_id()), START
    house.presence.prefer(actor, DO_NOT_DISTURB, 10 * MINUTE, new_id())
    house.presence.say(actor, "On a train", now + 20 * MINUTE, new_id())
    house.presence.locate(actor, Part.AUTOMATIC_LOCATION, WorkLocationType.OFFICE, None, new_id())
    house.presence.locate(actor, Part.MANUAL_LOCATION, WorkLocationType.REMOTE, "x", new_id())
    house.clock.now = now + 10 * MINUTE + GRACE
    assert house.sweeps() == Swept(said=1)
    house.clock.move(minutes=40)
    assert house.sweeps() == Swept(said=1)
    (row,) = house.rows(PresenceUser)
    assert (row.preferred_availability, row.message, row.manual_location) == (None, None, WorkLocationType.REMOTE)
    midnight = START.replace(hour=0) + timedelta(days=1)
    house.clock.now = midnight + GRACE
    assert house.sweeps() == Swept(said=2, users=1)
    assert house.rows(PresenceUser) == []
    told = [(e.kind, e.session_id, e.availability, e.activity, e.expires_at, e.at) for e in house.events(alice)][4:]
    assert told == [
        (EventKind.PREFERRED_EXPIRED, NIL, *DO_NOT_DISTURB, now + 10 * MINUTE, now + 10 * MINUTE),
        (EventKind.MESSAGE_EXPIRED, NIL, None, None, now + 20 * MINUTE, now + 20 * MINUTE),
        (EventKind.LOCATION_EXPIRED, NIL, None, None, midnight, midnight),
        (EventKind.LOCATION_EXPIRED, NIL, None, None, midnight, midnight + TICK),
    ]


def test_what_never_expires_stays(house: House, alice: str) -> None:
    house.presence.say(house.key(alice, new_id()), "Gone fishing", None, new_id())
    house.clock.move(days=10_000)
    assert house.sweeps() == Swept()
    assert house.reads(alice)[0][1].content == "Gone fishing"


def test_the_row_of_a_user_who_took_everything_back_goes_without_an_event(house: House, alice: str) -> None:
    actor = house.key(alice, new_id())
    house.presence.locate(actor, Part.MANUAL_LOCATION, WorkLocationType.OFFICE, None, new_id())
    house.presence.stop_locating(actor, LOCATIONS, new_id())
    before = house.events(alice)
    assert house.sweeps() == Swept(users=1)
    assert house.rows(PresenceUser) == []
    assert house.events(alice) == before


# Events


def test_old_events_go_but_never_a_users_newest(house: House, alice: str) -> None:
    bob, bot = new_id(), new_id()
    for user, shown in ((alice, IN_A_CALL), (bob, AWAY), (alice, AWAY), (alice, PRESENTING)):
        house.sets(user, bot, shown)
        house.clock.move(minutes=1)
    kept = [house.events(alice)[-1], *house.events(bob)]
    before = {user: house.reads(user) for user in (alice, bob)}
    assert house.sweeps(keep_events=timedelta(0)) == Swept(events=2)
    assert sorted(house.rows(PresenceEvent)) == sorted(kept)
    assert {user: house.reads(user) for user in (alice, bob)} == before


@pytest.mark.parametrize(("age", "gone"), [(2 * MINUTE, 1), (2 * MINUTE + TICK, 0)])
def test_events_are_kept_for_as_long_as_asked(house: House, alice: str, age: timedelta, gone: int) -> None:
    for shown in (IN_A_CALL, AWAY, PRESENTING):
        house.sets(alice, new_id(), shown)
        house.clock.move(minutes=1)
    house.clock.move(minutes=-1)
    assert house.sweeps(keep_events=age) == Swept(events=gone)


def test_of_events_at_one_moment_the_last_one_stays(house: House, alice: str) -> None:
    house.sets(alice, new_id(), lasts=60 * MINUTE)
    with house.engine.begin() as connection:
        columns = ", ".join(column.name for column in PresenceEvent.__table__.c if column.name != "id")
        connection.execute(text(f"INSERT INTO presence_event ({columns}) SELECT {columns} FROM presence_event"))  # noqa: S608
    house.clock.move(minutes=1)
    last = house.events(alice)[-1]
    assert house.sweeps(keep_events=timedelta(0)).events == 1
    assert house.events(alice) == [last]


def test_trimming_does_not_walk_through_events_that_are_all_young(
    house: House, alice: str, statements: list[str]
) -> None:
    for _ in range(10):
        house.sets(alice, new_id())
    statements.clear()
    house.sweeps(batch=2)
    assert len([sql for sql in statements if "presence_event" in sql]) == 1


# In batches, and by several at once


@pytest.mark.parametrize("batch", [1, 3, 7, 500])
def test_any_batch_size_sweeps_everything_and_tells_how_far_it_is(house: House, batch: int) -> None:
    for number in range(7):
        house.sets(new_id(), new_id(), lasts=(5 if number % 3 else 60) * MINUTE)
        house.presence.say(house.key(new_id(), new_id()), "x", START + MINUTE, new_id())
    house.clock.move(minutes=40)
    steps = list(house.service.sweep(YEAR, batch))
    assert steps[-1] == Swept(sessions=4, said=7, users=7)
    assert steps == sorted(steps)
    assert all(after.sessions - before.sessions <= batch for before, after in pairwise(steps))
    assert len(house.rows(PresenceSession)) == 3


@on_postgresql
def test_a_batch_is_one_statement(house: House, alice: str, statements: list[str]) -> None:
    house.sets(alice, new_id())
    house.clock.move(minutes=40)
    statements.clear()
    house.sweeps()
    changing = [sql for sql in statements if "DELETE" in sql or "UPDATE" in sql]
    assert len(changing) == 1


@on_sqlite
def test_others_get_the_write_lock_for_longer_than_the_sweep_had_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(100))  # the lock is held for one second each time
    monkeypatch.setattr("app.db.sweeping.monotonic", lambda: next(ticks))
    for _ in range(3):
        house.sets(new_id(), new_id())
    house.clock.move(minutes=40)
    house.sweeps(batch=1)
    assert house.pauses == [2, 2, 2]


def test_several_sweeps_at_once_record_each_end_once(house: House) -> None:
    users = [new_id() for _ in range(40)]
    for user in users:
        for _ in range(3):
            house.sets(user, new_id(), lasts=random.Random(user).choice((5, 6)) * MINUTE)  # noqa: S311
        house.presence.say(house.key(user, new_id()), "x", START + MINUTE, new_id())
    house.clock.move(minutes=40)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda batch: house.sweeps(batch=batch), (3, 5, 7, 500)))
    rest = house.sweeps()  # what each passed over because another held it, and gave back
    assert [sum(column) for column in zip(*done, rest, strict=True)] == [120, 40, 40, 0]
    for user in users:
        moments = [event.at for event in house.events(user)]
        kinds = [event.kind for event in house.events(user)]
        assert kinds.count(EventKind.EXPIRED) == 3
        assert kinds.count(EventKind.MESSAGE_EXPIRED) == 1
        assert len(moments) == 8


@on_postgresql
def test_a_row_that_somebody_holds_is_passed_over(house: House, alice: str) -> None:
    held, free = new_id(), new_id()
    for app in (held, free):
        house.sets(alice, app)
    house.clock.move(minutes=40)
    with house.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT FROM presence_session WHERE session_id = %s FOR UPDATE", (held,))
        assert house.sweeps() == Swept(sessions=1)
        connection.exec_driver_sql("COMMIT")
    assert [row.session_id for row in house.rows(PresenceSession)] == [held]
    assert house.sweeps() == Swept(sessions=1)


# Nobody sees a difference


def test_a_sweep_changes_nothing_that_anybody_sees_and_no_version_goes_back(house: House) -> None:
    dice = random.Random(4)  # noqa: S311
    users, apps = [new_id() for _ in range(20)], [new_id() for _ in range(3)]
    versions = dict.fromkeys(users, "")
    for _ in range(20):
        for _ in range(8):
            _act(house, dice, dice.choice(users), dice.choice(apps))
        house.clock.now += dice.choice((TICK, MINUTE, 5 * MINUTE, 40 * MINUTE))
        before = {user: house.reads(user) for user in users}
        house.sweeps(keep_events=dice.choice((timedelta(0), timedelta(hours=1))), batch=dice.choice((1, 4, 50)))
        for user in users:
            shown, version = house.reads(user)
            assert shown == before[user][0]
            assert versions[user] <= before[user][1] <= version
            versions[user] = version


@on_postgresql
@pytest.mark.parametrize("behind", [timedelta(0), GRACE])
def test_no_version_goes_back_when_an_event_lands_while_a_sweep_is_under_way(
    house: House, alice: str, behind: timedelta
) -> None:
    house.sets(alice, new_id())
    house.clock.now = START + 5 * MINUTE + GRACE
    sweeper = PostgresSweeper(house.engine)
    bounds = {"cutoff": house.clock.now - GRACE, "after": NIL, "last": "f" * 8 + NIL[8:].replace("0", "f")}
    bounds |= {f"{end}_{name}": bounds[end] for end in ("after", "last") for name in SessionKey._fields}
    statement: Prepared = sweeper._in_one[SESSIONS]  # to stop between its work and its commit
    with sweeper._cursor() as cursor:
        cursor.execute("BEGIN")
        assert statement.run(cursor, bounds) == [(1,)]
        house.clock.now -= behind  # as the clock of the worker who takes it
        house.sets(alice, new_id(), lasts=240 * MINUTE)
        house.clock.now += behind
        during = house.reads(alice)
        cursor.execute("COMMIT")
    after = house.reads(alice)
    assert after[0] == during[0]
    assert after[1] >= during[1]


@pytest.mark.parametrize("keep_events", [YEAR, timedelta(0)])
def test_sweeps_in_a_storm_lose_no_session_and_turn_no_version_back(house: House, keep_events: timedelta) -> None:
    users, apps = [new_id() for _ in range(8)], [new_id() for _ in range(4)]
    versions = dict.fromkeys(users, "")

    def sets(seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311
        for _ in range(25):
            _act(house, dice, dice.choice(users), apps[seed % 4])  # an application waits for its answers

    def sweeps(batch: int) -> None:
        for _ in range(3):
            house.sweeps(keep_events, batch)

    def reads(_: int) -> None:
        for user in users * 4:
            version = house.reads(user)[1]
            assert versions[user] <= version
            versions[user] = version

    with ThreadPoolExecutor(6) as pool:
        for step in range(12):
            at_once = [
                (sets, 4 * step),
                (sweeps, 2),
                (sets, 4 * step + 1),
                (reads, 0),
                (sets, 4 * step + 2),
                (sweeps, 50),
            ]
            for done in [pool.submit(task, number) for task, number in at_once]:
                done.result()
            house.clock.move(minutes=7, seconds=step)
    house.sweeps(keep_events)
    if keep_events == YEAR:
        assert_replayed(house)


def _act(house: House, dice: random.Random, user: str, app: str) -> None:
    """Do any one thing to a user's presence."""
    actor = house.key(user, app)
    match dice.randrange(8):
        case 0:
            with suppress(SessionNotFound):
                house.presence.clear(actor, new_id())
        case 1:
            house.presence.prefer(actor, DO_NOT_DISTURB, dice.choice((1, 20)) * MINUTE, new_id())
        case 2:
            house.presence.stop_preferring(actor, new_id())
        case 3:
            house.presence.say(actor, "x", house.clock.now + dice.choice((1, 20)) * MINUTE, new_id())
        case _:
            lasts = dice.choice((5, 7, 30)) * MINUTE
            house.sets(user, app, dice.choice((AVAILABLE, IN_A_CALL, AWAY)), lasts)


def assert_replayed(house: House) -> None:
    """The events, in their order, give the sessions that there are; each end is of a session that was there."""
    replayed: dict[tuple[str, str], Shown] = {}
    for event in house.rows(PresenceEvent):
        session = (event.user_id, event.session_id)
        if event.kind is EventKind.SET:
            replayed[session] = Shown(event.availability, event.activity)
        elif event.kind in {EventKind.CLEARED, EventKind.EXPIRED}:
            assert replayed.pop(session) == (event.availability, event.activity)
    rows = house.rows(PresenceSession)
    assert replayed == {(row.user_id, row.session_id): Shown(row.availability, row.activity) for row in rows}


def test_a_sweep_takes_the_moment_of_its_start(house: House, alice: str) -> None:
    house.sets(alice, new_id())
    steps = house.service.sweep(YEAR)
    next(steps)
    house.clock.now = datetime.max.replace(tzinfo=START.tzinfo)
    assert list(steps)[-1] == Swept()
