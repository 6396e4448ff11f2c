"""How much one caller may ask for, on a clock that is moved."""

import logging
import time

import pytest

from app.auth.caller import Caller
from app.web.errors import TooManyRequests
from app.web.quota import OWN_COUNT_SECONDS, Quota
from tests.builders import new_id
from tests.servers import free_port


class Seconds:
    """What time.time and time.monotonic say."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    moved = Seconds()
    monkeypatch.setattr(time, "time", moved)  # the library takes no other clock
    return moved


def caller(tenant_id: str = "", app_id: str = "") -> Caller:
    return Caller(tenant_id or new_id(), app_id or new_id(), app_only=True, roles=frozenset())


def refused(quota: Quota, who: Caller) -> int:
    with pytest.raises(TooManyRequests) as refusal:
        quota.spend(who)
    return refusal.value.retry_after_seconds


def test_a_window_begins_with_the_first_request_and_ends_on_the_second(seconds: Seconds) -> None:
    quota, bot = Quota(3, 30, None, seconds), caller()
    for _ in range(3):
        quota.spend(bot)
        seconds.now += 5
    assert refused(quota, bot) == 15
    seconds.now += 14.9
    assert refused(quota, bot) == 1
    seconds.now += 0.1
    for _ in range(3):
        quota.spend(bot)
    assert refused(quota, bot) == 30


def test_who_waits_as_long_as_he_is_told_is_let_in(seconds: Seconds) -> None:
    seconds.now += 0.5
    quota, bot = Quota(1, 10, None, seconds), caller()
    quota.spend(bot)
    seconds.now += 3.2
    seconds.now += refused(quota, bot)
    quota.spend(bot)


def test_each_application_of_each_tenant_has_its_own(seconds: Seconds) -> None:
    quota, bot = Quota(1, 30, None, seconds), caller()
    for who in (bot, caller(tenant_id=bot.tenant_id), caller(app_id=bot.app_id)):
        quota.spend(who)
        assert refused(quota, who) == 30


def test_without_its_store_a_process_counts_its_own_and_asks_again_later(
    seconds: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "not-to-be-told"
    quota, bot = Quota(2, 3600, f"redis://:{secret}@127.0.0.1:{free_port()}/0", seconds), caller()
    with caplog.at_level(logging.WARNING, "app.web.quota"):
        quota.spend(bot)
        seconds.now += OWN_COUNT_SECONDS - 1
        quota.spend(bot)
        assert len(caplog.records) == 1
        seconds.now += 1
        assert refused(quota, bot) > 0
    assert len(caplog.records) == 2
    assert secret not in caplog.text
