"""Traces: one span for each request, as part of the caller's trace, with nothing of anybody in it."""

import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from flask import Flask
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from typing_extensions import override

from app.factory import create_app
from app.web import traces
from config import Settings, load
from tests.builders import Clock, Graph, new_id
from tests.servers import gunicorn, run

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced(
    flask_app: Flask,
    jwks_file: Path,
    tmp_path: Path,
    spans: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> Iterator[Graph]:
    """A client of an application that is traced into `spans`, on the same database as all."""
    monkeypatch.setattr(traces, "exporter", lambda _name: SimpleSpanProcessor(spans))
    settings = Settings(
        presence_env="development",
        database_url=flask_app.extensions["engine"].url,
        auth_jwks_uri=str(jwks_file),
        instance_path=tmp_path,
        otel_traces_exporter="console",
    )
    app = create_app(settings, clock)
    yield Graph(app.test_client(), clock)
    app.extensions["engine"].dispose()


def told(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_each_request_is_a_span_that_names_its_route_and_nobody(
    traced: Graph, spans: InMemorySpanExporter, alice: str
) -> None:
    bot = traced.app()
    answer = traced.reads(alice, bot)
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind, span.parent) == ("GET /v1.0/users/<user_id>/presence", SpanKind.SERVER, None)
    assert told(span) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/v1.0/users/<user_id>/presence",
        "url.scheme": "http",
        "presence.request_id": answer.headers["request-id"],
    }
    assert span.resource.attributes["service.name"] == "graph-presence"
    assert span.status.is_ok
    for private in (alice, bot.app_id, bot.tenant_id, bot.token):
        assert private not in span.to_json()


def test_what_nobody_serves_and_what_is_answered_before_routing_are_spans_without_a_path(
    traced: Graph, spans: InMemorySpanExporter
) -> None:
    path = f"/{new_id()}"
    assert traced.client.get(path).status_code == 404
    assert traced.client.options(path).status_code == 204
    assert [span.name for span in spans.get_finished_spans()] == ["GET", "OPTIONS"]
    assert not any(path in span.to_json() for span in spans.get_finished_spans())


def test_a_span_is_part_of_the_callers_trace_and_a_batchs_requests_are_part_of_the_batch(
    traced: Graph, spans: InMemorySpanExporter, alice: str
) -> None:
    requests = [{"id": str(n), "method": "GET", "url": f"/users/{alice}/presence"} for n in range(2)]
    answer = traced.post(traced.app(), "/$batch", {"requests": requests}, traceparent=f"00-{TRACE}-{PARENT}-01")
    assert [each["status"] for each in answer.get_json()["responses"]] == [200, 200]
    *inner, batch = spans.get_finished_spans()
    assert len(inner) == 2
    assert {f"{span.context.trace_id:032x}" for span in (*inner, batch)} == {TRACE}
    assert batch.parent
    assert f"{batch.parent.span_id:016x}" == PARENT
    assert {span.parent and span.parent.span_id for span in inner} == {batch.context.span_id}


def test_a_failure_is_an_error(traced: Graph, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.services.presence.PresenceService.read", lambda *_: 1 / 0)
    assert traced.reads(new_id(), traced.app()).status_code == 500
    (span,) = spans.get_finished_spans()
    assert not span.status.is_ok


class Collector(BaseHTTPRequestHandler):
    """Takes what OTLP sends."""

    taken: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        self.taken.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    @override
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_worker_sends_its_spans_by_otlp_before_it_ends(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        environment = {
            "PRESENCE_ENV": "development",
            "DATABASE_URL": f"sqlite:///{tmp_path}/presence.sqlite3",
            "WEB_CONCURRENCY": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "OTEL_SERVICE_NAME": "the-name-given",
        }
        with gunicorn(**environment) as server, urllib.request.urlopen(f"{server.base}/healthz", timeout=30):  # noqa: S310
            pass
        collector.shutdown()
    ((path, body),) = Collector.taken
    assert path == "/v1/traces"
    assert b"GET /healthz" in body
    assert b"the-name-given" in body
    assert not any("Traceback" in line for line in server.printed)


@pytest.mark.parametrize(
    ("exporter", "endpoint", "to"),
    [
        (None, None, None),
        ("none", "http://127.0.0.1:4318", None),
        (None, "http://127.0.0.1:4318", "otlp"),
        ("console", "http://127.0.0.1:4318", "console"),
        ("otlp", None, "otlp"),
    ],
)
def test_where_traces_go(
    monkeypatch: pytest.MonkeyPatch, exporter: str | None, endpoint: str | None, to: str | None
) -> None:
    monkeypatch.setenv("PRESENCE_ENV", "development")
    for name, written in (("OTEL_TRACES_EXPORTER", exporter), ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)):
        if written:
            monkeypatch.setenv(name, written)
    assert load(Settings).traces == to


@pytest.mark.parametrize(
    "named", [{"OTEL_TRACES_EXPORTER": "otlp"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}]
)
def test_traces_without_their_packages_stop_the_start_with_one_line(tmp_path: Path, named: dict[str, str]) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry/__init__.py").write_text("")  # it goes before the real one, and has nothing
    ended = run(
        "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app", PRESENCE_ENV="development", PYTHONPATH=str(tmp_path), **named
    )
    said = (ended.stdout + ended.stderr).strip()
    assert ended.returncode not in {0, None}
    assert len(said.splitlines()) == 1, said
    assert f"{next(iter(named))} needs what requirements-otel.txt pins" in said
