"""Which connections a worker takes, and which it leaves to others."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.workers.gthread import ThreadWorker

from app.web import worker
from app.web.worker import EvenWorker
from tests.servers import shipped_settings


class Listener:
    """A port at which connections wait."""

    def __init__(self, *, waiting: int) -> None:
        self.waiting = waiting


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EvenWorker]]:
    """Two workers that take connections without a poller, as they are while one of them runs."""

    def accept(self: Any, listener: Listener) -> None:
        listener.waiting -= 1
        self.nr_conns += 1

    def look(self: Any, timeout: float) -> None:
        self.looked.append(timeout)
        if self._accepting and self.listener.waiting:
            self.accept(self.listener)

    monkeypatch.setattr(ThreadWorker, "accept", accept)
    monkeypatch.setattr(ThreadWorker, "wait_for_and_dispatch_events", look)
    monkeypatch.setattr(ThreadWorker, "set_accept_enabled", lambda self, enabled: setattr(self, "_accepting", enabled))
    settings, listener = shipped_settings(), Listener(waiting=0)
    made = [EvenWorker(age, 1, [], None, 60, settings, None) for age in (1, 2)]
    for each in made:
        each.looked, each.listener, each._accepting = [], listener, True
        turn(each)
    yield made
    for each in made:
        each.forget()
        each.tmp.close()


def turn(one: Any) -> None:
    """Go once around the loop of a worker."""
    one._accepting = True  # as gunicorn does while there is room
    one.wait_for_and_dispatch_events(1.0)


def test_workers_take_turns(workers: list[Any]) -> None:
    first, second = workers
    first.listener.waiting = 4
    for _ in range(4):  # the first is always the first to wake up
        turn(first)
        turn(second)
    assert (first.nr_conns, second.nr_conns) == (2, 2)


def test_who_has_more_looks_away_and_comes_back(workers: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = workers
    times = iter((1.0, 1.004, 1.006, 2.0))
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: next(times)))
    first.nr_conns, first.listener.waiting = 1, 1
    for _ in range(5):  # at 1.0 it is left to the second, which is stopped; then looked away; again at 1.004; …
        turn(first)
    assert (first.nr_conns, first.listener.waiting) == (2, 0)
    assert first.looked[1:] == [1.0, worker.PATIENCE_SECONDS, 1.0, worker.PATIENCE_SECONDS, 1.0]
    first.listener.waiting = 1  # long after, the patience begins anew
    turn(first)
    assert (first.nr_conns, first.listener.waiting) == (2, 1)


def test_what_another_has_taken_leaves_the_patience_whole(workers: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = workers
    times = iter((1.0, 1.001, 2.0))
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: next(times)))
    first.nr_conns, first.listener.waiting = 2, 1
    turn(first)
    turn(second)
    assert (first.nr_conns, second.nr_conns) == (2, 1)
    for _ in range(2):
        turn(first)
    first.listener.waiting = 1
    turn(first)
    assert first.listener.waiting == 1


@pytest.mark.parametrize("ended", ["stopping", "gone"])
def test_nobody_waits_for_a_worker_that_takes_no_more(workers: list[Any], ended: str) -> None:
    first, second = workers
    if ended == "gone":
        second.forget()
    else:
        second.alive = False
        second.wait_for_and_dispatch_events(1.0)
    first.nr_conns, first.listener.waiting = 5, 1
    turn(first)
    assert first.nr_conns == 6


def test_gunicorn_outlives_a_worker_of_another_class() -> None:
    shipped_settings().child_exit(SimpleNamespace(), SimpleNamespace(pid=1))  # an error there would end it


def test_a_worker_alone_takes_them_all(workers: list[Any]) -> None:
    first, second = workers
    second.forget()
    first.listener.waiting = 3
    for _ in range(3):
        turn(first)
    assert first.nr_conns == 3


def test_the_shipped_settings_name_it() -> None:
    assert shipped_settings().worker_class is EvenWorker
