"""Every other operation of the presence resource: what it does, and what it refuses."""

from datetime import timedelta
from typing import Any

import pytest

from app.domain.values import (
    AVAILABLE,
    AWAY,
    BUSY,
    DO_NOT_DISTURB,
    IN_A_CALL,
    OFF_WORK,
    OFFLINE,
    PREFERABLE,
    Activity,
    Availability,
    Shown,
)
from tests.builders import READ, Application, Clock, Graph, assert_error, assert_ok, new_id


def prefers(graph: Graph, user: str, app: Application, shown: Shown, duration: str | None = None) -> Any:
    body = {**shown._asdict(), **({"expirationDuration": duration} if duration else {})}
    return graph.post(app, f"/users/{user}/presence/setUserPreferredPresence", body)


# Preferred presence


def test_a_preference_shows_only_while_a_session_is_live(graph: Graph, alice: str, bot: Application) -> None:
    assert_ok(prefers(graph, alice, bot, DO_NOT_DISTURB))
    assert graph.presence_of(alice, bot) == OFFLINE
    graph.shows(alice, bot, AVAILABLE)
    assert graph.presence_of(alice, bot) == DO_NOT_DISTURB
    graph.clears(alice, bot)
    assert graph.presence_of(alice, bot) == OFFLINE
    graph.shows(alice, bot, IN_A_CALL)
    assert graph.presence_of(alice, bot) == DO_NOT_DISTURB


def test_preferred_offline_is_reported_off_work(graph: Graph, alice: str, bot: Application) -> None:
    graph.shows(alice, bot, AVAILABLE)
    assert_ok(prefers(graph, alice, bot, OFF_WORK))
    assert graph.presence_of(alice, bot) == OFF_WORK


@pytest.mark.parametrize("body", [{}, None])
def test_clearing_a_preference_takes_a_body_or_none_and_is_200_when_there_was_nothing(
    graph: Graph, alice: str, bot: Application, body: object
) -> None:
    path = f"/users/{alice}/presence/clearUserPreferredPresence"
    graph.shows(alice, bot, IN_A_CALL)
    prefers(graph, alice, bot, AWAY)
    for _ in range(2):
        if body is None:
            assert_ok(graph.client.post(graph.mount + path, headers=bot.headers))
        else:
            assert_ok(graph.post(bot, path, body))
        assert graph.presence_of(alice, bot) == IN_A_CALL


@pytest.mark.parametrize(
    ("shown", "duration", "lasts"),
    [
        (DO_NOT_DISTURB, None, timedelta(days=1)),
        (BUSY, None, timedelta(days=1)),
        (AWAY, None, timedelta(days=7)),
        (OFF_WORK, None, timedelta(days=7)),
        (AWAY, "PT8H", timedelta(hours=8)),
        (AWAY, "P365D", timedelta(days=365)),
    ],
)
def test_a_preference_is_gone_the_instant_that_it_expires(
    graph: Graph, clock: Clock, alice: str, bot: Application, shown: Shown, duration: str | None, lasts: timedelta
) -> None:
    later = graph.app(app_id=bot.app_id, exp=int((clock.now + timedelta(days=400)).timestamp()))
    assert_ok(prefers(graph, alice, bot, shown, duration))
    set_at = clock.now
    clock.now = set_at + lasts - timedelta(microseconds=1)
    graph.shows(alice, later, IN_A_CALL)
    assert graph.presence_of(alice, later) == shown
    clock.now = set_at + lasts
    assert graph.presence_of(alice, later) == IN_A_CALL


def test_only_the_six_pairs_can_be_preferred(graph: Graph, alice: str, bot: Application) -> None:
    for availability in Availability:
        for activity in Activity:
            answer = prefers(graph, alice, bot, Shown(availability, activity))
            if (availability, activity) in PREFERABLE:
                assert_ok(answer)
            else:
                assert_error(answer, 400, "InvalidArgument", "[Availability], [Activity]", "Offline/OffWork")


