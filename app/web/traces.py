"""OpenTelemetry's traces: a span for each request. Never a path, a user or a token, as in the log.

The libraries are an extra, requirements-otel.txt: only the factory imports this, and only where traces are wanted.
Their own environment variables say where spans go, how many are kept, and so on. Source: OpenTelemetry, "Environment
Variable Specification", and "Semantic conventions for HTTP spans" for the names of attributes.

Ours, in place of OpenTelemetry's own middleware for Flask: that one writes each path into its span.
"""

from http import HTTPStatus

from flask import Flask, Response, g, request
from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

SERVICE = "graph-presence"


def exporter(name: str) -> SpanProcessor:
    """Return what brings spans to where OTEL_TRACES_EXPORTER says: `otlp` in the background, `console` at once."""
    return BatchSpanProcessor(OTLPSpanExporter()) if name == "otlp" else SimpleSpanProcessor(ConsoleSpanExporter())


def mount(app: Flask, processor: SpanProcessor) -> None:
    """Trace each request; call it before all else, so that what a span covers is everything.

    A caller's `traceparent` makes the span a part of the caller's trace; the requests of a batch are parts of its own.
    """
    named = Resource({"service.name": SERVICE}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=Resource.create().merge(named))
    provider.add_span_processor(processor)
    tracer = provider.get_tracer(SERVICE)

    @app.before_request
    def start() -> None:
        g.span = tracer.start_span(request.method, propagate.extract(request.headers), SpanKind.SERVER)
        own: dict[str, str] = {}
        propagate.inject(own, set_span_in_context(g.span))
        for header, text in own.items():  # where a batch finds what it passes on
            request.environ[f"HTTP_{header.upper().replace('-', '_')}"] = text

    @app.after_request
    def describe(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else None
        g.span.set_attributes(
            {
                "http.request.method": request.method,
                "http.response.status_code": response.status_code,
                "url.scheme": request.scheme,
                "presence.request_id": g.request_id,
            }
        )
        if route:
            g.span.update_name(f"{request.method} {route}")
            g.span.set_attribute("http.route", route)
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            g.span.set_status(StatusCode.ERROR)
        return response

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        if span := g.pop("span", None):
            span.end()
