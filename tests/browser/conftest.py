"""A server as it is started, with a busy directory, and Chromium in light and dark, on a desk and on a phone."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from alembic import command
from playwright.sync_api import APIRequestContext, Browser, Page, Playwright, sync_playwright
from sqlalchemy import make_url
from werkzeug.security import generate_password_hash

from app.db.directory import DirectoryStore
from app.db.engine import make_engine
from app.domain.directory import User
from app.domain.values import AVAILABLE, AWAY, IN_A_CALL, IN_A_CONFERENCE_CALL, PRESENTING, Shown
from tests.builders import ADMIN, ADMIN_PASSWORD
from tests.conftest import alembic_config
from tests.servers import gunicorn

CHROMIUM = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
TENANT = "8fe37d9e-6d4d-4a0c-b4e8-9fb5a6d7e2a1"
PBX, DESK, BOT = (f"{n}2553876-f5ab-4529-bffb-cfe50aa89f87" for n in "234")
ADELE = "fa8bf3dc-eca7-46b7-bad1-db199b62afc3"
NAMES = (
    "Adele Vance", "Alex Wilber", "Diego Siciliani", "Grady Archie", "Henrietta Mueller", "Isaiah Langer",
    "Johanna Lorenz", "Joni Sherman", "Lee Gu", "Lidia Holloway", "Lynne Robbins", "Megan Bowen", "Miriam Graham",
    "Nestor Wilke", "Patti Fernandez", "Pradeep Gupta",
)  # fmt: skip


class Office:
    """Applications that call the server, and its clock."""

    def __init__(self, base: str, http: APIRequestContext) -> None:
        self.base = base
        self._http = http

    def shows(self, user: str, app: str, shown: Shown, duration: str) -> None:
        body = {"sessionId": app, **shown._asdict(), "expirationDuration": duration}
        self.posts(app, f"/v1.0/users/{user}/presence/setPresence", body)

    def clears(self, user: str, app: str) -> None:
        self.posts(app, f"/v1.0/users/{user}/presence/clearPresence", {"sessionId": app})

    def posts(self, app: str, path: str, body: object) -> None:
        """Post as an application, with a token that holds at the server's time of day."""
        form = {"client_id": app, "client_secret": "x", "grant_type": "client_credentials", "scope": "x/.default"}
        token = self._http.post(f"{self.base}/{TENANT}/oauth2/v2.0/token", form=form).json()["access_token"]
        self._send(path, body, {"Authorization": f"Bearer {token}"})

    def sets_clock(self, now: datetime) -> None:
        """Let it be a moment, and stay it."""
        self._send("/emulator/clock", {"now": now.isoformat(), "frozen": True})

    def _send(self, path: str, body: object, headers: dict[str, str] | None = None) -> None:
        answer = self._http.post(self.base + path, data=body, headers=headers)
        assert answer.status == 200, answer.text()


@pytest.fixture(scope="session")
def office(driver: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """A server, where an hour and a half of a Monday morning has passed."""
    folder = tmp_path_factory.mktemp("server")
    url = f"sqlite:///{folder}/presence.sqlite3"
    command.upgrade(alembic_config(make_url(url)), "head")
    engine = make_engine(make_url(url), pool=1, timeout=timedelta(seconds=5))
    users = [User(user_id(n), f"{name.replace(' ', '.').lower()}@contoso.com", name) for n, name in enumerate(NAMES)]
    DirectoryStore(engine).put(TENANT, users)
    engine.dispose()
    environment = {
        "PRESENCE_ENV": "development",
        "DATABASE_URL": url,
        "INSTANCE_PATH": str(folder),
        "ADMIN_USERS": f"{ADMIN}:{generate_password_hash(ADMIN_PASSWORD)}",
        "ADMIN_SECRET_KEY": "k" * 32,
        "LOG_LEVEL": "WARNING",
        "WEB_CONCURRENCY": "2",
    }
    with gunicorn(**environment) as server:
        office = Office(server.base, driver.request.new_context())
        live_through_a_morning(office)
        yield office


def user_id(number: int) -> str:
    return ADELE if number == 0 else f"{number:08x}-eca7-46b7-bad1-db199b62afc3"


def live_through_a_morning(office: Office) -> None:
    start = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
    shown = (AVAILABLE, IN_A_CALL, AVAILABLE, AWAY, PRESENTING, IN_A_CONFERENCE_CALL)
    plan: list[tuple[float, Callable[[], None]]] = []
    for n in range(1, len(NAMES)):
        user, lasting = user_id(n), "PT4H" if n % 3 else "PT45M"
        plan.append((3 * n, partial(office.shows, user, PBX, shown[n % 6], lasting)))
        if n % 2:
            plan.append((4 * n + 7, partial(office.shows, user, DESK, shown[(n + 1) % 6], "PT1H")))
        if n % 5 == 0:
            plan.append((70, partial(office.clears, user, PBX)))
    plan += [
        (5, partial(office.shows, ADELE, DESK, AVAILABLE, "PT30M")),
        (23, partial(office.shows, ADELE, PBX, IN_A_CALL, "PT1H")),
        (34, partial(office.clears, ADELE, PBX)),
        (41, partial(office.shows, ADELE, DESK, AVAILABLE, "PT1H")),
        (58, partial(office.shows, ADELE, BOT, PRESENTING, "PT15M")),
        (70, partial(office.shows, ADELE, PBX, IN_A_CALL, "PT2H")),
        (78, partial(office.clears, ADELE, PBX)),
        (82, partial(office.shows, ADELE, PBX, IN_A_CALL, "PT30M")),
        (84, partial(office.shows, ADELE, DESK, AVAILABLE, "PT40M")),
    ]
    for minute, happens in sorted(plan, key=lambda each: each[0]):
        office.sets_clock(start + timedelta(minutes=minute))
        happens()
    message = {"message": {"content": "In the lab until noon", "contentType": "text"}}
    office.posts(PBX, f"/v1.0/users/{ADELE}/presence/setStatusMessage", {"statusMessage": message})
    office.sets_clock(start + timedelta(minutes=90))


@pytest.fixture(scope="session")
def driver() -> Iterator[Playwright]:
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def chromium(driver: Playwright) -> Iterator[Browser]:
    found = shutil.which("chromium") or pytest.fail("Chromium is missing: apt-get install chromium")
    browser = driver.chromium.launch(executable_path=found, args=CHROMIUM)
    yield browser
    browser.close()


@pytest.fixture
def page(chromium: Browser, office: Office) -> Iterator[Page]:
    """Somebody at a desk who has not signed in; what the browser complains of fails the test."""
    context = chromium.new_context(base_url=office.base, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    context.close()
    assert said == []


@pytest.fixture
def olga(page: Page) -> Page:
    """Somebody who has."""
    sign_in(page)
    return page


def sign_in(page: Page) -> None:
    page.goto("/admin")
    page.get_by_label("Name", exact=True).fill(ADMIN)
    page.get_by_label("Password").fill(ADMIN_PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/admin")
