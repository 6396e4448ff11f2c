"""What is broken, how, and what it means for what clients were told."""

import errno
import os
import resource
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import psutil

from app.emulator.tokens import app_only_claims
from tests.builders import AUDIENCE, READ_WRITE, new_id
from tests.chaos.clients import Clients, until
from tests.chaos.rig import TIMEOUT_SECONDS, Rig
from tests.tokens import rsa_key, signed


class Skipped(Exception):
    """The fault cannot be made here; the message says why."""


class Failed(Exception):
    """The service did not do what it must while it lasted; the message says what."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong while clients are served."""

    name: str
    inject: Callable[[Rig, Clients], int]
    """Makes it and undoes it; returns how often."""
    on_sqlite: bool = True
    on_postgresql: bool = True
    loses_database: bool = False
    """PostgreSQL goes away while it works: of a 503 nobody knows whether it happened."""


def kill_workers(rig: Rig, clients: Clients) -> int:
    for _ in range(3):
        for worker in rig.workers():
            worker.kill()
        if not clients.served():
            raise Failed("no new worker served")
    return 3


def kill_master(rig: Rig, _clients: Clients) -> int:
    workers = rig.workers()
    rig.server.process.kill()
    time.sleep(2)  # they notice, and finish what they have
    for worker in workers:  # what a supervisor does with what is left
        send(worker, signal.SIGTERM)
    psutil.wait_procs(workers, timeout=30)
    rig.stop_service()
    rig.start_service()
    return 1


def kill_postgres(rig: Rig, _clients: Clients) -> int:
    for process in rig.database.processes():
        send(process, signal.SIGKILL)
    time.sleep(2)
    rig.database.start()
    return 1


def hang_postgres(rig: Rig, clients: Clients) -> int:
    """Stop every process of the server for longer than a request may take, twice."""
    for _ in range(2):
        stopped = rig.database.processes()
        stopped_at = time.monotonic()
        for process in stopped:
            send(process, signal.SIGSTOP)
        try:
            time.sleep(2 * TIMEOUT_SECONDS + 1)
            unanswered = clients.waiting(since=stopped_at)
        finally:
            for process in stopped:
                send(process, signal.SIGCONT)
        if unanswered:
            raise Failed(f"{unanswered} requests waited for all the time that the database hung")
        time.sleep(1)
    return 2


def lock_database(rig: Rig, _clients: Clients) -> int:
    """Hold the lock for longer than a request may take: every connection of every pool comes to wait for it."""
    for _ in range(2):
        with rig.database.locked():
            time.sleep(TIMEOUT_SECONDS + 1)
        time.sleep(0.5)
    return 2


def fill_disk(rig: Rig, clients: Clients) -> int:
    for _ in range(2):
        before = clients.refused()
        with full(rig):
            time.sleep(2)
        if rig.is_sqlite and clients.refused() == before:
            raise Failed("the disk was not full enough for anybody to notice")
        rig.database.start()  # PostgreSQL may have given up
        time.sleep(1)
    return 2


@contextmanager
def full(rig: Rig) -> Iterator[None]:
    """Leave no room: none on the small disk, else none for what SQLite's files would grow by."""
    if os.path.ismount(rig.database.folder):
        balloon = rig.database.folder / "balloon"
        try:
            with balloon.open("wb", buffering=0) as file:
                inflate(file.fileno(), 1 << 20)
                inflate(file.fileno(), 1 << 12)
            yield
        finally:
            balloon.unlink()
    elif rig.is_sqlite:
        limit_files(rig, 0)
        try:
            yield
        finally:
            limit_files(rig, resource.RLIM_INFINITY)
    else:
        raise Skipped("only root can mount a small disk")


def inflate(file: int, size_bytes: int) -> None:
    try:
        while os.write(file, bytes(size_bytes)):
            pass
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def limit_files(rig: Rig, size_bytes: int) -> None:
    for worker in rig.workers():
        hard = worker.rlimit(psutil.RLIMIT_FSIZE)[1]
        worker.rlimit(psutil.RLIMIT_FSIZE, (size_bytes, hard))


