"""One user: why they show what they show, the picture, and ending a session."""

import re
from collections.abc import Callable

import pytest
from flask import Flask

from app.domain.explain_text import text_of
from app.domain.values import AVAILABLE, IN_A_CALL
from tests.admin.conftest import Browser, words
from tests.builders import ADMIN, Application, Clock, Graph, assert_error


@pytest.fixture
def page_of(graph: Graph) -> Callable[[str], str]:
    return lambda user: f"/users/{graph.tenant_id}/{user}"


PageOf = Callable[[str], str]


def test_the_page_says_why_in_the_words_of_the_command_line(
    olga: Browser, admin_app: Flask, graph: Graph, alice: str, bot: Application, clock: Clock, page_of: PageOf
) -> None:
    graph.shows(alice, bot, AVAILABLE)
    clock.move(minutes=7)
    page = olga.page(page_of(alice))
    explanation = admin_app.extensions["inspection"].explain(graph.tenant_id, alice)
    for line in text_of(explanation._replace(history=()), alice).splitlines():
        assert line.strip() in page
    assert f"08:00:00 app {bot.app_id} set its session to Available/Available" in page


def test_the_picture_has_each_session_with_its_fading_and_the_presence(
    olga: Browser, graph: Graph, alice: str, bot: Application, desk: Application, clock: Clock, page_of: PageOf
) -> None:
    graph.shows(alice, desk, IN_A_CALL, "PT10M")
    clock.move(minutes=5)
    graph.clears(alice, desk)
    graph.shows(alice, bot, AVAILABLE, "PT30M")
    clock.move(minutes=5)
    text = olga.get(page_of(alice)).text
    told = re.findall(r'class="piece ([a-z -]+)" x="([\d.]+)%"[^>]*><title>([^<]+)</title>', text)
    presence = [
        ("offline", "Offline/Offline, 04:10:00 to 08:00:00"),
        ("busy", "Busy/InACall, 08:00:00 to 08:05:00"),
        ("available", "Available/Available, 08:05:00 to 08:10:00"),
        ("available inactive to-come", "Available/AvailableInactive, 08:10:00 to 08:15:00"),
        ("away to-come", "Away/Away, 08:15:00 to 08:35:00"),
        ("offline to-come", "Offline/Offline, 08:35:00 to 09:10:00"),
    ]
    sessions = [presence[1], *presence[2:5]]
    assert [(kind, title) for kind, _, title in told] == presence + sessions
    assert [float(x) for _, x, _ in told[:3]] == pytest.approx([0, 100 * 230 / 300, 100 * 235 / 300], abs=0.01)
    assert "Offline/Offline, 07:10:00 to" in olga.get(f"{page_of(alice)}?hours=1").text
    assert olga.get(f"{page_of(alice)}?hours=5").status_code == 400


def test_the_picture_begins_where_what_was_read_of_the_history_does(
    olga: Browser,
    graph: Graph,
    alice: str,
    bot: Application,
    clock: Clock,
    page_of: PageOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.services.browsing.HISTORY", 3)
    for _ in range(3):
        graph.shows(alice, bot, IN_A_CALL)
        graph.clears(alice, bot)
        clock.move(minutes=100)
    olga.signs_in()
    (told,) = re.findall("showed (from .*?);", olga.get(page_of(alice)).text)
    assert told.startswith("from 09:40:00 on")


def test_a_user_of_whom_nothing_is_known_is_offline(olga: Browser, alice: str, page_of: PageOf) -> None:
    page = olga.page(page_of(alice))
    assert f"{alice} shows Offline/Offline" in page
    assert "Sessions None. History" in page
    assert olga.get("/users/x/y").status_code == 400


def test_a_session_is_ended_once_it_is_confirmed_and_the_history_tells_who_did_it(
    olga: Browser, graph: Graph, alice: str, bot: Application, desk: Application, page_of: PageOf
) -> None:
    graph.shows(alice, bot, AVAILABLE)
    graph.shows(alice, desk, IN_A_CALL)
    (ask,) = re.findall(rf'href="/admin(/users/[^"]*{desk.app_id}/end)"', olga.get(page_of(alice)).text)
    assert "End this session?" in olga.page(ask)
    assert graph.presence_of(alice, bot) == IN_A_CALL, "to be asked ends nothing"
    answer = olga.send(ask, ask)
    assert answer.status_code == 303
    page = olga.page(answer.headers["Location"].removeprefix("/admin"))
    assert f"The session of app {desk.app_id} has ended." in page
    assert f"admin:{ADMIN} ended the session of app {desk.app_id}, which had been set to Busy/InACall" in page
    assert f"cleared Busy InACall {alice} admin:{ADMIN} in place of {desk.app_id}" in olga.page("/changes")
    assert graph.presence_of(alice, bot) == AVAILABLE
    assert_error(graph.clears(alice, desk), 404, "NotFound")
    assert "ended" not in olga.page("/changes?before=0")


def test_a_session_that_is_gone_is_said_to_be(
    olga: Browser, graph: Graph, alice: str, bot: Application, page_of: PageOf
) -> None:
    graph.shows(alice, bot, AVAILABLE)
    ask = f"{page_of(alice)}/sessions/{bot.app_id}/end"
    sent = olga.get(ask)
    graph.clears(alice, bot)
    assert olga.get(ask).status_code == 404
    answer = olga.client.post(f"/admin{ask}", data={"form_token": _token(sent.text)})
    assert (answer.status_code, "Presence session not found." in words(answer)) == (404, True)


@pytest.mark.parametrize("token", ["", "0" * 64, "another's"])
def test_without_a_form_of_his_own_nobody_ends_a_session(
    olga: Browser, admin_app: Flask, graph: Graph, alice: str, bot: Application, page_of: PageOf, token: str
) -> None:
    graph.shows(alice, bot, AVAILABLE)
    end = f"{page_of(alice)}/sessions/{bot.app_id}/end"
    if token == "another's":
        other = Browser(admin_app.test_client())
        other.signs_in()
        token = _token(other.get("/users").text)
    answer = olga.client.post(f"/admin{end}", data={"form_token": token})
    assert (answer.status_code, "Nothing was done" in words(answer)) == (400, True)
    stranger = Browser(admin_app.test_client())
    assert stranger.client.post(f"/admin{end}", data={"form_token": token}).status_code == 303
    assert graph.presence_of(alice, bot) == AVAILABLE


def test_what_users_say_is_text_on_their_page(
    olga: Browser, graph: Graph, alice: str, bot: Application, page_of: PageOf
) -> None:
    message = {"statusMessage": {"message": {"content": "<script>alert(1)</script>", "contentType": "text"}}}
    graph.post(bot, f"/users/{alice}/presence/setStatusMessage", message)
    text = olga.get(page_of(alice)).text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_no_page_but_the_one_that_ends_a_session_changes_anything(admin_app: Flask) -> None:
    posted = {
        rule.endpoint
        for rule in admin_app.url_map.iter_rules()
        if rule.endpoint.startswith("admin.") and (rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}
    }
    assert posted == {"admin.enter", "admin.leave", "admin.end"}


def _token(text: str) -> str:
    found = re.search(r'name="form_token" value="(\w+)"', text)
    assert found
    return found[1]
