"""How much one caller may ask for."""

import logging
import math
import time
from collections.abc import Callable

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import FixedWindowRateLimiter, RateLimiter

from app.auth.caller import Caller
from app.web.errors import TooManyRequests

log = logging.getLogger(__name__)

SHARED_TIMEOUT_SECONDS = 0.5
OWN_COUNT_SECONDS = 10
"""How long a process counts by itself once the shared count was not to be had."""


class Quota:
    """Counts the requests of each application of each tenant, in windows that begin with the first of them.

    Each process counts its own, unless `storage` (redis://…) lets all count together. While that cannot be reached,
    each counts its own again: nobody is refused for it. Source: Graph, "throttling limits", "cloud communication".
    """

    def __init__(self, most: int, seconds: int, storage: str | None, monotonic: Callable[[], float]) -> None:
        self._limit: RateLimitItem = RateLimitItemPerSecond(most, seconds)
        self._own = FixedWindowRateLimiter(MemoryStorage())
        self._shared = storage and FixedWindowRateLimiter(
            storage_from_string(
                storage,
                wrap_exceptions=True,
                socket_timeout=SHARED_TIMEOUT_SECONDS,
                socket_connect_timeout=SHARED_TIMEOUT_SECONDS,
            )
        )
        self._monotonic = monotonic
        self._own_until = -math.inf

    def spend(self, caller: Caller) -> None:
        """Count one request of an application in a tenant; raises as `take` does."""
        self.take(caller.tenant_id, caller.app_id)

    def take(self, *who: str) -> None:
        """Count one request of whom these words name.

        Raises:
            TooManyRequests: there is none left in this window.
        """
        if self._shared and self._monotonic() >= self._own_until:
            try:
                return self._count(self._shared, *who)
            except StorageError as error:
                self._own_until = self._monotonic() + OWN_COUNT_SECONDS
                log.warning("The shared count of requests cannot be had: %.200r", error.storage_error)
        return self._count(self._own, *who)

    def _count(self, limiter: RateLimiter, *who: str) -> None:
        if not limiter.hit(self._limit, *who):
            ends_at = limiter.get_window_stats(self._limit, *who).reset_time
            raise TooManyRequests(max(1, math.ceil(ends_at - time.time())))
