"""Applications come and go, time passes, and the service always agrees with a plain model of what Graph promises."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path

import hypothesis.strategies as st
import pytest
from alembic import command
from flask import Flask
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import URL

from app.db.sweeping import make_sweeper
from app.domain.values import AVAILABLE, PREFERABLE, SETTABLE, Shown
from app.factory import create_app
from app.services.sweep import SweepService
from config import Settings
from tests.builders import START, Application, Clock, Graph, new_id
from tests.conftest import alembic_config

MINUTE = timedelta(minutes=1)
MOMENT = timedelta(milliseconds=1)
LIFETIMES = {
    None: 5 * MINUTE,
    "PT5M": 5 * MINUTE,
    "PT7M30S": 7.5 * MINUTE,
    "PT10M": 10 * MINUTE,
    "PT12M": 12 * MINUTE,
    "PT4H": 240 * MINUTE,
}

SIGNIFICANCE = [
    "DoNotDisturb/Presenting",
    "Busy/InACall or Busy/InAConferenceCall",
    "Available/Available",
    "Available/AvailableInactive",
    "Away/Away",
]


@dataclass
class Entry:
    """What the model knows of one session."""

    state: str
    changed: datetime
    kept_alive: datetime
    ends: datetime

    def moments(self) -> list[datetime]:
        """When time alone may change what is shown."""
        faded = [self.kept_alive + 5 * MINUTE, self.kept_alive + 10 * MINUTE]
        return [self.ends] + [at for at in faded if self.state == "Available/Available" and at < self.ends]

    def shows(self, now: datetime) -> str:
        idle = now - self.kept_alive
        if self.state != "Available/Available" or idle < 5 * MINUTE:
            return self.state
        return "Available/AvailableInactive" if idle < 10 * MINUTE else "Away/Away"


class Model:
    """Presence as the documentation tells it: dictionaries, and no care for speed."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], dict[str, Entry]] = {}
        self.preferred: dict[tuple[str, str], tuple[str, datetime]] = {}
        self.messages: dict[tuple[str, str], tuple[str, datetime]] = {}

    def put(self, whose: tuple[str, str], app_id: str, state: str, lifetime: timedelta, now: datetime) -> bool:
        """Set a session; False when that was a keep-alive."""
        apps = self.entries.setdefault(whose, {})
        old = apps.get(app_id)
        keep_alive = old is not None and old.ends > now and old.state == state == old.shows(now)
        apps[app_id] = Entry(state, old.changed if old and keep_alive else now, now, now + lifetime)
        return not keep_alive

    def take(self, whose: tuple[str, str], app_id: str, now: datetime) -> bool:
        """End a session; False when there is none."""
        entry = self.entries.get(whose, {}).get(app_id)
        if entry is None or entry.ends <= now:
            return False
        del self.entries[whose][app_id]
        return True

    def seen(self, whose: tuple[str, str], now: datetime) -> str:
        live = {app_id: entry for app_id, entry in self.entries.get(whose, {}).items() if entry.ends > now}
        for significance in SIGNIFICANCE:
            equals = {app_id: entry for app_id, entry in live.items() if entry.shows(now) in significance.split(" or ")}
            if equals:
                latest = max(entry.changed for entry in equals.values())
                winner = min(app_id for app_id, entry in equals.items() if entry.changed == latest)
                state, ends = self.preferred.get(whose, ("", now))
                return state if ends > now else equals[winner].shows(now)
        return "Offline/Offline"

    def message(self, whose: tuple[str, str], now: datetime) -> str | None:
        text, ends = self.messages.get(whose, ("", now))
        return text if ends > now else None

    def moments(self, whose: tuple[str, str]) -> list[datetime]:
        said = [part[whose][1] for part in (self.preferred, self.messages) if whose in part]
        return [at for entry in self.entries.get(whose, {}).values() for at in entry.moments()] + said


@dataclass
class LastSeen:
    """What a user showed when they were last read, and at what time."""

    shown: str
    message: str | None
    sequence: str
    at: datetime


