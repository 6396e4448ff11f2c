"""mgt-person of the Microsoft Graph Toolkit, on a page of another origin, in Chromium."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import requests

from tests.clients import snippets
from tests.clients.conftest import JS, Served
from tests.servers import INHERITED

TOOLKIT = "@microsoft/mgt-components"
TEAM = {
    "ada": ("Available", "Available"),
    "bea": ("Busy", "InACall"),
    "cem": ("DoNotDisturb", "Presenting"),
    "dov": ("Away", "Away"),
    "eli": None,
}
STYLE = "<style>body { font-family: sans-serif; margin: 16px } mgt-person { display: block; margin: 8px 0 }</style>"


def shown(served: Served, names: list[str], screenshot: Path) -> list[dict[str, str]]:
    """Return what a page with the README's component shows of each of these people."""
    _, code = snippets.SNIPPETS[TOOLKIT]
    tag = re.search(r"```html\n(<mgt-person .*)\n```", snippets.SECTION)
    assert tag
    tags = [tag[1].replace("alice@contoso.com", name) for name in names]
    html = "\n".join(
        ["<!doctype html><title>mgt-person</title>", STYLE, *tags, '<script type="module" src="/stdin.js"></script>']
    )
    page = {
        "code": snippets.adapted(code, served),
        "html": html,
        "persons": len(names),
        "browser": shutil.which("chromium"),
        "screenshot": str(screenshot),
    }
    done = subprocess.run(
        ["node", "person.mjs"],
        input=json.dumps(page),
        cwd=JS,
        env=INHERITED,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["failures"] == []
    found: list[dict[str, str]] = told["shown"]
    return found


@pytest.fixture
def screenshot(tmp_path: Path) -> Path:
    """Where the picture goes: SCREENSHOT=docs/img/mgt-person.png keeps it for the README."""
    return Path(os.environ.get("SCREENSHOT", tmp_path / "mgt-person.png")).absolute()


def user_id(served: Served, name: str, token: str) -> str:
    answer = requests.get(f"{served.http}/v1.0/users/{name}", headers={"Authorization": f"Bearer {token}"}, timeout=30)
    return str(answer.json()["id"])


def test_a_page_shows_who_does_what(served: Served, app_id: str, screenshot: Path) -> None:
    token = served.emulator.token(app_id)
    names = [f"{name}@contoso.com" for name in TEAM]
    served.emulator.seed(
        *(
            {"userId": user_id(served, name, token), "sessionId": app_id, "availability": pair[0], "activity": pair[1]}
            for name, pair in zip(names, TEAM.values(), strict=True)
            if pair
        )
    )
    people = shown(served, names, screenshot)
    assert [person["name"] for person in people] == names
    assert [person["presence"] for person in people] == ["Available", "In a call", "Presenting", "Away", "Offline"]
    assert screenshot.read_bytes().startswith(b"\x89PNG")


def test_a_person_whose_session_was_cleared_is_offline(served: Served, app_id: str, screenshot: Path) -> None:
    token = served.emulator.token(app_id)
    user = user_id(served, "fay@contoso.com", token)
    served.emulator.seed({"userId": user, "sessionId": app_id, "availability": "Busy", "activity": "InACall"})
    url = f"{served.http}/v1.0/users/{user}/presence/clearPresence"
    cleared = requests.post(url, json={"sessionId": app_id}, headers={"Authorization": f"Bearer {token}"}, timeout=30)
    assert cleared.status_code == 200
    (person,) = shown(served, ["fay@contoso.com"], screenshot)
    assert person["presence"] == "Offline"