@pytest.mark.parametrize("duration", ["PT0S", "P365DT0.000001S", "1:00:00", "-PT1H"])
def test_a_preference_lasts_for_some_time_up_to_a_year(
    graph: Graph, alice: str, bot: Application, duration: str
) -> None:
    assert_error(prefers(graph, alice, bot, AWAY, duration), 400, "InvalidArgument", "[ExpirationDuration]")


# Status message


def says(graph: Graph, user: str, app: Application, message: object, **expiry: object) -> Any:
    said = {"message": message, **({"expiryDateTime": expiry} if expiry else {})}
    return graph.post(app, f"/users/{user}/presence/setStatusMessage", {"statusMessage": said})


def message_of(graph: Graph, user: str, app: Application) -> Any:
    return graph.reads(user, app).get_json()["statusMessage"]


def test_a_status_message_is_there_with_or_without_a_session(graph: Graph, alice: str, bot: Application) -> None:
    assert_ok(says(graph, alice, bot, {"content": "Grüße aus dem Zug 🚆", "contentType": "text"}))
    assert message_of(graph, alice, bot) == {
        "message": {"content": "Grüße aus dem Zug 🚆", "contentType": "text"},
        "publishedDateTime": "2026-03-02T08:00:00.0000000Z",
    }


@pytest.mark.parametrize(
    ("zone", "local", "utc"),
    [
        ("Pacific Standard Time", "2026-07-01T01:00:00", "2026-07-01T08:00:00.0000000"),
        ("pacific standard time", "2026-03-03T00:00:00.1234567", "2026-03-03T08:00:00.1234560"),
        ("Europe/Berlin", "2026-07-01T10:00", "2026-07-01T08:00:00.0000000"),
        ("UTC", "2026-07-01T08:00:00.0000000", "2026-07-01T08:00:00.0000000"),
        (None, "2026-07-01T08:00:00", "2026-07-01T08:00:00.0000000"),
        ("Europe/Berlin", "2026-10-25T02:30:00", "2026-10-25T00:30:00.0000000"),  # shown twice: the first
    ],
)
def test_an_expiry_is_taken_in_windows_and_iana_zones_and_given_back_in_utc(
    graph: Graph, alice: str, bot: Application, zone: str | None, local: str, utc: str
) -> None:
    assert_ok(says(graph, alice, bot, {"content": "x"}, dateTime=local, timeZone=zone))
    assert message_of(graph, alice, bot)["expiryDateTime"] == {"dateTime": utc, "timeZone": "UTC"}


def test_a_status_message_is_null_the_instant_that_it_expires(
    graph: Graph, clock: Clock, alice: str, bot: Application
) -> None:
    says(graph, alice, bot, {"content": "back at nine"}, dateTime="2026-03-02T09:00:00", timeZone="UTC")
    clock.move(hours=1, microseconds=-1)
    before = graph.reads(alice, bot).get_json()
    assert before["statusMessage"]["message"]["content"] == "back at nine"
    clock.move(microseconds=1)
    after = graph.reads(alice, bot).get_json()
    assert after["statusMessage"] is None
    assert after["sequenceNumber"] > before["sequenceNumber"]


@pytest.mark.parametrize("body", [{"statusMessage": None}, {"statusMessage": {"message": {"content": ""}}}])
def test_an_empty_status_message_takes_the_last_one_back(
    graph: Graph, alice: str, bot: Application, body: object
) -> None:
    says(graph, alice, bot, {"content": "x"})
    for _ in range(2):
        assert_ok(graph.post(bot, f"/users/{alice}/presence/setStatusMessage", body))
        assert message_of(graph, alice, bot) is None