def move_clock(rig: Rig, _clients: Clients) -> int:
    """Let the service's clock jump by an hour, forth and back, past where it was, and home."""
    offset = rig.database.folder.parent / "clock"

    def move(seconds: int) -> None:
        swap = offset.with_suffix(".new")
        swap.write_text(str(seconds))
        swap.rename(offset)

    def events_off_by() -> float:
        return (rig.database.newest_event_at() - datetime.now(UTC)).total_seconds()

    move(0)
    rig.stop_service()
    rig.start_service("tests.chaos.jumpy:app", CLOCK_OFFSET_FILE=str(offset))
    jumps = (3600, 0, -3600, 1800, -1800, 0)
    for seconds in jumps:
        move(seconds)
        if not until(lambda: abs(events_off_by() - seconds) < 60, 10):  # noqa: B023
            raise Failed(f"the clock was moved by {seconds} s, and events say {events_off_by():+.0f} s")
    rig.stop_service()
    rig.start_service()
    return len(jumps)


def lose_issuer(rig: Rig, clients: Clients) -> int:
    """Let the key server fail, then hang, for longer than a key set is fresh: known tokens must not notice."""
    for fails in (True, False):
        rig.issuer.fails = fails
        if not fails:
            rig.issuer.answers.clear()
        try:
            time.sleep(2)
            before, asked_at = clients.acknowledged(), time.monotonic()
            status = ask_with_unknown_key(rig)
            time.sleep(1)
            if status not in {401, 503} or time.monotonic() - asked_at > 15:
                raise Failed(f"an unknown key got {status} after {time.monotonic() - asked_at:.0f} s")
            if clients.acknowledged() == before:
                raise Failed("known tokens were not served")
        finally:
            rig.issuer.fails = False
            rig.issuer.answers.set()
    return 2


def terminate(rig: Rig, clients: Clients) -> int:
    """End gunicorn with requests in flight: each must be answered."""
    with rig.database.locked():
        time.sleep(1)
        ended_at = time.monotonic()
        in_flight = clients.waiting(since=ended_at - 0.5)
        rig.server.process.terminate()
        time.sleep(0.5)
    rig.server.process.wait(30)
    rig.stop_service()
    dropped = [
        request
        for request in clients.requests
        if request.sent_at < ended_at - 0.5 < ended_at < request.ended_at and request.status is None
    ]
    if not in_flight or dropped:
        raise Failed(f"{in_flight} requests were in flight at SIGTERM, of which {len(dropped)} got no answer")
    rig.start_service()
    return 1


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal; a process that has just ended needs none."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def ask_with_unknown_key(rig: Rig) -> int:
    claims = app_only_claims(new_id(), new_id(), AUDIENCE, [READ_WRITE], datetime.now(UTC))
    token = signed(claims, rsa_key("unknown").named(new_id()))
    request = urllib.request.Request(
        f"http://127.0.0.1:{rig.port}/v1.0/users/{new_id()}/presence", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


FAULTS = (
    Fault("kill -9 of a worker", kill_workers),
    Fault("kill -9 of gunicorn's master", kill_master),
    Fault("SIGTERM under load", terminate),
    Fault("kill -9 of all of PostgreSQL", kill_postgres, on_sqlite=False, loses_database=True),
    Fault("PostgreSQL hangs (SIGSTOP)", hang_postgres, on_sqlite=False, loses_database=True),
    Fault("pool exhausted, table locked", lock_database, on_sqlite=False),
    Fault("locked by another process", lock_database, on_postgresql=False),
    Fault("disk full", fill_disk, loses_database=True),
    Fault("clock jumps by an hour", move_clock),
    Fault("key server fails, then hangs", lose_issuer),
)
"""In this order: what breaks most comes where there is most to lose."""
