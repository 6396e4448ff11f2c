"""Who gets in, for how long, and what a page lets a browser do."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask

from app.admin import access
from app.admin.site import PAGE_POLICY
from app.factory import SIGN_INS, create_app
from config import Settings
from tests.admin.conftest import Browser, form_token, words
from tests.builders import ADMIN, ADMIN_PASSWORD, START, Clock, new_id

PAGES = ["", "/users", "/sessions", "/changes", "/users.csv", "/sessions.csv", "/changes.csv"]
AN_APP = new_id()


def test_without_its_settings_there_is_no_site(admin_app: Flask, tmp_path: Path) -> None:
    settings = Settings(presence_env="development", instance_path=tmp_path)
    app = create_app(settings)
    for path in ("/admin", "/admin/sign-in"):
        assert app.test_client().get(path).status_code == 404
        assert admin_app.test_client().get(path).status_code in {200, 303}
    assert not [rule for rule in app.url_map.iter_rules() if "admin" in rule.rule]


@pytest.mark.parametrize("path", PAGES)
def test_a_stranger_is_sent_to_sign_in_and_then_gets_the_page_he_asked_for(stranger: Browser, path: str) -> None:
    answer = stranger.get(f"{path}?app={AN_APP}")
    assert answer.status_code == 303
    to = answer.headers["Location"].removeprefix("/admin")
    answer = stranger.send(to, to, name=ADMIN, password=ADMIN_PASSWORD)
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/admin{path}?app={AN_APP}")
    assert stranger.get(path).status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_from_here_alone_and_nobody_may_frame_or_keep_it(olga: Browser, path: str) -> None:
    headers = olga.get(path).headers
    assert headers["Content-Security-Policy"] == PAGE_POLICY
    assert "unsafe" not in PAGE_POLICY
    assert {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(PAGE_POLICY.split("; "))
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert (headers["X-Frame-Options"], headers["Referrer-Policy"]) == ("DENY", "same-origin")


@pytest.mark.parametrize("path", [*(page for page in PAGES if "csv" not in page), "/sign-in"])
def test_a_page_has_no_inline_script_or_style_and_names_no_other_host(olga: Browser, path: str) -> None:
    text = olga.get(path).text
    assert not re.search(r"<style|style=|<script>|\son[a-z]+=|javascript:|https?://", text)


@pytest.mark.parametrize(
    ("said", "status"), [({"PATH_INFO": "//admin/sign-in"}, 404), ({"HTTP_TRANSFER_ENCODING": "gzip"}, 400)]
)
def test_what_is_refused_before_anybody_looks_who_asks_is_a_page_too(
    stranger: Browser, said: dict[str, str], status: int
) -> None:
    answer = stranger.client.get("/admin/sign-in", environ_overrides=said)
    assert (answer.status_code, answer.headers["Content-Security-Policy"]) == (status, PAGE_POLICY)
    assert "Set-Cookie" not in answer.headers


def test_what_a_page_consists_of_is_served_to_everybody(stranger: Browser) -> None:
    found = re.findall(r'(?:href|src)="/admin(/static/[^"]+)"', stranger.get("/sign-in").text)
    assert len(found) == 3
    for path in found:
        answer = stranger.get(path)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-cache")
        assert "Set-Cookie" not in answer.headers
    assert stranger.get("/static/..%2Fsite.py").status_code == 404


@pytest.mark.parametrize(
    ("name", "password"),
    [(ADMIN, "wrong"), (ADMIN, ""), ("nobody", ADMIN_PASSWORD), ("", ""), (ADMIN.upper(), ADMIN_PASSWORD)],
)
def test_a_wrong_password_and_an_unknown_name_read_the_same(stranger: Browser, name: str, password: str) -> None:
    answer = stranger.signs_in(name, password)
    assert answer.status_code == 403
    assert "Name or password is wrong." in words(answer)
    assert stranger.get().status_code == 303


def test_an_unknown_name_costs_as_much_as_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def wrong(password_hash: str, _given: str) -> bool:
        checked.append(password_hash)
        return False

    monkeypatch.setattr(access, "check_password_hash", wrong)
    door = access.Door({"a": "the hash of a", "b": "the hash of b"}, "k" * 32)
    assert not door.knows("b", "x")
    assert not door.knows("nobody", "x")
    assert checked == ["the hash of b", "the hash of a"]
    monkeypatch.setattr(access, "check_password_hash", lambda _hashed, _given: True)
    assert door.knows("a", "x")
    assert not door.knows("nobody", "x")
    assert not door.knows("a", "x" * 1025)


def test_who_tries_too_often_has_to_wait(stranger: Browser, tried: list[str]) -> None:
    most, _ = SIGN_INS["by_address"]
    for _ in range(most):
        assert stranger.signs_in(password="wrong").status_code == 403
    answer = stranger.signs_in()
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert "Too many requests" in words(answer)
    assert sorted(set(tried)) == [f"admin sign-in as {ADMIN}", "admin sign-in from 127.0.0.1"]


def test_a_name_has_a_limit_of_its_own_wherever_the_attempts_come_from(stranger: Browser) -> None:
    most, _ = SIGN_INS["by_name"]
    data = {"form_token": form_token(stranger.get("/sign-in")), "name": ADMIN, "password": "wrong"}

    def status_from(number: int) -> int:
        here = {"REMOTE_ADDR": f"192.0.2.{number}"}
        return stranger.client.post("/admin/sign-in", data=data, environ_overrides=here).status_code

    assert [status_from(number) for number in range(most + 1)] == [403] * most + [429]


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "/adminevil", "/admin/\\evil", "x"])
def test_signing_in_leads_nowhere_else(stranger: Browser, elsewhere: str) -> None:
    answer = stranger.send("/sign-in", f"/sign-in?next={elsewhere}", name=ADMIN, password=ADMIN_PASSWORD)
    assert answer.headers["Location"] == "/admin"


def test_a_form_that_is_not_from_here_does_nothing(stranger: Browser, admin_app: Flask) -> None:
    fields = {"name": ADMIN, "password": ADMIN_PASSWORD}
    assert stranger.client.post("/admin/sign-in", data=fields).status_code == 400
    token = form_token(stranger.get("/sign-in"))
    other = Browser(admin_app.test_client())
    other.get("/sign-in")
    answer = other.client.post("/admin/sign-in", data={**fields, "form_token": token})
    assert (answer.status_code, "Please try again" in words(answer)) == (400, True)
    assert other.get().status_code == 303


def test_the_token_of_a_form_changes_with_signing_in(stranger: Browser) -> None:
    before = form_token(stranger.get("/sign-in"))
    stranger.signs_in()
    assert form_token(stranger.get("/users")) != before


def test_signing_out_forgets_who_it_was(olga: Browser) -> None:
    assert olga.client.post("/admin/sign-out").status_code == 303
    assert olga.get().status_code == 200, "a form from elsewhere signs nobody out"
    assert olga.send("/users", "/sign-out").status_code == 303
    assert olga.get().status_code == 303
    assert "Your visit has ended" not in olga.page("/sign-in")


@pytest.mark.parametrize(
    ("url", "name", "secure"),
    [("http://localhost", "presence-admin", False), ("https://localhost", "__Host-presence-admin", True)],
)
def test_the_cookie_is_for_this_site_alone(admin_app: Flask, clock: Clock, url: str, name: str, secure: bool) -> None:
    answer = admin_app.test_client().get("/admin/sign-in", base_url=url)
    cookie, *about = answer.headers["Set-Cookie"].split("; ")
    assert cookie.startswith(f"{name}=")
    assert set(about) == {"HttpOnly", "Path=/", "SameSite=Lax", *(["Secure"] if secure else [])}


def test_a_visit_ends_after_eight_hours_however_busy(olga: Browser, clock: Clock) -> None:
    for _ in range(16):
        clock.move(minutes=29)
        assert olga.get("/users").status_code == 200
    clock.now = START + access.LONGEST - timedelta(seconds=1)
    assert olga.get("/users").status_code == 200
    clock.now = START + access.LONGEST
    assert olga.get("/users").status_code == 303


def test_an_idle_visit_ends_after_half_an_hour_to_the_second(olga: Browser, clock: Clock) -> None:
    clock.now = START + access.IDLE - timedelta(seconds=1)
    assert olga.get("/users").status_code == 200
    clock.now += access.IDLE
    assert olga.get("/users").status_code == 303
    assert "Your visit has ended" in olga.page("/sign-in")


def test_a_page_that_refreshes_itself_is_no_use(olga: Browser, clock: Clock) -> None:
    for _ in range(5):
        clock.move(minutes=5)
        assert olga.get("/changes", **{"Presence-Refresh": "1"}).status_code == 200
    clock.move(minutes=5)
    assert olga.get("/changes", **{"Presence-Refresh": "1"}).status_code == 303


def test_a_cookie_is_good_for_its_key_its_password_and_its_name_alone(clock: Clock) -> None:
    hashes, key = {"a": "hash of a", "b": "hash of b"}, "k" * 32
    door = access.Door(hashes, key)
    visit = door.visit(clock.now, "a")
    cookie = door.write(visit)
    assert door.read(cookie, clock.now) == visit
    assert access.Door(hashes, key).read(cookie, clock.now) == visit, "another worker knows it, too"
    assert access.Door(hashes, key).form_token(visit) == door.form_token(visit)
    assert access.Door(hashes, "l" * 32).read(cookie, clock.now) is None
    assert access.Door({**hashes, "a": "a new one"}, key).read(cookie, clock.now) is None
    assert access.Door({"b": "hash of b"}, key).read(cookie, clock.now) is None
    assert door.read(door.write(visit._replace(name="b")), clock.now) is None
    assert door.read(f"{cookie}x", clock.now) is None
    assert door.read("", clock.now) is None


def test_one_password_is_checked_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    door = access.Door({"a": "hash of a"}, "k" * 32)
    checks = []

    def check(_hash: str, password: str) -> bool:
        checks.append(door._one_at_a_time.locked())
        return password == "right"

    monkeypatch.setattr("app.admin.access.check_password_hash", check)
    assert (door.knows("a", "right"), door.knows("b", "right"), door.knows("a", "wrong")) == (True, False, False)
    assert checks == [True] * 3


def test_the_api_knows_no_cookie_and_sends_none(olga: Browser) -> None:
    answer = olga.client.get(f"/v1.0/users/{new_id()}/presence")
    assert answer.status_code == 401
    assert not {"Set-Cookie", "Content-Security-Policy"} & set(answer.headers.keys())


def test_an_error_is_a_page_that_tells_nothing_but_its_message(
    olga: Browser, admin_app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = olga.get("/users?tenant=x")
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "text/html; charset=utf-8")
    assert "tenant: must be a GUID" in words(answer)

    def fails() -> None:
        raise RuntimeError("a secret")

    monkeypatch.setitem(admin_app.view_functions, "admin.users", fails)
    answer = olga.get("/users")
    assert answer.status_code == 500
    assert "secret" not in answer.text