@pytest.mark.parametrize(
    ("message", "expiry", "words"),
    [
        ({"content": "x", "contentType": "html"}, {}, ["[StatusMessage.Message.ContentType]", "text", "html"]),
        ({"content": "x" * 281}, {}, ["[StatusMessage.Message.Content]", "280", "281"]),
        ({"content": 7}, {}, ["[StatusMessage.Message.Content]", "string"]),
        ({"content": "a\0b"}, {}, ["[StatusMessage.Message.Content]", "NUL"]),
        ({"content": "half of a train: \ud83d"}, {}, ["[StatusMessage.Message.Content]", "surrogate"]),
        ({"content": "x"}, {"dateTime": "2026-03-02T08:00:00"}, ["[StatusMessage.ExpiryDateTime]", "future"]),
        ({"content": "x"}, {"dateTime": "2027-03-02T08:00:00Z"}, ["[StatusMessage.ExpiryDateTime]", "offset"]),
        ({"content": "x"}, {"dateTime": "2027-02-30T08:00:00"}, ["[StatusMessage.ExpiryDateTime]", "DateTime"]),
        ({"content": "x"}, {"dateTime": "2027-03-02T08:00:00.12345678"}, ["[StatusMessage.ExpiryDateTime]"]),
        ({"content": "x"}, {"timeZone": "UTC"}, ["[StatusMessage.ExpiryDateTime.DateTime]", "required"]),
        *(
            ({"content": "x"}, {"dateTime": "2027-01-01T00:00:00", "timeZone": zone}, ["TimeZone", "IANA"])
            for zone in ("Mars/Olympus", "../../etc/passwd", "/etc/passwd", "Europe", "x" * 300)
        ),
        ({"content": "x"}, {"dateTime": "0001-01-01T00:00:00", "timeZone": "Asia/Tokyo"}, ["TimeZone"]),
    ],
)
def test_a_status_message_that_makes_no_sense_is_400(
    graph: Graph, alice: str, bot: Application, message: object, expiry: dict[str, object], words: list[str]
) -> None:
    says(graph, alice, bot, {"content": "before"})
    assert_error(says(graph, alice, bot, message, **expiry), 400, "InvalidArgument", *words)
    assert message_of(graph, alice, bot)["message"]["content"] == "before"


def test_280_characters_are_taken(graph: Graph, alice: str, bot: Application) -> None:
    assert_ok(says(graph, alice, bot, {"content": "ü" * 280}))


def test_set_status_message_needs_the_member(graph: Graph, alice: str, bot: Application) -> None:
    answer = graph.post(bot, f"/users/{alice}/presence/setStatusMessage", {})
    assert_error(answer, 400, "InvalidArgument", "[StatusMessage]: The StatusMessage field is required.")


# Work location


def location_of(graph: Graph, user: str, app: Application) -> Any:
    return graph.reads(user, app).get_json()["workLocation"]


NOWHERE = {"placeId": None, "source": "none", "workLocationType": "unspecified"}


def test_a_manual_location_goes_over_an_automatic_one(graph: Graph, alice: str, bot: Application) -> None:
    path = f"/users/{alice}/presence"
    assert_ok(graph.post(bot, f"{path}/setAutomaticLocation", {"workLocationType": "office", "placeId": "desk 7"}))
    assert location_of(graph, alice, bot) == {
        "placeId": "desk 7",
        "source": "automatic",
        "workLocationType": "office",
    }
    assert_ok(graph.post(bot, f"{path}/setManualLocation", {"workLocationType": "remote"}))
    assert location_of(graph, alice, bot) == {"placeId": None, "source": "manual", "workLocationType": "remote"}
    assert_ok(graph.post(bot, f"{path}/clearAutomaticLocation", {}))
    assert location_of(graph, alice, bot)["source"] == "manual"
    assert_ok(graph.post(bot, f"{path}/setAutomaticLocation", {"workLocationType": "office"}))
    assert_ok(graph.client.post(f"{graph.mount}{path}/clearLocation", headers=bot.headers))
    assert location_of(graph, alice, bot) == NOWHERE


def test_an_automatic_location_shows_once_a_manual_one_has_ended(
    graph: Graph, clock: Clock, alice: str, bot: Application
) -> None:
    graph.post(bot, f"/users/{alice}/presence/setManualLocation", {"workLocationType": "remote"})
    clock.move(days=1)
    graph.post(bot, f"/users/{alice}/presence/setAutomaticLocation", {"workLocationType": "office"})
    assert location_of(graph, alice, bot)["source"] == "automatic"


