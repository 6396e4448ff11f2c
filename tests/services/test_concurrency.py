"""Many workers at once: threads of one process, and processes with a service of their own on the same database."""

import multiprocessing
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask
from sqlalchemy import URL, Engine, select, text

from app.db.models import PresenceEvent, PresenceSession
from app.db.store import make_store
from app.domain.aggregate import aggregate
from app.domain.values import IN_A_CALL, SETTABLE, EventKind, SessionKey, Shown
from app.factory import create_app, utc_now
from app.web.errors import RETRY_AFTER_SECONDS
from config import Settings
from tests.builders import READ_WRITE, Application, Clock, Graph, application, new_id

PROCESSES, THREADS = 4, 4
CALLERS = PROCESSES * THREADS
ROUNDS = 5
STORM_STEPS = 20
WRITERS, CROWD_STEPS = 64, 5
PATIENCE = timedelta(seconds=60)
"""How long a request waits for the database, on a slow machine; and how long a worker waits for the others."""

SKEWS = (timedelta(0), timedelta(0), timedelta(minutes=-2), timedelta(minutes=6))
"""How far each process's clock is ahead: what the last one set an hour ahead is live for all, what others show has
faded or expired for the last one alone."""


class Task(NamedTuple):
    """What all threads of all processes are to do at the same instant."""

    name: str
    database: URL
    users: list[str]
    apps: list[Application]
    threads: int = THREADS
    patience: timedelta = PATIENCE


Answers = list[tuple[str, int]]


def clear(service: Flask, task: Task, _seed: int) -> Answers:
    """Clear one session, which everybody clears."""
    graph = Graph(service.test_client(), Clock())
    return [("clear", graph.clears(task.users[0], task.apps[0]).status_code)]


def storm(service: Flask, task: Task, seed: int) -> Answers:
    """Set, keep alive and clear at random; the seed decides what, not when."""
    graph, chance, answers = Graph(service.test_client(), Clock()), random.Random(seed), []  # noqa: S311
    for _ in range(STORM_STEPS):
        user, app = chance.choice(task.users), chance.choice(task.apps)
        if chance.random() < 0.3:
            answers.append(("clear", graph.clears(user, app).status_code))
        else:
            shown = chance.choice(SETTABLE[:3])  # few, so that many a set is a keep-alive
            duration = chance.choice([None, "PT1H"])
            answers.append(("set", graph.shows(user, app, shown, duration).status_code))
    return answers


def crowd(service: Flask, task: Task, _seed: int) -> Answers:
    """Write for users of one's own, as fast as may be."""
    graph, answers = Graph(service.test_client(), Clock()), []
    for _ in range(CROWD_STEPS):
        response = graph.shows(new_id(), task.apps[0], IN_A_CALL)
        answers.append((response.headers.get("Retry-After", ""), response.status_code))
    return answers


TASKS: dict[str, Callable[[Flask, Task, int], Answers]] = {"clear": clear, "storm": storm, "crowd": crowd}


def service_on(url: URL, jwks_file: Path, skew: timedelta = timedelta(0), patience: timedelta = PATIENCE) -> Flask:
    settings = Settings(
        presence_env="development", database_url=url, auth_jwks_uri=str(jwks_file), database_timeout=patience
    )
    return create_app(settings, lambda: utc_now() + skew)


def at_once(service: Flask, task: Task, number: int, together: Any) -> Answers:
    """Do the task in its number of threads, when all threads of all processes have come."""
    patience = PATIENCE.total_seconds()
    ready = threading.Barrier(task.threads, action=lambda: together.wait(patience))

    def run(thread: int) -> Answers:
        ready.wait(patience)
        return TASKS[task.name](service, task, number * task.threads + thread)

    with ThreadPoolExecutor(task.threads) as threads:
        return [answer for answers in threads.map(run, range(task.threads)) for answer in answers]


def work(number: int, jwks_file: Path, tasks: Pipe, together: Any) -> None:
    """The life of one process: tasks until there are no more, with a service on each database that they name."""
    service_of = cache(lambda url, patience: service_on(url, jwks_file, SKEWS[number], patience))
    while (task := tasks.recv()) is not None:
        tasks.send(at_once(service_of(task.database, task.patience), task, number, together))


@dataclass
class Workers:
    """Processes that do a task at the same instant, each in several threads."""

    pipes: list[Pipe]

    def do(self, task: Task) -> Answers:
        for pipe in self.pipes:
            pipe.send(task)
        answers: Answers = []
        for pipe in self.pipes:
            assert pipe.poll(PATIENCE.total_seconds()), "a worker does not answer"
            answers += pipe.recv()
        return answers


@contextmanager
def processes(jwks_file: Path) -> Iterator[Workers]:
    spawn = multiprocessing.get_context("spawn")
    together = spawn.Barrier(PROCESSES)
    pairs = [spawn.Pipe() for _ in range(PROCESSES)]
    started = [
        spawn.Process(target=work, args=(number, jwks_file, theirs, together), daemon=True)
        for number, (_, theirs) in enumerate(pairs)
    ]
    try:
        for process in started:
            process.start()
        yield Workers([ours for ours, _ in pairs])
        for ours, _ in pairs:
            ours.send(None)
        for process in started:
            process.join(PATIENCE.total_seconds())
    finally:
        for process in started:
            process.kill()
            process.join()
            process.close()
        for pair in pairs:
            for end in pair:
                end.close()


@pytest.fixture(scope="session")
def workers(jwks_file: Path) -> Iterator[Workers]:
    with processes(jwks_file) as started:
        yield started


