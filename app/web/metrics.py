"""What is counted, and the port where Prometheus reads it. Labels are names of ours, never what a caller sent.

Each worker writes its figures to files in a folder of all workers (prometheus-client's multi-process mode), so that
whichever of them answers a scrape tells the sums of all, dead ones included.
"""

import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.multiprocess import MultiProcessCollector
from typing_extensions import override

from app.services.presence import StoreUnavailable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
UNMATCHED = "unmatched"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SAMPLE_SECONDS = 5
"""Time between two samples of what would cost too much to note at each request."""
SILENCE_SECONDS = 10
"""How long a scraper may take for its request."""


class Metrics:
    """One worker's figures; its methods are called from any thread.

    A scrape has the sessions counted again when no worker did so for `count_every`.
    """

    def __init__(self, count_every: timedelta) -> None:
        self._count_every_seconds = count_every.total_seconds()
        self.registry = CollectorRegistry()
        self._requests = Histogram(
            "presence_http_request_duration_seconds",
            "Time to answer a request, those inside a batch included",
            ("route", "method", "status"),
            buckets=LATENCY_SECONDS,
            registry=self.registry,
        )
        self._answered: dict[tuple[str, str, int], Histogram] = {}
        self._unavailable = Counter(
            "presence_unavailable", "Requests answered 503, by what caused it", ("cause",), registry=self.registry
        )
        tokens = Counter(
            "presence_token_lookups",
            "Tokens looked for among those verified before",
            ("result",),
            registry=self.registry,
        )
        self._known, self._unknown = tokens.labels("hit"), tokens.labels("miss")
        fetches = Counter(
            "presence_jwks_fetches", "Fetches of the issuer's signing keys", ("result",), registry=self.registry
        )
        self._fetched, self._not_fetched = fetches.labels("ok"), fetches.labels("failed")
        self.pool_size = Gauge(
            "presence_db_pool_size",
            "Most database connections that the live workers may hold",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._pool_in_use = Gauge(
            "presence_db_pool_in_use",
            "Database connections in use, as of some seconds ago at most",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.pool_waits = Counter(
            "presence_db_pool_waits", "Times that all connections of a worker were in use", registry=self.registry
        )
        self._repeats = Counter(
            "presence_db_repeats",
            "Statements run again after a deadlock (40P01) or a serialization failure (40001)",
            ("sqlstate",),
            registry=self.registry,
        )
        self._sessions = Gauge(
            "presence_sessions",
            "Live sessions in the database by the availability that each shows",
            ("availability",),
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self._sessions_at = Gauge(
            "presence_sessions_counted_timestamp_seconds",
            "When the sessions were counted",
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )

    def mount(
        self, app: Flask, connections_in_use: Callable[[], int], count_sessions: Callable[[], Mapping[str, int]]
    ) -> None:
        """Time each request from when `logs` first saw it; call it right after `logs.mount`.

        `count_sessions` gives those that live, by availability. While it raises StoreUnavailable, the last count is
        told.
        """
        app.extensions["metrics"] = self
        self._connections_in_use = connections_in_use
        self._count_sessions = count_sessions
        app.after_request(self._answer)

    def token_looked_up(self, hit: bool) -> None:
        """Count a token: it was verified before, or has to be now."""
        (self._known if hit else self._unknown).inc()

    def keys_fetched(self, good: bool) -> None:
        """Count a fetch of signing keys."""
        (self._fetched if good else self._not_fetched).inc()

    def statement_repeated(self, sqlstate: str) -> None:
        """Count a statement that PostgreSQL gave up for the sake of others."""
        self._repeats.labels(sqlstate).inc()

    def serve(self, listener: socket.socket, folder: Path) -> None:
        """Answer, in a thread, on a socket that other workers listen on as well, from the files in their folder."""
        listener.setblocking(False)  # all of them wake for a connection, and one of them gets it
        server = _Server(listener.getsockname(), self.sample)
        server.socket.close()
        server.socket = listener
        server.server_name, server.server_port = listener.getsockname()[:2]
        server.setup_environ()
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]  # prometheus-client leaves it untyped
        answer: WSGIApplication = make_wsgi_app(registry)

        def scrape(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            self.sample()
            self.count(folder)
            return answer(environ, start_response)

        server.set_app(scrape)
        threading.Thread(target=server.serve_forever, args=(SAMPLE_SECONDS,), name="metrics", daemon=True).start()

    def sample(self) -> None:
        """Note what a worker knows of itself alone, for whichever worker answers the next scrape."""
        self._pool_in_use.set(self._connections_in_use())

    def count(self, folder: Path) -> None:
        """Count the sessions if that is due and nobody else is at it.

        A file in the folder is as old as the last count, failed ones included, and is locked during one.
        """
        file = os.open(folder / "counted", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seen = os.fstat(file)
            if seen.st_size and abs(time.time() - seen.st_mtime) < self._count_every_seconds:
                return
            os.pwrite(file, b"\n", 0)
            self._note(self._count_sessions())
        except BlockingIOError:
            pass
        except StoreUnavailable as error:
            log.warning("sessions not counted", extra={"cause": type(error.__cause__ or error).__name__})
        finally:
            os.close(file)

    def _note(self, sessions: Mapping[str, int]) -> None:
        for availability, number in sessions.items():
            self._sessions.labels(availability).set(number)
        self._sessions_at.set_to_current_time()

    def _answer(self, response: Response) -> Response:
        seconds = time.perf_counter() - g.started
        rule, status = request.url_rule, response.status_code
        if rule is None:
            method = request.method if request.method in METHODS else "other"
            self._requests.labels(UNMATCHED, method, status).observe(seconds)
        else:
            key = (rule.rule, request.method, status)
            child = self._answered.get(key)
            if child is None:
                child = self._answered[key] = self._requests.labels(*key)
            child.observe(seconds)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self._unavailable.labels(g.get("cause", "other")).inc()
        return response


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], now_and_then: Callable[[], None]) -> None:
        super().__init__(address, _Handler, bind_and_activate=False)
        self._now_and_then = now_and_then

    @override
    def service_actions(self) -> None:
        self._now_and_then()


class _Handler(WSGIRequestHandler):
    timeout = SILENCE_SECONDS

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Log no scrape."""
