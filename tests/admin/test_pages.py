"""What the lists and the overview show, and how they are narrowed, searched, turned over and exported."""

import csv
import io
import re

import pytest
from flask import Flask

from app.db.directory import DirectoryStore
from app.domain.directory import User
from app.domain.values import AVAILABLE, AWAY, IN_A_CALL, PRESENTING, derived_user_id
from app.services import browsing
from tests.admin.conftest import Browser
from tests.builders import Application, Clock, Graph, new_id

ADELE, ALEX = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"


@pytest.fixture
def named(admin_app: Flask, graph: Graph) -> None:
    """A directory that knows Adele and Alex."""
    DirectoryStore(admin_app.extensions["engine"]).put(
        graph.tenant_id, [User(ADELE, "Adele@contoso.com", "Adele Vance"), User(ALEX, "alex@contoso.com", "Alex")]
    )


def rows_of(olga: Browser, path: str) -> list[dict[str, str]]:
    answer = olga.get(path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    return list(csv.DictReader(io.StringIO(answer.text)))


def users_on(olga: Browser, path: str) -> list[str]:
    text = olga.get(path).text
    return re.findall(r'<td data-is="User"><a class="who" href="/admin/users/[^/]+/([^"]+)"', text)


# Users


def test_a_user_is_listed_with_name_and_presence(
    olga: Browser, graph: Graph, bot: Application, desk: Application, named: None
) -> None:
    graph.shows(ADELE, bot, IN_A_CALL)
    graph.shows(ADELE, desk, AVAILABLE)
    stranger = new_id()
    graph.shows(stranger, bot, AWAY)
    page = olga.page("/users")
    assert f"Adele Vance Adele@contoso.com Busy InACall 2 {graph.tenant_id}" in page
    assert f"{stranger} Away 1 {graph.tenant_id}" in page
    assert "Alex" not in page, "of Alex no presence is stored"
    assert "That is all." in page


def test_a_preference_is_told_only_while_it_shows(olga: Browser, graph: Graph, bot: Application, clock: Clock) -> None:
    wish = {"availability": "DoNotDisturb", "activity": "DoNotDisturb", "expirationDuration": "PT1H"}
    graph.post(bot, f"/users/{ADELE}/presence/setUserPreferredPresence", wish)
    assert f"{ADELE} Offline 0" in olga.page("/users")
    graph.shows(ADELE, bot, AVAILABLE, "PT4H")
    assert f"{ADELE} DoNotDisturb preferred 1" in olga.page("/users")
    clock.move(minutes=60)
    olga.signs_in()
    assert f"{ADELE} Away 1" in olga.page("/users")


def test_the_list_is_narrowed_to_what_shows_now(
    olga: Browser, graph: Graph, bot: Application, desk: Application, clock: Clock
) -> None:
    graph.shows(ADELE, bot, AVAILABLE)
    graph.shows(ALEX, desk, PRESENTING, "PT5M")
    assert users_on(olga, "/users?availability=Available") == [ADELE]
    assert users_on(olga, "/users?availability=DoNotDisturb") == [ALEX]
    assert users_on(olga, f"/users?app={desk.app_id.upper()}") == [ALEX]
    assert users_on(olga, f"/users?app={bot.app_id}&availability=Busy") == []
    assert users_on(olga, f"/users?tenant={graph.tenant_id}") == [ADELE, ALEX]
    assert users_on(olga, f"/users?tenant={new_id()}") == []
    clock.move(minutes=10)
    assert users_on(olga, "/users?availability=Away") == [ADELE]
    assert users_on(olga, "/users?availability=Offline") == [ALEX]
    assert users_on(olga, f"/users?app={desk.app_id}") == [], "its session has ended"


@pytest.mark.parametrize("query", ["availability=Asleep", "tenant=x", "app=x", "after=x", "after=x/y"])
def test_what_makes_no_sense_is_said(olga: Browser, query: str) -> None:
    assert olga.get(f"/users?{query}").status_code == 400


def test_every_user_is_on_exactly_one_page(
    olga: Browser, graph: Graph, bot: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing.BrowsingService.users, "__defaults__", (browsing.FIRST, 3))
    other = Graph(graph.client, graph.clock)
    users = sorted(new_id() for _ in range(5))
    expected = []
    for each in sorted((graph, other), key=lambda each: each.tenant_id):
        app = each.app()
        for user in users:
            each.shows(user, app, AVAILABLE)
        expected += users
    for query in ("", "?availability=Available"):
        seen, path = [], f"/users{query}"
        for _ in range(10):
            text = olga.get(path).text
            seen += users_on(olga, path)
            later = re.search(r'href="/admin([^"]+)" rel="next"', text)
            if not later:
                break
            path = later[1].replace("&amp;", "&")
        assert seen == expected


def test_a_page_looks_at_so_many_users_and_no_more(
    olga: Browser, graph: Graph, bot: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "LOOKED_AT", 4)
    monkeypatch.setattr(browsing, "AT_ONCE", 2)
    monkeypatch.setattr(browsing.BrowsingService.users, "__defaults__", (browsing.FIRST, 2))
    users = sorted(new_id() for _ in range(5))
    for user in users[:4]:
        graph.shows(user, bot, AVAILABLE)
    graph.shows(users[4], bot, IN_A_CALL)
    page = olga.get("/users?availability=Busy").text
    assert "Looked at 4 users so far." in page
    (later,) = re.findall(r'href="/admin([^"]+)" rel="next"', page)
    assert users_on(olga, later.replace("&amp;", "&")) == users[4:]


# Search


def test_a_user_is_found_by_id_in_every_tenant(olga: Browser, graph: Graph, bot: Application) -> None:
    other = Graph(graph.client, graph.clock)
    graph.shows(ADELE, bot, AVAILABLE)
    other.shows(ADELE, other.app(), IN_A_CALL)
    page = olga.page(f"/users?q=%20{ADELE.upper()}%20")
    assert f"Available 1 {graph.tenant_id}" in page
    assert f"Busy InACall 1 {other.tenant_id}" in page
    assert users_on(olga, f"/users?q={ADELE}&tenant={other.tenant_id}") == [ADELE]
    assert "Nobody" in olga.page(f"/users?q={new_id()}")


def test_a_user_of_whom_only_the_history_or_the_directory_knows_is_found(
    olga: Browser, graph: Graph, bot: Application, named: None
) -> None:
    gone = new_id()
    graph.shows(gone, bot, AVAILABLE)
    graph.clears(gone, bot)
    assert users_on(olga, f"/users?q={gone}") == [gone]
    assert users_on(olga, f"/users?q={ALEX}") == [ALEX]


@pytest.mark.parametrize(
    ("text", "found"),
    [("adele@contoso.com", [ADELE]), ("ADEL", [ADELE]), ("a", [ADELE, ALEX]), ("dele", []), ("_", []), ("%", [])],
)
def test_a_user_is_found_by_how_a_name_begins(olga: Browser, named: None, text: str, found: list[str]) -> None:
    assert users_on(olga, f"/users?q={text}") == found


def test_a_name_that_only_an_id_was_derived_from_is_found(olga: Browser, graph: Graph, bot: Application) -> None:
    user = derived_user_id(graph.tenant_id, "eve@contoso.com")
    graph.shows(user, bot, AVAILABLE)
    assert users_on(olga, "/users?q=Eve@contoso.com") == [user]


# Sessions


def test_sessions_are_listed_as_they_show_now(
    olga: Browser, graph: Graph, bot: Application, desk: Application, clock: Clock
) -> None:
    graph.shows(ADELE, bot, AVAILABLE)
    graph.shows(ADELE, desk, IN_A_CALL, "PT5M")
    clock.move(minutes=4)
    page = olga.page("/sessions")
    assert f"{ADELE} Available {bot.app_id} 08:00:00 09:00:00 in 56 min" in page
    assert f"{ADELE} Busy InACall {desk.app_id} 08:00:00 08:05:00 in 1 min" in page
    clock.move(minutes=1)
    page = olga.page("/sessions")
    assert f"Available AvailableInactive faded {bot.app_id}" in page
    assert desk.app_id not in page
    assert bot.app_id not in olga.page(f"/sessions?tenant={new_id()}")
    assert users_on(olga, f"/sessions?app={bot.app_id}") == [ADELE]
    assert users_on(olga, f"/sessions?app={desk.app_id}") == []


def test_every_session_is_on_exactly_one_page(
    olga: Browser, graph: Graph, bot: Application, desk: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing.BrowsingService.sessions, "__defaults__", (None, 3))
    users = sorted(new_id() for _ in range(4))
    for user in users:
        graph.shows(user, bot, AVAILABLE)
        graph.shows(user, desk, AVAILABLE)
    seen, path = [], "/sessions"
    for _ in range(3):
        text = olga.get(path).text
        seen += users_on(olga, path)
        if later := re.search(r'href="/admin([^"]+)" rel="next"', text):
            path = later[1]
    assert seen == [user for user in users for _ in range(2)]


# Changes


def test_changes_are_told_the_newest_first(
    olga: Browser, graph: Graph, bot: Application, desk: Application, clock: Clock, named: None
) -> None:
    graph.shows(ADELE, bot, IN_A_CALL)
    clock.move(minutes=1)
    graph.clears(ADELE, bot)
    graph.shows(ALEX, desk, AVAILABLE)
    page = olga.page("/changes")
    told = [
        f"08:01:00 set Available Alex alex@contoso.com {desk.app_id}",
        f"08:01:00 cleared Busy InACall Adele Vance Adele@contoso.com {bot.app_id}",
        f"08:00:00 set Busy InACall Adele Vance Adele@contoso.com {bot.app_id}",
    ]
    assert " ".join(told) in page
    assert users_on(olga, f"/changes?app={desk.app_id}") == [ALEX]
    assert users_on(olga, f"/changes?user={ADELE}") == [ADELE, ADELE]
    assert users_on(olga, f"/changes?user={ADELE}&tenant={graph.tenant_id}") == [ADELE, ADELE]
    assert users_on(olga, f"/changes?tenant={new_id()}") == []


def test_the_changes_go_on_to_the_first_one(
    olga: Browser, graph: Graph, bot: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing.BrowsingService.changes, "__defaults__", (None, 2))
    monkeypatch.setattr("app.db.browsing.WINDOW", 3)
    users = [new_id() for _ in range(7)]
    for user in users:
        graph.shows(user, bot, AVAILABLE)
    for query in ("", f"?tenant={graph.tenant_id}", f"?app={bot.app_id}"):
        seen, path = [], f"/changes{query}"
        while path:
            text = olga.get(path).text
            seen += users_on(olga, path)
            later = re.search(r'href="/admin([^"]+)" rel="next"', text)
            path = later[1].replace("&amp;", "&") if later else ""
            assert ("data-live" in text) == (len(seen) <= 2)
        assert seen == users[::-1]
    assert olga.get("/changes?before=x").status_code == 400


# Overview


def test_the_overview_adds_it_all_up(
    olga: Browser, graph: Graph, bot: Application, desk: Application, clock: Clock, named: None
) -> None:
    graph.shows(ADELE, bot, AVAILABLE, "PT4H")
    graph.shows(ADELE, desk, IN_A_CALL, "PT10M")
    graph.shows(ALEX, desk, AWAY, "PT5M")
    clock.move(minutes=1)
    page = olga.page()
    assert "Users with a live session 2 Live sessions 3 Apps with live sessions 2" in page
    assert "Changes in the last 60 full minutes 3" in page
    assert "Available 0 Busy 1 DoNotDisturb 0 BeRightBack 0 Away 1 Live sessions by app" in page
    assert f"{desk.app_id} 2 {bot.app_id} 1" in page
    assert "within 1 min 0 in 1 min to 5 min 1 in 5 min to 15 min 1 in 15 min to 1 h 0 in 1 h to 4 h 1" in page
    first = page.index("Ending soonest")
    assert re.findall(r"in \d+ (?:min|h)(?: \d+ min)?(?! to)", page[first:]) == [
        "in 4 min",
        "in 9 min",
        "in 3 h 59 min",
    ]
    assert 'aria-label="Changes in each minute of the last hour: 3 in all, 3 at most in one minute."' in olga.get().text


def test_of_many_sessions_the_overview_tells_an_estimate(
    olga: Browser, graph: Graph, bot: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.db.inspection.MOST_SAMPLED", 5)
    for _ in range(12):
        graph.shows(new_id(), bot, AVAILABLE)
    page = olga.page()
    assert "drawn at random" in page
    assert re.search(r"Live sessions ≈ \d+", page)


# Export


def test_each_list_is_exported_with_its_filter(
    olga: Browser, graph: Graph, bot: Application, desk: Application, named: None
) -> None:
    graph.shows(ADELE, bot, AVAILABLE)
    graph.shows(ALEX, desk, IN_A_CALL)
    message = {"statusMessage": {"message": {"content": '=1+1, "x"\nsecond', "contentType": "text"}}}
    assert graph.post(bot, f"/users/{ADELE}/presence/setStatusMessage", message).status_code == 200
    users = rows_of(olga, "/users.csv")
    assert [row["user_id"] for row in users] == [ADELE, ALEX]
    assert users[0] == {
        "tenant_id": graph.tenant_id, "user_id": ADELE, "user_principal_name": "Adele@contoso.com",
        "display_name": "Adele Vance", "availability": "Available", "activity": "Available", "live_sessions": "1",
        "preferred": "", "status_message": "'=1+1, \"x\"\nsecond", "work_location": "",
    }  # fmt: skip
    assert [row["user_id"] for row in rows_of(olga, "/users.csv?availability=Busy")] == [ALEX]
    (session,) = rows_of(olga, f"/sessions.csv?app={desk.app_id}")
    assert (session["user_id"], session["set_to"], session["expires_at"]) == (
        ALEX, "Busy/InACall", "2026-03-02T09:00:00+00:00",
    )  # fmt: skip
    changes = rows_of(olga, f"/changes.csv?user={ADELE}&tenant={graph.tenant_id}")
    assert [(row["kind"], row["app_id"]) for row in changes] == [("messageSet", bot.app_id), ("set", bot.app_id)]
    assert olga.get("/users.csv").headers["Content-Disposition"] == "attachment; filename=users-20260302-080000.csv"


@pytest.mark.parametrize("path", ["/users.csv", "/sessions.csv", "/changes.csv"])
def test_an_export_reads_part_by_part_and_ends_at_its_limit(
    olga: Browser, graph: Graph, bot: Application, monkeypatch: pytest.MonkeyPatch, path: str, statements: list[str]
) -> None:
    monkeypatch.setattr(browsing, "AT_ONCE", 2)
    for _ in range(6):
        graph.shows(new_id(), bot, AVAILABLE)
    assert len({row["user_id"] for row in rows_of(olga, path)}) == 6
    monkeypatch.setattr(browsing, "EXPORTED", 3)
    statements.clear()
    assert len(rows_of(olga, path)) == 3
    assert len(statements) <= 6, "what is not exported is not read"


def test_what_applications_say_is_text_and_no_markup(
    olga: Browser, admin_app: Flask, graph: Graph, bot: Application
) -> None:
    evil = "<script>alert(1)</script>\"'"
    store = DirectoryStore(admin_app.extensions["engine"])
    store.put(graph.tenant_id, [User(ADELE, "<b>@contoso.com", evil)])
    graph.shows(ADELE, bot, AVAILABLE)
    message = {"statusMessage": {"message": {"content": evil, "contentType": "text"}}}
    graph.post(bot, f"/users/{ADELE}/presence/setStatusMessage", message)
    for path in ("", "/users", "/sessions", "/changes", "/users?q=%3Cb%3E", "/users?q=%22%3E%3Cscript%3E"):
        text = olga.get(path).text
        assert "<script>" not in text
        assert "<b>@" not in text
        assert path.endswith("script%3E") or "&lt;script&gt;alert(1)" in text


@pytest.mark.parametrize("text", ["%00", "adele%00", "adele%0A", "%C4%B0", "%FF", "%25", "%27"])
def test_a_search_for_what_begins_no_name_finds_nobody(olga: Browser, text: str) -> None:
    assert "adele@contoso.com" not in olga.page(f"/users?q={text}")