@pytest.fixture(scope="module")
def service(database: URL, jwks_file: Path) -> Iterator[Flask]:
    """A service of this process, on the true clock, as the workers' are."""
    made = service_on(database, jwks_file)
    yield made
    made.extensions["engine"].dispose()


@pytest.fixture
def here(service: Flask) -> Graph:
    return Graph(service.test_client(), Clock(datetime.now(UTC) - timedelta(hours=1)))


def caller(graph: Graph) -> Application:
    return application(graph.clock, graph.tenant_id, READ_WRITE)


def assert_one_ended_it(answers: Answers, engine: Engine, user_id: str) -> None:
    assert Counter(status for _, status in answers) == {200: 1, 404: CALLERS - 1}
    with engine.connect() as connection:
        kinds = connection.scalars(
            select(PresenceEvent.kind).where(PresenceEvent.user_id == user_id).order_by(PresenceEvent.id)
        ).all()
    assert kinds == [EventKind.SET, EventKind.CLEARED]


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_of_many_threads_that_clear_one_session_exactly_one_does(
    service: Flask, database: URL, here: Graph, _round: int
) -> None:
    bot, alice = caller(here), new_id()
    assert here.shows(alice, bot, IN_A_CALL).status_code == 200
    together = threading.Barrier(CALLERS)

    def run(_number: int) -> Answers:
        together.wait(PATIENCE.total_seconds())
        return clear(service, Task("clear", database, [alice], [bot]), 0)

    with ThreadPoolExecutor(CALLERS) as threads:
        answers = [answer for answers in threads.map(run, range(CALLERS)) for answer in answers]
    assert_one_ended_it(answers, service.extensions["engine"], alice)


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_of_many_processes_that_clear_one_session_exactly_one_does(
    service: Flask, workers: Workers, database: URL, here: Graph, _round: int
) -> None:
    bot, alice = caller(here), new_id()
    assert here.shows(alice, bot, IN_A_CALL).status_code == 200
    answers = workers.do(Task("clear", database, [alice], [bot]))
    assert_one_ended_it(answers, service.extensions["engine"], alice)


def test_after_a_storm_the_history_replays_to_the_sessions_and_the_view_agrees(
    service: Flask, workers: Workers, database: URL, here: Graph
) -> None:
    engine: Engine = service.extensions["engine"]
    users, apps = [new_id() for _ in range(2)], [caller(here) for _ in range(3)]
    answers = Counter(workers.do(Task("storm", database, users, apps)))
    assert {status for _, status in answers} == {200, 404}
    assert answers["set", 404] == 0
    told = events(engine, here.tenant_id)
    assert sum(kind is EventKind.CLEARED for kind, _, _ in told) == answers["clear", 200]
    assert sum(kind is EventKind.SET for kind, _, _ in told) < answers["set", 200]
    assert replay(told) == sessions(engine, here.tenant_id)
    for user_id in users:
        assert_the_view_agrees(engine, here.tenant_id, user_id)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True, scope="session")
@pytest.mark.parametrize(
    ("patience", "expected"),
    [
        pytest.param(PATIENCE, {("", 200)}, id="patient"),
        pytest.param(timedelta(milliseconds=20), {("", 200), (str(RETRY_AFTER_SECONDS), 503)}, id="impatient"),
    ],
)
def test_of_sixty_four_writers_nobody_is_refused_but_who_would_wait_too_long(
    service: Flask, workers: Workers, database: URL, here: Graph, patience: timedelta, expected: set[tuple[str, int]]
) -> None:
    answers = Counter(workers.do(Task("crowd", database, [], [caller(here)], WRITERS // PROCESSES, patience)))
    assert set(answers) == expected
    assert len(events(service.extensions["engine"], here.tenant_id)) == answers["", 200]


Told = list[tuple[EventKind, SessionKey, Shown]]


def events(engine: Engine, tenant_id: str) -> Told:
    table = PresenceEvent
    columns = (table.kind, table.tenant_id, table.user_id, table.session_id, table.availability, table.activity)
    with engine.connect() as connection:
        rows = connection.execute(select(*columns).where(table.tenant_id == tenant_id).order_by(table.id))
        return [(kind, SessionKey(*key), Shown(*shown)) for kind, *key, shown in grouped(rows)]


def sessions(engine: Engine, tenant_id: str) -> dict[SessionKey, Shown]:
    table = PresenceSession
    columns = (table.tenant_id, table.user_id, table.session_id, table.availability, table.activity)
    with engine.connect() as connection:
        rows = connection.execute(select(*columns).where(table.tenant_id == tenant_id))
        return {SessionKey(*key): Shown(*shown) for *key, shown in grouped(rows)}


def grouped(rows: Any) -> Iterator[list[Any]]:
    """Each row with its last two columns as one."""
    for row in rows:
        *others, availability, activity = row
        yield [*others, (availability, activity)]


def replay(told: Told) -> dict[SessionKey, Shown]:
    standing: dict[SessionKey, Shown] = {}
    for kind, key, shown in told:
        if kind is EventKind.SET:
            standing[key] = shown
        else:
            assert standing.pop(key) == shown, "what ended is not what had been set"
    return standing


def assert_the_view_agrees(engine: Engine, tenant_id: str, user_id: str) -> None:
    stored = make_store(engine).read_user(tenant_id, user_id).sessions
    seen = text("SELECT availability, activity FROM presence_now WHERE tenant_id = :tenant AND user_id = :user")
    with engine.connect() as connection:
        rows = connection.execute(seen, {"tenant": tenant_id, "user": user_id}).all()
    assert [tuple(row) for row in rows] == [aggregate(stored, utc_now())] * bool(stored)
