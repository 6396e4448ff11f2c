"""The source of the mission, "presence: clearPresence", line by line."""

import pytest
from flask import Flask

from app.domain.values import AVAILABLE, AWAY, IN_A_CALL, IN_A_CONFERENCE_CALL, OFFLINE, PRESENTING
from tests.builders import READ, Application, Clock, Graph, assert_error, assert_ok, new_id

MOUNTS = ("", "/v1.0", "/beta")


@pytest.mark.parametrize("mount", MOUNTS)
def test_the_documented_example_takes_the_user_offline(flask_app: Flask, clock: Clock, mount: str) -> None:
    graph = Graph(flask_app.test_client(), clock, mount)
    user, app = "fa8bf3dc-eca7-46b7-bad1-db199b62afc3", graph.app(app_id="22553876-f5ab-4529-bffb-cfe50aa89f87")
    assert_ok(graph.shows(user, app, IN_A_CALL))
    assert graph.presence_of(user, app) == IN_A_CALL
    assert_ok(graph.clears(user, app))
    assert graph.presence_of(user, app) == OFFLINE


def test_clearing_one_of_several_sessions_leaves_what_the_others_show(
    graph: Graph, alice: str, bot: Application, desk: Application
) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    graph.shows(alice, desk, AWAY)
    assert_ok(graph.clears(alice, bot))
    assert graph.presence_of(alice, bot) == AWAY
    assert_ok(graph.clears(alice, desk))
    assert graph.presence_of(alice, bot) == OFFLINE


def test_clearing_a_session_that_was_never_set_is_404(graph: Graph, alice: str, bot: Application) -> None:
    assert_error(graph.clears(alice, bot), 404, "NotFound", "Presence session not found.")


def test_clearing_a_session_again_is_404(graph: Graph, alice: str, bot: Application) -> None:
    graph.shows(alice, bot, AWAY)
    assert_ok(graph.clears(alice, bot))
    assert_error(graph.clears(alice, bot), 404, "NotFound")


@pytest.mark.parametrize(("late", "status"), [(-1, 200), (0, 404), (1, 404)])
def test_a_session_is_gone_the_instant_that_it_expires(
    graph: Graph, clock: Clock, alice: str, bot: Application, late: int, status: int
) -> None:
    graph.shows(alice, bot, IN_A_CALL, "PT5M")
    clock.move(minutes=5, microseconds=late)
    assert graph.presence_of(alice, bot) == (IN_A_CALL if status == 200 else OFFLINE)
    assert graph.clears(alice, bot).status_code == status


def test_a_cleared_session_can_be_set_again(graph: Graph, alice: str, bot: Application) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    graph.clears(alice, bot)
    assert_ok(graph.shows(alice, bot, PRESENTING))
    assert graph.presence_of(alice, bot) == PRESENTING


def test_ids_are_taken_in_any_case_and_given_back_in_lower_case(graph: Graph, alice: str, bot: Application) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    assert graph.reads(alice.upper(), bot).get_json()["id"] == alice
    body = {"sessionId": bot.app_id.upper()}
    assert_ok(graph.post(bot, f"/users/{alice.upper()}/presence/clearPresence", body))
    assert graph.presence_of(alice, bot) == OFFLINE


def test_another_applications_session_is_403_whether_it_exists_or_not(
    graph: Graph, alice: str, bot: Application, desk: Application
) -> None:
    graph.shows(alice, desk, IN_A_CALL)
    path = f"/users/{alice}/presence/clearPresence"
    there = assert_error(graph.post(bot, path, {"sessionId": desk.app_id}), 403, "Forbidden", "[SessionId]")
    absent = assert_error(graph.post(bot, path, {"sessionId": new_id()}), 403, "Forbidden")
    assert there == absent
    assert graph.presence_of(alice, bot) == IN_A_CALL


def test_the_same_application_in_another_tenant_neither_sees_nor_ends_a_session(
    flask_app: Flask, graph: Graph, clock: Clock, alice: str, bot: Application
) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    elsewhere = Graph(flask_app.test_client(), clock)
    twin = elsewhere.app(app_id=bot.app_id)
    assert elsewhere.presence_of(alice, twin) == OFFLINE
    assert_error(elsewhere.clears(alice, twin), 404, "NotFound")
    assert graph.presence_of(alice, bot) == IN_A_CALL


@pytest.mark.parametrize("action", ["setPresence", "clearPresence"])
def test_a_delegated_token_is_refused_whatever_it_holds(
    graph: Graph, alice: str, bot: Application, action: str
) -> None:
    graph.shows(alice, bot, AVAILABLE)
    for claims in ({"scp": "Presence.ReadWrite"}, {"scp": ""}, {"idtyp": "user"}):
        user = graph.app(app_id=bot.app_id, **claims)
        body = {"sessionId": bot.app_id, "availability": "Away", "activity": "Away"}
        assert_error(graph.post(user, f"/users/{alice}/presence/{action}", body), 403, "Forbidden", "Delegated")
    assert graph.presence_of(alice, bot) == AVAILABLE


@pytest.mark.parametrize("roles", [(READ,), ("Presence.ReadWrite",), ("presence.readwrite.all",), ()])
def test_the_role_is_needed_to_the_letter(graph: Graph, alice: str, bot: Application, roles: tuple[str, ...]) -> None:
    graph.shows(alice, bot, IN_A_CALL)
    weak = graph.app(app_id=bot.app_id, roles=list(roles))
    assert_error(graph.clears(alice, weak), 403, "Forbidden", "Presence.ReadWrite.All")
    assert_error(graph.shows(alice, weak, AWAY), 403, "Forbidden", "Presence.ReadWrite.All")
    assert graph.presence_of(alice, bot) == IN_A_CALL


def test_the_two_read_roles_read_and_nothing_else_does(graph: Graph, alice: str, reader: Application) -> None:
    graph.shows(alice, bot := graph.app(), IN_A_CONFERENCE_CALL)
    assert graph.presence_of(alice, bot) == graph.presence_of(alice, reader) == IN_A_CONFERENCE_CALL
    assert_error(graph.reads(alice, graph.app("User.Read.All")), 403, "Forbidden", "Presence.Read.All")