tenants = users = st.sampled_from([0, 0, 0, 1])  # one user has most of the company
apps = st.integers(0, 2)
states = st.sampled_from([*SETTABLE, AVAILABLE, AVAILABLE])  # the one that fades, more often
durations = st.sampled_from(list(LIFETIMES))


class PresenceMachine(RuleBasedStateMachine):
    """Two tenants that share their users' and applications' ids, and so must not share presence."""

    def __init__(self, service: Flask, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        clock.now = START
        self.sweeper = SweepService(make_sweeper(service.extensions["engine"]), clock)
        self.model = Model()
        self.tenants = [Graph(service.test_client(), clock) for _ in range(2)]
        self.users = [new_id() for _ in range(2)]
        self.last_seen: dict[tuple[str, str], LastSeen] = {}
        self.touched: set[tuple[str, str]] = set()

    @initialize()
    def register_the_applications(self) -> None:
        ids = [new_id() for _ in range(3)]
        self.apps = [[graph.app(app_id=app_id) for app_id in ids] for graph in self.tenants]

    def actor(self, tenant: int, user: int, app: int) -> tuple[Graph, str, Application, tuple[str, str]]:
        graph, user_id = self.tenants[tenant], self.users[user]
        return graph, user_id, self.apps[tenant][app], (graph.tenant_id, user_id)

    @rule(tenant=tenants, user=users, app=apps, shown=states, duration=durations)
    def show(self, tenant: int, user: int, app: int, shown: Shown, duration: str | None) -> None:
        graph, user_id, caller, whose = self.actor(tenant, user, app)
        response = graph.shows(user_id, caller, shown, duration)
        assert response.status_code == 200, response.data
        if self.model.put(whose, caller.app_id, str(shown), LIFETIMES[duration], self.clock.now):
            self.touched.add(whose)

    @rule(tenant=tenants, user=users, app=apps, duration=durations)
    def keep_alive(self, tenant: int, user: int, app: int, duration: str | None) -> None:
        """Say again what the session was last set to, if it ever was."""
        _, _, caller, whose = self.actor(tenant, user, app)
        entry = self.model.entries.get(whose, {}).get(caller.app_id)
        if entry is not None:
            again = next(shown for shown in SETTABLE if str(shown) == entry.state)
            self.show(tenant, user, app, again, duration)

    @rule(tenant=tenants, user=users, app=apps)
    def clear(self, tenant: int, user: int, app: int) -> None:
        graph, user_id, caller, whose = self.actor(tenant, user, app)
        ended = self.model.take(whose, caller.app_id, self.clock.now)
        response = graph.clears(user_id, caller)
        assert response.status_code == (200 if ended else 404), response.data
        if ended:
            self.touched.add(whose)

    @rule(tenant=tenants, user=users, shown=st.sampled_from(PREFERABLE), duration=durations.filter(bool))
    def prefer(self, tenant: int, user: int, shown: Shown, duration: str) -> None:
        body = {**shown._asdict(), "expirationDuration": duration}
        whose = self.tell(tenant, user, "setUserPreferredPresence", body)
        self.model.preferred[whose] = (str(shown), self.clock.now + LIFETIMES[duration])
        self.touched.add(whose)

    @rule(tenant=tenants, user=users)
    def stop_preferring(self, tenant: int, user: int) -> None:
        whose = self.tell(tenant, user, "clearUserPreferredPresence", {})
        if self.model.preferred.pop(whose, None):
            self.touched.add(whose)

    @rule(tenant=tenants, user=users, text=st.sampled_from(["on the train", "back at nine"]), duration=durations)
    def say(self, tenant: int, user: int, text: str, duration: str | None) -> None:
        until = self.clock.now + LIFETIMES[duration]
        expiry = {"dateTime": until.strftime("%Y-%m-%dT%H:%M:%S.%f0"), "timeZone": "UTC"}
        said = {"message": {"content": text}, "expiryDateTime": expiry}
        whose = self.tell(tenant, user, "setStatusMessage", {"statusMessage": said})
        self.model.messages[whose] = (text, until)
        self.touched.add(whose)

    @rule(tenant=tenants, user=users)
    def say_nothing(self, tenant: int, user: int) -> None:
        whose = self.tell(tenant, user, "setStatusMessage", {"statusMessage": None})
        if self.model.messages.pop(whose, None):
            self.touched.add(whose)

    def tell(self, tenant: int, user: int, action: str, body: object) -> tuple[str, str]:
        graph, user_id, caller, whose = self.actor(tenant, user, 0)
        response = graph.post(caller, f"/users/{user_id}/presence/{action}", body)
        assert response.status_code == 200, response.data
        return whose

    @rule()
    def sweep(self) -> None:
        """Purge what has expired: nobody's presence changes, and no sequenceNumber goes back."""
        for _ in self.sweeper.sweep(timedelta(0)):
            pass
        self.touched.update((graph.tenant_id, user) for graph, user in product(self.tenants, self.users))

    @rule(minutes=st.sampled_from([1, 2.5, 5, 60]))
    def time_passes(self, minutes: float) -> None:
        self.clock.now += minutes * MINUTE

    @rule(
        nth=st.integers(0, 2),
        beside=st.sampled_from([-MOMENT, timedelta(0), MOMENT]),
        then=st.sampled_from(["nothing", "clear", "keep_alive"]),
    )
    def time_passes_to_an_edge(self, nth: int, beside: timedelta, then: str) -> None:
        """Go to, or beside, one of the next moments at which a session fades or expires; its application then acts."""
        ahead = sorted(edge for edge in self.edges() if edge[0] + beside > self.clock.now)
        if not ahead:
            return
        moment, tenant, user, app = ahead[min(nth, len(ahead) - 1)]
        self.clock.now = moment + beside
        self.everybody_shows_what_the_model_says()
        if then == "clear":
            self.clear(tenant, user, app)
        elif then == "keep_alive":
            self.keep_alive(tenant, user, app, "PT12M")

    def edges(self) -> Iterator[tuple[datetime, int, int, int]]:
        for tenant, user, app in product(range(2), range(2), range(3)):
            _, _, caller, whose = self.actor(tenant, user, app)
            entry = self.model.entries.get(whose, {}).get(caller.app_id)
            for moment in entry.moments() if entry else []:
                yield moment, tenant, user, app

    @invariant()
    def everybody_shows_what_the_model_says(self) -> None:
        for tenant, user in product(range(2), range(2)):
            self.look_at(*self.actor(tenant, user, 0))

    def look_at(self, graph: Graph, user_id: str, reader: Application, whose: tuple[str, str]) -> None:
        body = graph.reads(user_id, reader).get_json()
        now, shown = self.clock.now, f"{body['availability']}/{body['activity']}"
        assert shown == self.model.seen(whose, now)
        message = body["statusMessage"] and body["statusMessage"]["message"]["content"]
        assert message == self.model.message(whose, now)
        seen, before = LastSeen(shown, message, body["sequenceNumber"], now), self.last_seen.get(whose)
        if before is not None:
            turned = any(before.at < moment <= now for moment in self.model.moments(whose))
            happened = whose in self.touched or turned
            assert seen.sequence >= before.sequence
            assert happened or seen.sequence == before.sequence
            assert (shown, message) == (before.shown, before.message) or seen.sequence > before.sequence
        self.last_seen[whose] = seen
        self.touched.discard(whose)


@pytest.fixture
def quiet_app(make_database: Callable[[], URL], jwks_file: Path, tmp_path: Path) -> Iterator[Flask]:
    """A server whose database no other test fills, since a sweep looks at all of it."""
    url = make_database()
    command.upgrade(alembic_config(url), "head")
    settings = Settings(
        presence_env="development", database_url=url, auth_jwks_uri=str(jwks_file), instance_path=tmp_path
    )
    app = create_app(settings, Clock())
    yield app
    app.extensions["engine"].dispose()


def test_the_service_agrees_with_a_plain_model(quiet_app: Flask) -> None:
    class Machine(PresenceMachine):
        def __init__(self) -> None:
            super().__init__(quiet_app, quiet_app.extensions["clock"])

    run_state_machine_as_test(Machine, settings=hypothesis_settings(max_examples=25, stateful_step_count=25))
