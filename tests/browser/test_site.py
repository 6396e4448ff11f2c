"""The admin site as people use it: in Chromium, by mouse and by keyboard, on a desk and on a phone."""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from app.domain.values import AVAILABLE
from tests.browser.conftest import ADELE, BOT, DESK, PBX, TENANT, Office, sign_in, user_id
from tests.builders import ADMIN

PICTURES = os.environ.get("PICTURES")
ADELES_PAGE = f"/admin/users/{TENANT}/{ADELE}"
PAGES = {
    "sign-in": "/admin/sign-in",
    "overview": "/admin",
    "users": "/admin/users",
    "found": "/admin/users?q=adele",
    "sessions": "/admin/sessions",
    "changes": "/admin/changes",
    "user": ADELES_PAGE,
    "end": f"{ADELES_PAGE}/sessions/{DESK}/end",
    "error": "/admin/users?tenant=x",
}
PICTURED = {
    *((name, "desk-light") for name in PAGES),
    ("user", "desk-dark"),
    ("overview", "phone-dark"),
    ("user", "phone-light"),
}
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 740}


def test_who_signs_in_sees_the_overview_and_who_signs_out_no_more(page: Page) -> None:
    sign_in(page)
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("Changes in each minute"))).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto(ADELES_PAGE)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_user_is_searched_for_and_explained(olga: Page) -> None:
    olga.get_by_role("searchbox").fill("ADELE")
    olga.get_by_role("searchbox").press("Enter")
    olga.get_by_role("link", name="Adele Vance").click()
    expect(olga.get_by_role("heading", name="Adele Vance")).to_be_visible()
    why = olga.get_by_role("region", name="Why")
    expect(why).to_contain_text("Adele Vance shows Busy/InACall")
    expect(why).to_contain_text("of 2 live sessions the most significant counts, and Busy goes before Available")
    picture = olga.get_by_role("img", name=re.compile("What Adele Vance showed"))
    expect(picture).to_be_visible()
    for app in (PBX, DESK, BOT):
        expect(picture.get_by_text(f"App {app}")).to_be_visible()
    now = picture.locator(".now").bounding_box()
    started = picture.locator("rect.busy").last.bounding_box()
    assert now
    assert started
    assert 0 < started["x"] < now["x"] + 3, "it begins before now, or what is to come does at the line"


def test_a_list_is_narrowed_by_presence_and_by_app(olga: Page) -> None:
    olga.goto("/admin/users")
    olga.get_by_label("Shows").select_option("DoNotDisturb")
    olga.get_by_role("button", name="Filter").click()
    shown = olga.locator('td[data-is="Presence"]')
    assert shown.count() > 0
    assert {text.split()[0] for text in shown.all_inner_texts()} == {"DoNotDisturb"}
    olga.goto(f"/admin/sessions?app={DESK}")
    assert set(olga.locator('td[data-is="App"]').all_inner_texts()) == {DESK}


def test_a_session_is_ended_by_keyboard_alone(olga: Page, office: Office) -> None:
    office.shows(user_id(20), BOT, AVAILABLE, "PT1H")
    olga.goto(f"/admin/users/{TENANT}/{user_id(20)}")
    olga.get_by_role("link", name=f"End the session of app {BOT}").focus()
    olga.keyboard.press("Enter")
    expect(olga.get_by_role("heading", name="End this session?")).to_be_visible()
    olga.get_by_role("button", name="End the session").focus()
    olga.keyboard.press("Enter")
    expect(olga.get_by_role("status")).to_contain_text("has ended")
    expect(olga.get_by_role("region", name="History")).to_contain_text(f"admin:{ADMIN} ended the session of app {BOT}")
    expect(olga.get_by_role("region", name="Why")).to_contain_text("shows Offline/Offline")


def test_the_first_tab_leads_past_the_navigation(olga: Page) -> None:
    olga.goto("/admin/users")
    olga.keyboard.press("Tab")
    expect(olga.get_by_role("link", name="Skip to the content")).to_be_focused()
    olga.keyboard.press("Enter")
    olga.keyboard.press("Tab")
    expect(olga.get_by_role("link", name="Export CSV")).to_be_focused()


def test_a_list_is_exported(olga: Page, tmp_path: Path) -> None:
    olga.goto("/admin/users?availability=Busy")
    with olga.expect_download() as download:
        olga.get_by_role("link", name="Export CSV").click()
    file = tmp_path / "users.csv"
    download.value.save_as(file)
    with file.open() as opened:
        rows = list(csv.DictReader(opened))
    assert rows
    assert {row["availability"] for row in rows} == {"Busy"}


def test_changes_appear_by_themselves_until_they_are_paused(olga: Page, office: Office) -> None:
    olga.clock.install()
    olga.goto("/admin/changes")
    first = olga.locator('td[data-is="By"]').first
    office.shows(user_id(21), BOT, AVAILABLE, "PT1H")
    olga.clock.run_for(5_500)
    expect(first).to_contain_text(BOT)
    olga.get_by_role("button", name="Pause").click()
    office.shows(user_id(21), PBX, AVAILABLE, "PT1H")
    olga.clock.run_for(11_000)
    expect(first).to_contain_text(BOT)
    olga.get_by_role("button", name="Go on").click()
    olga.clock.run_for(5_500)
    expect(first).to_contain_text(PBX)


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["desk", "phone"])
def seen(chromium: Browser, office: Office, scheme: str, request: pytest.FixtureRequest) -> Iterator[tuple[Page, str]]:
    """A page in one colour scheme, of one width, and what to call that."""
    context = chromium.new_context(
        base_url=office.base,
        color_scheme=scheme,
        viewport=DESKTOP if request.param == "desk" else PHONE,
        device_scale_factor=1 if request.param == "desk" else 2,
    )
    yield context.new_page(), f"{request.param}-{scheme}"
    context.close()


def test_every_page_is_accessible_and_fits(seen: tuple[Page, str]) -> None:
    page, how = seen
    for name, path in PAGES.items():
        if name == "overview":
            sign_in(page)
        page.goto(path)
        found = Axe().run(page).response["violations"]
        grave = [
            (fault["id"], node["html"], node["failureSummary"])
            for fault in found
            if fault["impact"] in {"serious", "critical"}
            for node in fault["nodes"]
        ]
        assert grave == [], f"{name}, {how}"
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= page.viewport_size["width"], f"{name}, {how} scrolls sideways"
        if PICTURES and (name, how) in PICTURED:
            page.screenshot(path=f"{PICTURES}/admin-{name}-{how}.png")
