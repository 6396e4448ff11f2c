"""A day of a small contact centre in about a minute: agents sign in, take calls, pause and go home.

Each agent's telephony, calendar and status board are applications of their own, each with its own presence session. The
emulator's clock is moved; what the terminal shows is what every Graph client would read at that moment.
"""

import random
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid5

from pytest_graph_presence.emulator import PresenceEmulator, running
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

MORNING = datetime(2026, 3, 2, 7, 50, tzinfo=UTC)
EVENING = timedelta(hours=9, minutes=30)
STEP = timedelta(minutes=5)
PACE_SECONDS = 0.35
CALLS_A_STEP = 0.2
"""How likely it is that somebody who is free gets a call."""
HOUSE = UUID("5c1f0f4e-6a52-4f0e-9a63-0d6e0a9a7b11")
AGENTS = {name: str(uuid5(HOUSE, name)) for name in ("Ada", "Bea", "Cem", "Dov", "Eli", "Fay")}
TELEPHONY, CALENDAR, BOARD = (str(uuid5(HOUSE, app)) for app in ("telephony", "calendar", "board"))
COLOURS = {"Available": "green", "Busy": "red", "DoNotDisturb": "bold red", "Away": "yellow", "Offline": "bright_black"}


class Day:
    """What the applications do to presence from morning to evening; the same each time."""

    def __init__(self, emulator: PresenceEmulator) -> None:
        self.emulator = emulator
        self.dice = random.Random(7)  # noqa: S311  # the same day each time
        self.token = cache(lambda app, _hour: emulator.token(app))  # a token lasts for an hour of the server's clock
        self.hour = 0
        self.calls: dict[str, datetime] = {}
        self.log: list[str] = []

    def play(self, now: datetime) -> None:
        """Let everything happen that happens by `now`."""
        since = now - MORNING
        self.hour = since // timedelta(minutes=50)
        if since == timedelta(hours=4):
            self.emulator.fail("*/setPresence", 429, times=3)
            self.note(now, "Graph throttles: the next three writes get 429")
        for number, (name, user) in enumerate(AGENTS.items()):
            begins, ends = timedelta(minutes=5 * number), timedelta(hours=8, minutes=10 * number)
            if since == begins:
                self.note(now, f"{name} signs in")
            if begins <= since < ends and since.seconds % 600 == begins.seconds % 600:
                self.show(user, BOARD, "Available", "Available", "PT30M")
            if since == ends:
                self.note(now, f"{name} goes home")
                self.clear(user, BOARD)
            if since == timedelta(hours=2) and number % 2 == 0:
                self.note(now, f"{name} is in the team's conference")
                self.show(user, CALENDAR, "Busy", "InAConferenceCall", "PT45M")
            self.telephone(name, user, now, working=begins <= since < ends)

    def telephone(self, name: str, user: str, now: datetime, *, working: bool) -> None:
        """Start a call now and then, keep it alive, and end it when it is over."""
        over = self.calls.get(user)
        if over is not None and over <= now:
            del self.calls[user]
            self.note(now, f"{name} hangs up")
            self.clear(user, TELEPHONY)
        elif over is not None:
            self.show(user, TELEPHONY, "Busy", "InACall", "PT10M")
        elif working and self.dice.random() < CALLS_A_STEP:
            self.calls[user] = now + self.dice.randint(1, 5) * STEP
            self.note(now, f"{name} takes a call")
            self.show(user, TELEPHONY, "Busy", "InACall", "PT10M")

    def show(self, user: str, app: str, availability: str, activity: str, duration: str) -> None:
        """Set an application's session; one that is throttled tries once more."""
        body = (
            f'{{"sessionId":"{app}","availability":"{availability}","activity":"{activity}",'
            f'"expirationDuration":"{duration}"}}'
        )
        for _ in range(4):
            if self.post(user, app, "setPresence", body) != HTTPStatus.TOO_MANY_REQUESTS:
                return

    def clear(self, user: str, app: str) -> None:
        """End an application's session."""
        self.post(user, app, "clearPresence", f'{{"sessionId":"{app}"}}')

    def post(self, user: str, app: str, action: str, body: str) -> int:
        """Return the status that a request gets."""
        headers = {"Authorization": f"Bearer {self.token(app, self.hour)}", "Content-Type": "application/json"}
        url = f"{self.emulator.base_url}/users/{user}/presence/{action}"
        try:
            request = urllib.request.Request(url, body.encode(), headers)  # noqa: S310  # to the emulator just started
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # likewise
                status: int = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
        return status

    def note(self, now: datetime, what: str) -> None:
        """Remember something to tell."""
        self.log.append(f"{now:%H:%M}  {what}")


def board(day: Day, now: datetime) -> Group:
    """Return the wallboard: who shows what, and what has just happened."""
    table = Table(title=f"Contact centre, {now:%H:%M}", min_width=46)
    for column in ("agent", "availability", "activity"):
        table.add_column(column)
    for name, user in AGENTS.items():
        availability, activity = day.emulator.presence_of(user)
        colour = COLOURS.get(availability, "white")
        table.add_row(name, Text(availability, colour), Text(activity, colour))
    return Group(table, *day.log[-6:])


def history(emulator: PresenceEmulator, console: Console) -> None:
    """Print the last events, and how many there were."""
    events = emulator.snapshot()["tables"]["presence_event"]
    events.sort(key=lambda event: event["at"])
    names = {user: name for name, user in AGENTS.items()}
    apps = {TELEPHONY: "telephony", CALENDAR: "calendar", BOARD: "board"}
    table = Table(title=f"The last of {len(events)} events")
    for column in ("at", "agent", "application", "what", "shown"):
        table.add_column(column)
    for event in events[-12:]:
        shown = f"{event['availability']}/{event['activity']}"
        table.add_row(event["at"][11:19], names[event["user_id"]], apps[event["session_id"]], event["kind"], shown)
    console.print(table)


@contextmanager
def emulated(console: Console) -> Iterator[PresenceEmulator]:
    """Start an emulator at MORNING."""
    with TemporaryDirectory() as folder:
        console.print("Starting the emulator …")
        with running(Path(folder)) as emulator:
            emulator.freeze(MORNING)
            yield emulator


def main() -> int:
    """Play the day."""
    console = Console()
    with emulated(console) as emulator:
        day = Day(emulator)
        with Live(console=console, refresh_per_second=8) as live:
            for step in range(EVENING // STEP + 1):
                now = MORNING + step * STEP
                emulator.freeze(now)
                day.play(now)
                live.update(board(day, now))
                if console.is_terminal:
                    time.sleep(PACE_SECONDS)
        console.print()
        history(emulator, console)
        for name, user in AGENTS.items():
            console.print(f"{name}: {'/'.join(emulator.presence_of(user))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
