"""The queue in front of SQLite's write lock: between the threads of a process and between processes."""

import fcntl
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest

from app.db.turns import Place, Turns

IMPATIENT, SOON, PATIENT = 0.01, 10.0, 60.0


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    return tmp_path / "presence.sqlite3-turn"


@contextmanager
def holding(lock_file: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that takes a turn, tells so, and has it until it is killed."""
    program = (
        "import sys, pathlib; from app.db.turns import Turns\n"
        "turns = Turns(pathlib.Path(sys.argv[1]), 60); turns.begin(); print('mine', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(lock_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.fixture
def other_process(lock_file: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has a turn until it is killed."""
    with holding(lock_file) as process:
        assert process.stdout
        assert process.stdout.readline() == "mine\n"
        yield process


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def take(turns: Turns) -> None:
    turns.begin()
    turns.end()


def test_a_thread_waits_for_the_turn_of_another(lock_file: Path) -> None:
    turns = Turns(lock_file, PATIENT)
    turns.begin()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(take, turns)
        assert not waiting.done()
        turns.end()
        waiting.result()


def test_threads_have_their_turns_in_the_order_in_which_they_came(lock_file: Path) -> None:
    turns, order = Turns(lock_file, PATIENT), list[int]()

    def take_as(number: int) -> None:
        turns.begin()
        order.append(number)
        turns.end()

    turns.begin()
    with ThreadPoolExecutor(9) as threads:
        for number in range(9):
            threads.submit(take_as, number)
            while len(turns.line._queue) <= number:
                pass
        turns.end()
    assert order == [*range(9)]


def lined_up(turns: Turns, threads: ThreadPoolExecutor, places: Iterable[Place[Any]]) -> list[Future[bool]]:
    """Threads that wait for their turns in the order of the places; each ends the turn that it gets."""

    def wait(place: Place[Any]) -> bool:
        mine = turns.begin(place)
        if mine:
            turns.end()
        return mine

    waiting = []
    for number, place in enumerate(places, 1):
        waiting.append(threads.submit(wait, place))
        while len(turns.line._queue) < number:
            pass
    return waiting


def test_a_turn_serves_those_behind_up_to_one_who_wants_his_own(lock_file: Path) -> None:
    turns = Turns(lock_file, PATIENT)
    places: list[Place[Any]] = [Place(str), Place(str), Place(), Place(str)]
    turns.begin()
    with ThreadPoolExecutor(4) as threads:
        waiting = lined_up(turns, threads, places)
        assert turns.line.company() == places[:2]
        assert not any(thread.done() for thread in waiting)  # they wait for the end of the turn
        turns.end()
        assert [thread.result() for thread in waiting] == [False, False, True, True]
    take(turns)


def test_a_turn_serves_so_many_and_no_more(lock_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.db.turns.MOST_TOGETHER", 2)
    turns = Turns(lock_file, PATIENT)
    places: list[Place[Any]] = [Place(str) for _ in range(3)]
    turns.begin()
    with ThreadPoolExecutor(3) as threads:
        waiting = lined_up(turns, threads, places)
        assert turns.line.company() == places[:2]
        turns.end()
        assert [thread.result() for thread in waiting] == [False, False, True]


def test_who_is_being_served_when_his_time_is_up_does_not_give_up(lock_file: Path) -> None:
    turns, place = Turns(lock_file, PATIENT), Place(str)
    called, served = place.called, threading.Event()

    class TimeIsUp:
        def acquire(self, timeout: float | None = None) -> bool:
            if timeout is None:
                return called.acquire()
            assert turns.line.company() == [place]
            served.set()
            return False

    place.called = cast("threading.Lock", TimeIsUp())
    turns.begin()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(turns.begin, place)
        assert served.wait(PATIENT)
        assert not waiting.done()
        place.called = called
        turns.end()
        assert waiting.result() is False


def test_who_gave_up_in_the_queue_is_passed_over(lock_file: Path) -> None:
    turns = Turns(lock_file, IMPATIENT)
    turns.begin()
    with ThreadPoolExecutor(1) as threads, pytest.raises(TimeoutError):
        threads.submit(turns.begin).result()
    assert not turns.line._queue
    turns.end()
    take(turns)


def test_a_process_that_has_had_its_turn_lets_the_other_one_have_the_next(lock_file: Path) -> None:
    ours = Turns(lock_file, PATIENT)
    ours.begin()
    with holding(lock_file) as other, ThreadPoolExecutor(1) as threads:
        while not is_locked(lock_file.with_name(f"{lock_file.name}-next")):
            assert other.poll() is None
        again = threads.submit(take, ours)
        ours.end()
        assert other.stdout
        assert other.stdout.readline() == "mine\n"
        assert not again.done()
        other.kill()
        again.result()


def test_a_thread_gives_up_in_time(lock_file: Path) -> None:
    turns = Turns(lock_file, IMPATIENT)
    turns.begin()
    with ThreadPoolExecutor(1) as threads, pytest.raises(TimeoutError):
        threads.submit(turns.begin).result()
    turns.end()
    take(turns)


def test_a_process_gives_up_in_time(lock_file: Path, other_process: subprocess.Popen[str]) -> None:
    turns = Turns(lock_file, IMPATIENT)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            turns.begin()


def test_a_process_that_dies_gives_way(lock_file: Path, other_process: subprocess.Popen[str]) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(take, Turns(lock_file, PATIENT))
        assert not waiting.done()
        other_process.kill()
        waiting.result()


def test_a_wait_that_was_given_up_takes_no_turn_later(lock_file: Path, other_process: subprocess.Popen[str]) -> None:
    gave_up = Turns(lock_file, IMPATIENT)
    with pytest.raises(TimeoutError):
        gave_up.begin()
    other_process.kill()
    take(Turns(lock_file, PATIENT))


def test_a_lock_file_that_cannot_be_made_leaves_the_queue_usable(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    turns = Turns(folder / "turn", PATIENT)
    with pytest.raises(FileNotFoundError):
        turns.begin()
    folder.mkdir()
    take(turns)


def test_where_no_thread_can_be_started_nobody_is_left_to_take_the_turn(
    lock_file: Path, other_process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = Turns(lock_file, IMPATIENT)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
        with pytest.raises(RuntimeError):
            turns.begin()
    turns._waiter.submit(int).result(SOON)  # the thread waits for nothing that it was given before
    other_process.kill()
    take(Turns(lock_file, PATIENT))