def test_a_location_is_for_today(graph: Graph, clock: Clock, alice: str, bot: Application) -> None:
    graph.post(bot, f"/users/{alice}/presence/setManualLocation", {"workLocationType": "timeOff"})
    clock.move(hours=16, microseconds=-1)
    assert location_of(graph, alice, bot)["workLocationType"] == "timeOff"
    clock.move(microseconds=1)
    assert location_of(graph, alice, bot) == NOWHERE


@pytest.mark.parametrize("where", [None, "home", 1, ""])
def test_a_location_that_is_none_is_400(graph: Graph, alice: str, bot: Application, where: object) -> None:
    for body in ({"workLocationType": where}, {}):
        answer = graph.post(bot, f"/users/{alice}/presence/setManualLocation", body)
        assert_error(answer, 400, "InvalidArgument", "[WorkLocationType]")


@pytest.mark.parametrize("place", ["a\0b", "\ud83d", "x" * 257, 7])
def test_a_place_that_is_none_is_400(graph: Graph, alice: str, bot: Application, place: object) -> None:
    body = {"workLocationType": "office", "placeId": place}
    answer = graph.post(bot, f"/users/{alice}/presence/setManualLocation", body)
    assert_error(answer, 400, "InvalidArgument", "[PlaceId]")
    assert location_of(graph, alice, bot) == NOWHERE


def test_256_characters_are_a_place(graph: Graph, alice: str, bot: Application) -> None:
    body = {"workLocationType": "office", "placeId": "ü" * 256}
    assert_ok(graph.post(bot, f"/users/{alice}/presence/setManualLocation", body))
    assert location_of(graph, alice, bot)["placeId"] == "ü" * 256


# Reading many, and options


def test_presences_come_in_the_order_asked_for_each_once(graph: Graph, bot: Application) -> None:
    busy, unheard, message = sorted(new_id() for _ in range(3))
    graph.shows(busy, bot, IN_A_CALL)
    says(graph, message, bot, {"content": "x"})
    ids = [message, unheard.upper(), busy, message]
    answer = graph.post(bot, "/communications/getPresencesByUserId", {"ids": ids})
    body = answer.get_json()
    assert body["@odata.context"] == "http://localhost/v1.0/$metadata#Collection(microsoft.graph.presence)"
    assert [item["id"] for item in body["value"]] == [message, unheard, busy]
    for item in body["value"]:
        alone = graph.reads(item["id"], bot).get_json()
        del alone["@odata.context"]
        assert item == alone


@pytest.mark.parametrize("text", ['{"a": [1]}', "[]", "null", 'a "b" \\', "\x01\x1f\t\x7f", "\u2028 ü 😀", "NaN"])
def test_any_text_comes_out_of_a_bulk_read_as_it_went_in(graph: Graph, alice: str, bot: Application, text: str) -> None:
    says(graph, alice, bot, {"content": text})
    graph.post(bot, f"/users/{alice}/presence/setManualLocation", {"workLocationType": "office", "placeId": text})
    (seen,) = graph.post(bot, "/communications/getPresencesByUserId", {"ids": [alice]}).get_json()["value"]
    assert (seen["statusMessage"]["message"]["content"], seen["workLocation"]["placeId"]) == (text, text)


def test_650_ids_are_one_statement_and_651_are_400(graph: Graph, bot: Application, statements: list[str]) -> None:
    users = [new_id() for _ in range(650)]
    for user in users[:3]:
        graph.shows(user, bot, IN_A_CALL)
    statements.clear()
    answer = graph.post(bot, "/communications/getPresencesByUserId", {"ids": users})
    assert len(statements) == 1
    shown = [item["availability"] for item in answer.get_json()["value"]]
    assert shown == ["Busy"] * 3 + ["Offline"] * 647
    answer = graph.post(bot, "/communications/getPresencesByUserId", {"ids": [*users, new_id()]})
    assert_error(answer, 400, "InvalidArgument", "[Ids]", "650")


def test_a_single_read_is_one_statement(graph: Graph, alice: str, bot: Application, statements: list[str]) -> None:
    graph.reads(alice, bot)
    assert len(statements) == 1


