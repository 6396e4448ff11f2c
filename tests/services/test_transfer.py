"""What is exported from one database is there in the other after an import, whichever they are."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from alembic import command
from sqlalchemy import URL, Engine, create_engine, select, text

from app.db import transfer as rows_of
from app.db.directory import DirectoryStore
from app.db.engine import make_engine
from app.db.inspection import Inspector
from app.db.models import PresenceEvent
from app.db.store import make_store
from app.db.transfer import Reader, Writer
from app.domain.directory import User
from app.domain.values import AVAILABLE, AWAY, BUSY, IN_A_CALL, PRESENTING, SessionKey, Shown, WorkLocationType
from app.services import transfer
from app.services.emulation import Emulation
from app.services.inspection import InspectionService
from app.services.presence import LOCATIONS, Part, PresenceService
from app.services.transfer import Imported, NoExport, TransferService
from tests.builders import Clock, new_id
from tests.conftest import alembic_config

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
TENANT, OTHER_TENANT = "0a000000-0000-4000-8000-000000000001", "0b000000-0000-4000-8000-000000000002"
ADELE, ALEX = "0c000000-0000-4000-8000-000000000003", "0d000000-0000-4000-8000-000000000004"
BOT, PHONE = "0e000000-0000-4000-8000-000000000005", "0f000000-0000-4000-8000-000000000006"

Line = Mapping[str, Any]


def through_a_file(line: Line) -> Line:
    read: Line = json.loads(json.dumps(line, default=datetime.isoformat))
    return read


class House:
    """A database, what it holds, and a way to carry it somewhere else."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        store = make_store(engine)
        self.engine, self.clock = engine, clock
        self.presence = PresenceService(store, clock)
        self.inspection = InspectionService(store, Inspector(engine), clock)
        self.directory = DirectoryStore(engine)
        self.service = TransferService(Reader(engine), Writer(engine), self.directory, clock)

    def exported(self, tenant_id: str | None = None) -> list[Line]:
        """An export as it comes out of its file."""
        return [through_a_file(line) for line in self.service.export(tenant_id)]

    def takes(self, lines: list[Line]) -> Imported:
        *_, last = self.service.import_rows(lines)
        return last

    def shows(self, user: str, tenant_id: str = TENANT) -> Shown:
        return self.presence.read(tenant_id, user).shown

    def sets(self, user: str, app: str, shown: Shown, lifetime: timedelta = HOUR, tenant_id: str = TENANT) -> None:
        self.presence.set(SessionKey(tenant_id, user, app), shown, lifetime, new_id())

    def clears(self, user: str, app: str) -> None:
        self.presence.clear(SessionKey(TENANT, user, app), new_id())

    def lives_a_day(self) -> None:
        """Fill every table with every kind of value."""
        as_adele = SessionKey(TENANT, ADELE, BOT)
        self.directory.put(TENANT, [User(ADELE, "adele@contoso.com", "Adèle"), User(ALEX, "alex@contoso.com", "Alex")])
        self.sets(ADELE, BOT, AVAILABLE)
        self.sets(ADELE, PHONE, IN_A_CALL, 5 * MINUTE)
        self.sets(ALEX, BOT, PRESENTING)
        self.sets(ALEX, PHONE, AWAY)
        self.sets(ADELE, BOT, AWAY, tenant_id=OTHER_TENANT)
        self.presence.prefer(as_adele, BUSY, HOUR, new_id())
        self.presence.say(as_adele, 'Back "soon" 🚆', None, new_id())
        self.presence.locate(as_adele, Part.MANUAL_LOCATION, WorkLocationType.OFFICE, "Building 7", new_id())
        self.clock.move(minutes=1, microseconds=7)
        self.inspection.end_session(SessionKey(TENANT, ALEX, PHONE), "cli:root")
        self.sets(ADELE, BOT, AVAILABLE)  # a keep-alive


def migrated(url: URL) -> Engine:
    command.upgrade(alembic_config(url), "head")
    return make_engine(url, pool=2, timeout=timedelta(seconds=5))


