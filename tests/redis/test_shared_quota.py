"""Workers that count together in a real Redis. `make test-redis` runs these; `make test` leaves them out."""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from app.auth.caller import Caller
from app.web.errors import TooManyRequests
from app.web.quota import Quota
from tests.builders import new_id
from tests.servers import free_port


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis server of this run alone."""
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    where = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no")
    with subprocess.Popen(["redis-server", *where], stdout=subprocess.DEVNULL) as server:
        url = f"redis://127.0.0.1:{port}/0"
        client = redis.Redis.from_url(url, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 100))
        assert client.ping()
        client.close()
        yield url
        server.terminate()


def caller() -> Caller:
    return Caller(new_id(), new_id(), app_only=True, roles=frozenset())


def granted(quota: Quota, who: Caller) -> bool:
    try:
        quota.spend(who)
    except TooManyRequests:
        return False
    return True


def test_two_workers_under_load_grant_exactly_the_limit(storage: str) -> None:
    workers, bot = [Quota(100, 3600, storage, time.monotonic) for _ in range(2)], caller()
    with ThreadPoolExecutor(8) as pool:
        grants = list(pool.map(lambda turn: granted(workers[turn % 2], bot), range(300)))
    assert sum(grants) == 100
    assert granted(workers[0], caller())


def test_a_window_outlives_the_worker_that_began_it(storage: str) -> None:
    bot = caller()
    assert granted(Quota(1, 3600, storage, time.monotonic), bot)
    with pytest.raises(TooManyRequests) as refusal:
        Quota(1, 3600, storage, time.monotonic).spend(bot)
    assert 3590 <= refusal.value.retry_after_seconds <= 3600


def test_the_count_is_forgotten_when_its_window_ends(storage: str) -> None:
    bot = caller()
    Quota(1, 3600, storage, time.monotonic).spend(bot)
    client = redis.Redis.from_url(storage)
    (key,) = [key for key in client.scan_iter() if bot.app_id.encode() in key]
    assert 3590 <= client.ttl(key) <= 3600
    client.close()
