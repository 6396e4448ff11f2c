"""A small PBX connector: it shows a user as in a call while the call lasts.

It talks to whatever speaks Microsoft Graph's presence API: Graph itself, or the emulator of its tests.
"""

import time
from collections.abc import Callable

import httpx

IN_A_CALL = {"availability": "Busy", "activity": "InACall"}
LEASE = "PT10M"
"""How long a call shows without a keep-alive: longer than the pause between two, short enough to heal by itself."""
TRIES = 4


class Connector:
    """Shows calls as presence, as one application."""

    def __init__(
        self, base_url: str, app_id: str, token: Callable[[], str], wait: Callable[[float], None] = time.sleep
    ) -> None:
        self._client = httpx.Client(base_url=base_url)
        self._app_id = app_id
        self._token = token
        self._wait = wait

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._client.close()

    def call_started(self, user_id: str) -> None:
        """Show the user as in a call. Called again while the call lasts, it is the keep-alive."""
        self._post(user_id, "setPresence", {**IN_A_CALL, "expirationDuration": LEASE})

    keep_alive = call_started

    def call_ended(self, user_id: str) -> None:
        """Stop showing it. A session that is gone already (404) is what was wanted."""
        self._post(user_id, "clearPresence", {}, gone_is_fine=True)

    def _post(self, user_id: str, action: str, body: dict[str, str], *, gone_is_fine: bool = False) -> None:
        for tries_left in reversed(range(TRIES)):
            try:
                answer = self._client.post(
                    f"/users/{user_id}/presence/{action}",
                    json={"sessionId": self._app_id, **body},
                    headers={"Authorization": f"Bearer {self._token()}"},
                )
            except httpx.TransportError:  # no answer: it may have been done, and may be done again
                if not tries_left:
                    raise
                continue
            if answer.status_code in {429, 503, 504} and tries_left:
                self._wait(float(answer.headers.get("Retry-After", "1")))
                continue
            if not (answer.status_code == 404 and gone_is_fine):
                answer.raise_for_status()
            return