@pytest.mark.parametrize("body", [{}, {"ids": None}, {"ids": "x"}, {"ids": ["bob"]}, {"ids": [None]}])
def test_ids_that_are_none_are_400(graph: Graph, bot: Application, body: object) -> None:
    assert_error(graph.post(bot, "/communications/getPresencesByUserId", body), 400, "InvalidArgument", "[Ids")


def test_nobodys_presence_is_an_empty_list(graph: Graph, bot: Application) -> None:
    assert graph.post(bot, "/communications/getPresencesByUserId", {"ids": []}).get_json()["value"] == []


def get(graph: Graph, app: Application, path: str, **headers: str) -> Any:
    return graph.client.get(graph.mount + path, headers={**app.headers, **headers})


def test_the_list_is_of_all_whom_anything_is_known_of_page_by_page(graph: Graph, bot: Application) -> None:
    known = sorted(new_id() for _ in range(5))
    for user in known[:4]:
        graph.shows(user, bot, IN_A_CALL)
    says(graph, known[4], bot, {"content": "x"})
    says(graph, known[0], bot, {"content": "of whom there is a session, too"})
    assert get(graph, bot, "/communications/presences/$count").data == b"5"
    seen: list[str] = []
    path = "/communications/presences?$top=2&$count=true"
    while path:
        page = get(graph, bot, path).get_json()
        seen += [item["id"] for item in page["value"]]
        path = page.get("@odata.nextLink", "").removeprefix("http://localhost/v1.0")
    assert seen == known
    assert get(graph, bot, "/communications/presences?$count=true").get_json()["@odata.count"] == 5


def test_a_page_that_is_not_full_is_the_last_one(graph: Graph, bot: Application) -> None:
    graph.shows(new_id(), bot, IN_A_CALL)
    assert "@odata.nextLink" not in get(graph, bot, "/communications/presences?$top=2").get_json()


def test_an_id_that_a_filter_names_twice_counts_once(graph: Graph, alice: str, bot: Application) -> None:
    other = new_id()
    query = f"$top=2&$count=true&$filter=id in ('{alice}', '{alice}', '{other}')"
    page = get(graph, bot, f"/communications/presences?{query}").get_json()
    assert [item["id"] for item in page["value"]] == [alice, other]
    assert page["@odata.count"] == 2


def test_the_next_page_has_the_same_properties(graph: Graph, bot: Application) -> None:
    for _ in range(2):
        graph.shows(new_id(), bot, IN_A_CALL)
    path = "/communications/presences?$top=1&$select=id,activity"
    for _ in range(2):
        page = get(graph, bot, path).get_json()
        assert page["value"][0].keys() == {"id", "activity"}
        path = page["@odata.nextLink"].removeprefix("http://localhost/v1.0")


def test_what_is_expanded_is_there_beside_all_else(graph: Graph, alice: str, bot: Application) -> None:
    plain = graph.reads(alice, bot).get_json()
    assert get(graph, bot, f"/users/{alice}/presence?$expand=statusMessage").get_json() == plain
    assert_error(get(graph, bot, f"/users/{alice}/presence?$expand=mood"), 400, "BadRequest", "mood")


def test_the_list_can_be_filtered_by_id(graph: Graph, alice: str, bot: Application) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    other = new_id()
    for text, ids in (
        (f"id in ('{other}', '{alice.upper()}')", [other, alice]),
        (f"id eq '{alice}'", [alice]),
    ):
        page = get(graph, bot, f"/communications/presences?$filter={text}&$select=id,availability").get_json()
        assert [item["id"] for item in page["value"]] == ids
        assert page["value"][-1] == {"id": alice, "availability": "Busy"}
        assert get(graph, bot, f"/communications/presences/$count?$filter={text}").data == str(len(ids)).encode()


@pytest.mark.parametrize(
    "query",
    [
        "$filter=availability eq 'Busy'",
        "$filter=id in ()",
        "$filter=id eq 'bob'",
        "$top=0",
        "$top=x",
        "$orderby=id",
        "$search=x",
        "$select=id,mood",
        "$skip=1",
        "$count=yes",
        "$skiptoken=bob",
    ],
)
def test_an_option_that_the_list_does_not_take_is_400(graph: Graph, bot: Application, query: str) -> None:
    option = query.partition("=")[0]
    answer = get(graph, bot, f"/communications/presences?{query}")
    assert_error(answer, 400, "BadRequest", "mood" if "mood" in query else option)


