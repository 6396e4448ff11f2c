"""Every operation at every mount, for every kind of caller: docs/permissions.md is this table."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Flask

from app.domain.values import AWAY, IN_A_CALL
from tests.builders import READ, READ_WRITE, Application, Clock, Graph, new_id
from tests.servers import ROOT

CALLERS = {
    "app with Presence.ReadWrite.All": "rw",
    "app with Presence.Read.All": "r",
    "app without a role": "none",
    "user with Presence.ReadWrite, own presence": "own",
    "user with Presence.ReadWrite, another's": "other",
    "user with Presence.Read.All, another's": "read-all",
    "no token": "nobody",
}


@dataclass(frozen=True)
class Operation:
    """An operation, how to ask for it, and the status for each caller in the order of CALLERS."""

    name: str
    method: str
    path: str
    expected: tuple[int, ...]
    body: dict[str, Any] | None = field(default=None, hash=False)

    def __str__(self) -> str:
        return self.name


OWNERS = ("/users/{user}/presence", "/communications/presences/{user}")
SHOWS = {"sessionId": "{app}", **IN_A_CALL._asdict()}
SESSION = (200, 403, 403, 403, 403, 403, 401)
OWN = (200, 403, 403, 200, 403, 403, 401)
READS = (200, 200, 403, 200, 403, 200, 401)
READS_ALL = (200, 200, 403, 403, 403, 200, 401)
ON_ONE_USER = {
    "POST setPresence": (SESSION, SHOWS),
    "POST clearPresence": (SESSION, {"sessionId": "{app}"}),
    "GET": (READS, None),
    "POST setUserPreferredPresence": (OWN, AWAY._asdict()),
    "POST clearUserPreferredPresence": (OWN, {}),
    "POST setStatusMessage": (OWN, {"statusMessage": {"message": {"content": "x"}}}),
    "POST setManualLocation": (OWN, {"workLocationType": "office"}),
    "POST setAutomaticLocation": (OWN, {"workLocationType": "office"}),
    "POST clearLocation": (OWN, {}),
    "POST clearAutomaticLocation": (OWN, {}),
}
OPERATIONS = [
    *(
        Operation(f"{name} of {owner}", name.split()[0], "/".join([owner, *name.split()[1:]]), expected, body)
        for owner in OWNERS
        for name, (expected, body) in ON_ONE_USER.items()
    ),
    *(
        # an application has no /me; of another there is none, so that caller asks for their own, too
        Operation(
            f"{name} of /me/presence",
            name.split()[0],
            "/".join(["/me/presence", *name.split()[1:]]),
            (
                400,
                400 if expected is READS else 403,
                403,
                expected[3],
                expected[3],
                200 if expected is READS else 403,
                401,
            ),
            body,
        )
        for name, (expected, body) in ON_ONE_USER.items()
    ),
    Operation(
        "POST getPresencesByUserId", "POST", "/communications/getPresencesByUserId", READS_ALL, {"ids": ["{user}"]}
    ),
    Operation("GET the list", "GET", "/communications/presences", READS_ALL),
    Operation("GET its $count", "GET", "/communications/presences/$count", READS_ALL),
    Operation("GET /users/{user}", "GET", "/users/{user}", (200, 200, 403, 200, 200, 200, 401)),
    Operation("GET /me", "GET", "/me", (400, 400, 403, 200, 200, 200, 401)),
]


def caller(graph: Graph, kind: str, app_id: str, user: str) -> Application | None:
    """Return who asks about `user`; None has no token."""
    if kind == "nobody":
        return None
    if kind in {"rw", "r", "none"}:
        return graph.app({"rw": READ_WRITE, "r": READ, "none": "Other.Role"}[kind], app_id=app_id)
    scope = "Presence.Read.All" if kind == "read-all" else "Presence.ReadWrite"
    return graph.app(app_id=app_id, idtyp="user", scp=scope, oid=user if kind == "own" else new_id())


def filled(body: Any, **values: str) -> Any:
    if isinstance(body, str):
        return body.format(**values) if body.startswith("{") else body
    if isinstance(body, list):
        return [filled(item, **values) for item in body]
    return {name: filled(value, **values) for name, value in body.items()} if isinstance(body, dict) else body


@pytest.mark.parametrize("mount", ["", "/v1.0", "/beta"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_who_may(flask_app: Flask, clock: Clock, mount: str, operation: Operation) -> None:
    graph = Graph(flask_app.test_client(), clock, mount)
    for kind, expected in zip(CALLERS.values(), operation.expected, strict=True):
        user, app_id = new_id(), new_id()
        graph.shows(user, graph.app(app_id=app_id), IN_A_CALL)
        asking = caller(graph, kind, app_id, user)
        answer = graph.client.open(
            mount + operation.path.format(user=user),
            method=operation.method,
            json=filled(operation.body, app=app_id, user=user),
            headers=asking.headers if asking else {},
        )
        assert answer.status_code == expected, (kind, answer.data)


def rendered() -> str:
    """The table as a page."""
    lines = [
        "# Permissions",
        "",
        "Which status each caller gets, at every mount. Made from the table that `tests/api/test_permissions.py`",
        "drives against the service. Only 200 means that anything was done or told.",
        "",
        f"| operation | {' | '.join(CALLERS)} |",
        f"|---|{'---|' * len(CALLERS)}",
    ]
    lines += [f"| `{it.name}` | {' | '.join(map(str, it.expected))} |" for it in OPERATIONS]
    return "\n".join([*lines, ""])


def test_the_page_is_this_table() -> None:
    """To write it anew: python -m tests.api.test_permissions."""
    assert (ROOT / "docs/permissions.md").read_text() == rendered()


if __name__ == "__main__":
    (ROOT / "docs/permissions.md").write_text(rendered())