@pytest.fixture(scope="module")
def engines(
    kind: str,
    make_database: Callable[[], URL],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[tuple[Engine, Engine]]:
    """A database of one kind, and one of the other."""
    if kind == "postgresql":
        other = URL.create("sqlite+pysqlite", database=str(tmp_path_factory.mktemp("there") / "there.sqlite3"))
    else:
        server: URL = request.getfixturevalue("postgres")
        other = server.set(database=f"there_{new_id()}")
        engine = create_engine(server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{other.database}"'))
        engine.dispose()
    both = migrated(make_database()), migrated(other)
    yield both
    for one in both:
        one.dispose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def here(engines: tuple[Engine, Engine], clock: Clock) -> House:
    """A database of one kind, in use."""
    Emulation(engines[0]).reset()
    house = House(engines[0], clock)
    house.lives_a_day()
    return house


@pytest.fixture
def there(engines: tuple[Engine, Engine], clock: Clock) -> House:
    """An empty database of the other kind."""
    Emulation(engines[1]).reset()
    return House(engines[1], clock)


def test_a_round_trip_ends_where_it_began(here: House, there: House) -> None:
    lines = here.exported()
    done = there.takes(lines)
    assert there.exported() == lines
    assert done.written == {"directory_user": 2, "presence_user": 1, "presence_session": 4, "presence_event": 9}
    assert done.rows == 16
    for house in (here, there):
        assert [house.shows(user) for user in (ADELE, ALEX)] == [BUSY, PRESENTING]
        assert house.inspection.history(TENANT, ALEX, 1)[0].actor == "cli:root"
    assert there.presence.read(TENANT, ADELE) == here.presence.read(TENANT, ADELE)
    here.takes(there.exported())
    assert here.exported() == lines


def test_the_same_once_more_changes_nothing(here: House, there: House) -> None:
    lines = here.exported()
    there.takes(lines)
    again = there.takes(lines)
    assert {**again.written, "directory_user": 0, "presence_user": 0} == dict.fromkeys(again.written, 0)
    assert there.exported() == lines


def test_an_export_of_one_tenant_has_nothing_of_another(here: House, there: House) -> None:
    lines = here.exported(OTHER_TENANT)
    assert lines[0]["tenant"] == OTHER_TENANT
    assert [list(line) for line in lines[1:]] == [["presence_session"], ["presence_event"], ["rows"]]
    there.takes(lines)
    assert (there.shows(ADELE, OTHER_TENANT), there.shows(ALEX)) == (AWAY, ("Offline", "Offline"))


def test_what_the_store_has_learned_since_the_export_stays(here: House, there: House) -> None:
    lines = here.exported()
    there.takes(lines)
    there.clock.move(minutes=1)
    there.clears(ALEX, BOT)
    there.sets(ADELE, PHONE, PRESENTING)
    as_adele = SessionKey(TENANT, ADELE, BOT)
    there.presence.stop_preferring(as_adele, new_id())
    there.presence.say(as_adele, "Gone", None, new_id())
    there.presence.stop_locating(as_adele, LOCATIONS, new_id())
    newer = there.exported()
    there.takes(lines)
    assert there.exported()[1:] == newer[1:]


def test_a_keep_alive_since_the_export_stays(here: House, there: House) -> None:
    lines = here.exported()
    there.takes(lines)
    there.clock.move(minutes=1)
    there.sets(ALEX, BOT, PRESENTING, 2 * HOUR)  # no event
    there.takes(lines)
    (session,) = there.presence._store.read_user(TENANT, ALEX).sessions
    assert session.expires_at == there.clock.now + 2 * HOUR


def test_a_later_export_brings_what_has_changed(here: House, there: House) -> None:
    there.takes(here.exported())
    here.clock.move(minutes=1)
    here.sets(ALEX, BOT, AWAY)
    as_adele = SessionKey(TENANT, ADELE, BOT)
    here.presence.prefer(as_adele, AWAY, HOUR, new_id())
    here.sets(ADELE, BOT, AVAILABLE, 2 * HOUR)
    lines = here.exported()
    there.takes(lines)
    assert there.exported()[1:] == lines[1:]


def test_what_an_export_does_not_name_stays(here: House, there: House) -> None:
    user = new_id()
    there.sets(user, BOT, PRESENTING)
    there.presence.prefer(SessionKey(TENANT, ALEX, BOT), AWAY, HOUR, new_id())
    there.clock.move(minutes=1)
    there.takes(here.exported())
    assert (there.shows(user), there.shows(ALEX)) == (PRESENTING, AWAY)


def test_an_import_that_was_cut_short_says_so_and_is_completed_by_another(
    here: House, there: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "WRITTEN_AT_ONCE", 3)
    lines = here.exported()
    with pytest.raises(NoExport, match="line 11: the file ends too early"):
        there.takes(lines[:10])
    assert len(there.exported()) == 11
    there.takes(lines)
    assert there.exported() == lines


def test_rows_come_page_by_page(here: House, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = here.exported()
    for size in (1, 2, 4):
        monkeypatch.setattr(rows_of, "READ_AT_ONCE", size)
        assert here.exported() == whole


def test_an_export_is_of_one_moment(here: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_of, "READ_AT_ONCE", 1)
    whole = here.exported()
    running = here.service.export(None)
    began = [next(running), next(running)]
    here.sets(new_id(), BOT, AWAY)
    assert [through_a_file(line) for line in [*began, *running]] == whole
    assert len(here.exported()) == len(whole) + 2


def test_the_events_keep_their_order(here: House, there: House) -> None:
    there.takes(here.exported())
    order = select(PresenceEvent.kind, PresenceEvent.user_id, PresenceEvent.at).order_by(PresenceEvent.id)
    with here.engine.connect() as one, there.engine.connect() as other:
        assert one.execute(order).all() == other.execute(order).all()


SESSION = {
    "tenant_id": TENANT,
    "user_id": ADELE,
    "session_id": BOT,
    "availability": "Away",
    "activity": "Away",
    "changed_at": "2026-03-02T08:00:00Z",
    "set_at": "2026-03-02T08:00:00Z",
    "expires_at": "2026-03-02T09:00:00Z",
}
HEAD = {"format": "graph-presence", "version": 1, "at": "2026-03-02T08:00:00Z", "tenant": None}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], 'line 1: should begin with {"format": "graph-presence", "version": 1, ...}'),
        ([None], "line 1: should begin"),
        ([{**HEAD, "version": 2}], "line 1: should begin"),
        ([{**HEAD, "at": "today"}], "line 1: \"at\" should be a moment, not 'today'"),
        ([{**HEAD, "at": "2026-03-02T08:00:00"}], 'line 1: "at" should be a moment'),
        ([{**HEAD, "at": None}], 'line 1: "at" should be a moment'),
        ([HEAD], "line 2: the file ends too early"),
        ([HEAD, None], "line 2: should be an object with the name of one table"),
        ([HEAD, {"presence_now": {}}], "line 2: 'presence_now' is no table with a row"),
        ([HEAD, {"presence_session": []}], "line 2: 'presence_session' is no table with a row"),
        ([HEAD, {"presence_session": {}}], "line 2: presence_session has other columns: activity, availability"),
        ([HEAD, {"rows": 1}], "line 2: 0 rows came before it, not 1"),
        ([HEAD, {"rows": 0}, {"rows": 0}], "line 3: nothing should follow the number of rows"),
        *(
            (
                [HEAD, {"presence_session": {**SESSION, column: value}}],
                f"line 2: presence_session.{column} cannot be {value!r}",
            )
            for column, value in (
                ("user_id", "adele"),
                ("user_id", None),
                ("activity", "Sleeping"),
                ("availability", 1),
                ("expires_at", "soon"),
                ("expires_at", "2026-03-02T09:00:00"),
            )
        ),
    ],
)
def test_what_is_no_export_is_refused_with_its_line(there: House, lines: list[Any], said: str) -> None:
    with pytest.raises(NoExport) as refused:
        there.takes(lines)
    assert str(refused.value).startswith(said)
    assert len(there.exported()) == 2


def test_a_text_no_database_takes_is_refused(there: House) -> None:
    row = {"tenant_id": TENANT, "user_id": ADELE, "user_principal_name": "a@b", "user_principal_name_lower": "a@b"}
    with pytest.raises(NoExport, match=r"line 2: directory_user\.display_name cannot be"):
        there.takes([HEAD, {"directory_user": {**row, "display_name": "\x00"}}, {"rows": 1}])