def test_select_gives_what_it_names(graph: Graph, alice: str, bot: Application) -> None:
    body = get(graph, bot, f"/users/{alice}/presence?$select=availability,activity").get_json()
    assert body == {
        "@odata.context": f"http://localhost/v1.0/$metadata#users('{alice}')/presence(availability,activity)/$entity",
        "availability": "Offline",
        "activity": "Offline",
    }
    answer = get(graph, bot, f"/users/{alice}/presence?$select=id,mood")
    words = "Could not find a property named 'mood' on type 'microsoft.graph.presence'."
    assert_error(answer, 400, "BadRequest", words)
    assert get(graph, bot, f"/users/{alice}/presence?anything=else").status_code == 200


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 200),
        ("*/*", 200),
        ("application/json;odata.metadata=minimal, text/plain;q=0.5", 200),
        ("application/*", 200),
        ("", 200),
        ("application/xml", 406),
        ("text/html, image/png", 406),
    ],
)
def test_what_the_caller_accepts_is_honoured(
    graph: Graph, alice: str, bot: Application, accept: str, status: int
) -> None:
    answer = get(graph, bot, f"/users/{alice}/presence", Accept=accept)
    assert answer.status_code == status
    if status == 406:
        assert_error(answer, 406, "NotAcceptable", "application/json")


def test_a_caller_that_wants_no_metadata_gets_none(graph: Graph, alice: str, bot: Application) -> None:
    answer = get(graph, bot, f"/users/{alice}/presence", Accept="application/json;odata.metadata=none")
    assert "@odata.context" not in answer.get_json()
    assert "odata.metadata=none" in answer.headers["Content-Type"]


# Owners


def test_the_three_owners_are_one_presence(graph: Graph, alice: str, bot: Application) -> None:
    body = {"sessionId": bot.app_id, "availability": "Busy", "activity": "InACall"}
    assert_ok(graph.post(bot, f"/communications/presences/{alice}/setPresence", body))
    me = graph.app(app_id=bot.app_id, scp="Presence.Read", idtyp="user", oid=alice)
    by_user, by_me = graph.reads(alice, bot).get_json(), get(graph, me, "/me/presence").get_json()
    assert by_user == by_me
    listed = get(graph, bot, f"/communications/presences/{alice}").get_json()
    context = listed.pop("@odata.context")
    assert context == "http://localhost/v1.0/$metadata#communications/presences/$entity"
    del by_user["@odata.context"]
    assert listed == by_user
    assert_ok(graph.post(bot, f"/communications/presences/{alice}/clearPresence", body))
    assert graph.presence_of(alice, bot) == OFFLINE


def test_me_needs_a_user(graph: Graph, bot: Application) -> None:
    message = "/me request is only valid with delegated authentication flow."
    assert_error(get(graph, bot, "/me/presence"), 400, "BadRequest", message)
    nameless = graph.app(app_id=bot.app_id, scp="Presence.Read", idtyp="user", oid=None)
    assert_error(get(graph, nameless, "/me/presence"), 400, "BadRequest", message)


def test_a_reader_cannot_write(graph: Graph, alice: str) -> None:
    reader = graph.app(READ)
    assert_error(prefers(graph, alice, reader, AWAY), 403, "Forbidden", "Presence.ReadWrite.All")


def test_a_user_writes_his_own_presence_only(graph: Graph, alice: str, bot: Application) -> None:
    me = graph.app(app_id=bot.app_id, scp="Presence.ReadWrite", idtyp="user", oid=alice)
    assert_ok(graph.post(me, "/me/presence/setUserPreferredPresence", AWAY._asdict()))
    assert_ok(prefers(graph, alice, me, BUSY))
    assert_error(prefers(graph, new_id(), me, BUSY), 403, "Forbidden", "Cannot set the presence of another user")
    graph.shows(alice, bot, AVAILABLE)
    assert graph.presence_of(alice, bot) == BUSY
