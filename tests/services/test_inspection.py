"""What operators see and do, on both databases."""

from collections import Counter
from datetime import timedelta
from functools import partial

import pytest
from flask import Flask
from sqlalchemy import Engine, insert, text

from app.db import inspection
from app.db.inspection import Inspector, Minute
from app.db.models import PresenceSession
from app.db.store import Store, make_store
from app.domain.explain import Preference, Rule
from app.domain.values import (
    AVAILABLE,
    AWAY,
    IN_A_CALL,
    OFFLINE,
    PREFERABLE,
    PRESENTING,
    Availability,
    EventKind,
    SessionKey,
    Shown,
)
from app.services.inspection import InspectionService
from app.services.presence import PresenceService, SessionNotFound
from tests.builders import START, Clock, new_id

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


class Office:
    """A tenant whose presence is set by applications, and looked into by an operator."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        store: Store = make_store(engine)
        self.engine, self.clock = engine, clock
        self.tenant_id = new_id()
        self.presence = PresenceService(store, clock)
        self.inspection = InspectionService(store, Inspector(engine), clock)

    def key(self, user: str, app: str) -> SessionKey:
        return SessionKey(self.tenant_id, user, app)

    def sets(self, user: str, app: str, shown: Shown = IN_A_CALL, lifetime: timedelta = HOUR) -> None:
        self.presence.set(self.key(user, app), shown, lifetime, new_id())


@pytest.fixture
def office(engine: Engine, clock: Clock) -> Office:
    return Office(engine, clock)


@pytest.fixture
def app() -> str:
    return new_id()


@pytest.fixture
def other() -> str:
    return new_id()


def test_it_explains_from_the_rows_and_the_history(office: Office, alice: str, app: str, other: str) -> None:
    office.sets(alice, app)
    office.clock.move(minutes=1)
    office.sets(alice, other, AWAY)
    office.presence.prefer(office.key(alice, other), PREFERABLE[2], HOUR, new_id())
    said = office.inspection.explain(office.tenant_id, alice)
    assert said.presence == office.presence.read(office.tenant_id, alice)
    assert (said.now, said.rule, said.preference) == (office.clock.now, Rule.MOST_SIGNIFICANT, Preference.APPLIES)
    assert [(session.session.session_id, session.wins) for session in said.sessions] == [(app, True), (other, False)]
    assert [event.kind for event in said.history] == [EventKind.PREFERRED_SET, EventKind.SET, EventKind.SET]


def test_a_user_nobody_has_heard_of_is_explained(office: Office, alice: str) -> None:
    said = office.inspection.explain(office.tenant_id, alice)
    assert (said.presence.shown, said.rule, said.sessions, said.ahead) == (OFFLINE, Rule.NONE_LIVE, (), ())


# Ending a session for somebody else


def test_a_session_is_ended_and_the_history_tells_by_whom(office: Office, alice: str, app: str, other: str) -> None:
    office.sets(alice, app, PRESENTING)
    office.sets(alice, other, AWAY)
    request_id = new_id()
    assert office.inspection.end_session(office.key(alice, app), "admin:eve", request_id) == AWAY
    assert office.presence.read(office.tenant_id, alice).shown == AWAY
    newest, *_ = office.inspection.history(office.tenant_id, alice, 1)
    assert newest[2:6] == (app, EventKind.CLEARED, PRESENTING, office.clock.now + HOUR)
    assert (newest.request_id, newest.actor) == (request_id, "admin:eve")


def test_what_applications_do_names_no_actor(office: Office, alice: str, app: str) -> None:
    office.sets(alice, app)
    office.presence.clear(office.key(alice, app), new_id())
    assert [event.actor for event in office.inspection.history(office.tenant_id, alice, 5)] == [None, None]


def test_the_last_session_leaves_the_user_offline_and_is_ended_once(office: Office, alice: str, app: str) -> None:
    office.sets(alice, app)
    assert office.inspection.end_session(office.key(alice, app), "cli:root") == OFFLINE
    with pytest.raises(SessionNotFound):
        office.inspection.end_session(office.key(alice, app), "cli:root")
    assert len(office.inspection.history(office.tenant_id, alice, 5)) == 2


def test_an_expired_session_cannot_be_ended(office: Office, alice: str, app: str) -> None:
    office.sets(alice, app, lifetime=5 * MINUTE)
    office.clock.move(minutes=5)
    with pytest.raises(SessionNotFound):
        office.inspection.end_session(office.key(alice, app), "cli:root")
    assert len(office.inspection.history(office.tenant_id, alice, 5)) == 1


@pytest.mark.parametrize("actor", ["", "a\x00b", "two\nlines", "x" * 257])
def test_who_ends_it_has_a_name(office: Office, alice: str, app: str, actor: str) -> None:
    office.sets(alice, app)
    with pytest.raises(ValueError, match="printable characters"):
        office.inspection.end_session(office.key(alice, app), actor)
    assert office.presence.read(office.tenant_id, alice).shown == IN_A_CALL


# Looking


def test_the_history_is_paged_newest_first(office: Office, alice: str, app: str) -> None:
    for shown in (AWAY, IN_A_CALL, PRESENTING, AWAY, IN_A_CALL):
        office.sets(alice, app, shown)  # all at one moment
    office.sets(new_id(), app)
    whole = office.inspection.history(office.tenant_id, alice, 10)
    assert [event.shown for event in whole] == [IN_A_CALL, AWAY, PRESENTING, IN_A_CALL, AWAY]
    pages, last = [], None
    while page := office.inspection.history(office.tenant_id, alice, 2, last):
        pages.append(page)
        last = page[-1].at, page[-1].id
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [event for page in pages for event in page] == whole
    assert office.inspection.history(new_id(), alice, 10) == []


def test_sessions_are_found_by_user_by_app_and_page_by_page(office: Office, app: str, other: str) -> None:
    users = sorted(new_id() for _ in range(3))
    for user in users:
        office.sets(user, app, AWAY)
        office.sets(user, other)
    gone = new_id()
    office.sets(gone, app, lifetime=5 * MINUTE)
    office.clock.move(minutes=5)
    see = partial(office.inspection.sessions, tenant_id=office.tenant_id)
    keys = sorted(office.key(user, each) for user in users for each in (app, other))
    assert [found.key for found in see(10)] == keys
    assert [(found.user_id, found.session.shown) for found in see(10, app_id=app)] == [(u, AWAY) for u in users]
    assert [found.key for found in see(10, user_id=users[1])] == keys[2:4]
    assert [found.key for found in see(3)] == keys[:3]
    assert [found.key for found in see(9, after=keys[2])] == keys[3:]
    assert [found.key for found in office.inspection.sessions(9, app_id=other)] == [
        key for key in keys if key.session_id == other
    ]


def test_the_figures_of_few_sessions_are_exact(office: Office, app: str, other: str) -> None:
    users = [new_id() for _ in range(4)]
    for user in users:
        office.sets(user, app, AVAILABLE)
    office.sets(users[0], other)
    office.sets(users[1], other, AWAY)
    office.sets(new_id(), other, lifetime=5 * MINUTE)
    office.presence.prefer(office.key(users[2], app), PREFERABLE[5], HOUR, new_id())
    office.clock.move(minutes=5)
    figures = office.inspection.stats(office.tenant_id)
    assert (figures.live_sessions, figures.looked_at) == (6, None)
    assert figures.users == {Availability.AVAILABLE: 2, Availability.BUSY: 1, Availability.OFFLINE: 1}
    assert next(iter(figures.users)) is Availability.AVAILABLE
    assert figures.sessions == {app: 4, other: 2}
    assert office.inspection.stats().live_sessions >= 6
    assert office.inspection.stats(new_id())[1:5] == (0, {}, {}, None)


def fill(office: Office, users: int, app: str, other: str) -> None:
    """Give users a Busy session each, every other one an Away session, too; and as many sessions that are over."""
    row = {"tenant_id": office.tenant_id, "changed_at": START, "set_at": START}
    rows = []
    for number in range(users):
        user = {**row, "user_id": new_id()}
        rows.append({**user, "session_id": app, **IN_A_CALL._asdict(), "expires_at": START + HOUR})
        rows.append({**user, "session_id": new_id(), **PRESENTING._asdict(), "expires_at": START + MINUTE})
        if number % 2:
            rows.append({**user, "session_id": other, **AWAY._asdict(), "expires_at": START + HOUR})
        else:
            rows.append(
                {**user, "user_id": new_id(), "session_id": other, **AWAY._asdict(), "expires_at": START + HOUR}
            )
    with office.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.execute(insert(PresenceSession), rows)
        connection.exec_driver_sql("COMMIT")


def test_the_figures_of_many_sessions_are_estimates_near_the_truth(
    office: Office, app: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "MOST_SAMPLED", 1000)
    fill(office, 4000, app, other)
    office.clock.move(minutes=1)
    figures = office.inspection.stats(office.tenant_id)
    assert figures.looked_at
    assert 200 < figures.looked_at < 5000
    assert figures.live_sessions == pytest.approx(8000, rel=0.5)
    assert figures.users == pytest.approx({Availability.BUSY: 4000, Availability.AWAY: 2000}, rel=0.5)
    assert figures.sessions == pytest.approx({app: 4000, other: 4000}, rel=0.5)
    share = figures.users[Availability.BUSY] / sum(figures.users.values())
    assert share == pytest.approx(2 / 3, rel=0.15)  # a user of two sessions counts once
    with office.engine.connect() as connection:
        connection.execute(text("DELETE FROM presence_session WHERE tenant_id = :it"), {"it": office.tenant_id})


def test_the_events_of_each_minute_are_counted(office: Office, alice: str, app: str) -> None:
    office.clock.now = START + timedelta(seconds=30)
    for shown in (AWAY, IN_A_CALL, AWAY):
        office.sets(alice, app, shown)
    office.clock.move(minutes=2)
    office.sets(alice, app, PRESENTING)
    office.clock.move(minutes=1)
    office.sets(alice, app, AWAY)  # in the minute that is not over
    figures = office.inspection.stats(office.tenant_id)
    assert [minute for minute in figures.minutes if minute.events] == [
        Minute(START, 3),
        Minute(START + 2 * MINUTE, 1),
    ]
    assert [minute.at for minute in figures.minutes] == [START + (n - 57) * MINUTE for n in range(60)]
    assert figures.events_per_minute == pytest.approx(4 / 60)
    office.clock.move(minutes=57)
    assert [minute.events for minute in office.inspection.stats(office.tenant_id).minutes][:3] == [3, 0, 1]
    office.clock.move(minutes=1)
    assert [minute.events for minute in office.inspection.stats(office.tenant_id).minutes][:3] == [0, 1, 1]


def test_minutes_that_the_newest_events_do_not_cover_are_left_out(
    office: Office, alice: str, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shown in (AWAY, IN_A_CALL, AWAY, IN_A_CALL):
        office.sets(alice, app, shown)
        office.clock.move(minutes=10)
    monkeypatch.setattr(inspection, "NEWEST_EVENTS", 2)
    minutes = office.inspection.stats(office.tenant_id).minutes
    assert minutes[0].at == START + 21 * MINUTE
    assert Counter(minute.events for minute in minutes) == {0: 18, 1: 1}


def test_the_service_is_at_hand_for_whoever_serves_operators(flask_app: Flask) -> None:
    assert isinstance(flask_app.extensions["inspection"], InspectionService)
