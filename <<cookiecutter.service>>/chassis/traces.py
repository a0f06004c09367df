"""Traces by OpenTelemetry, if `OTEL_EXPORTER_OTLP_ENDPOINT` is set: a span for each request and each SQL statement.

Only then does `app.py` import this module: what it needs is in `requirements-traces.txt`. Sampling, headers,
time-outs, the size of the queue and more are the SDK's own variables.
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/

opentelemetry-instrumentation-flask and -psycopg are not used: they cost more, name spans by paths that clients invent,
trace the pool's own statements, and put values of failed statements into spans.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPMethod, HTTPStatus
from typing import Any, Self

import psycopg
from flask import Flask, Response, request
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from psycopg.conninfo import conninfo_to_dict

from chassis import db, health
from chassis.config import Config

FLUSH_SECONDS = 2
"""How long a worker that stops waits for the delivery of its last spans: the most that traces add to a stop."""

log = logging.getLogger(__name__)


def register(app: Flask, settings: Config) -> None:
    """Trace `app`. The SDK starts the thread that sends spans anew in each forked worker."""
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)  # it reports each attempt; see _Exporter
    own = {"service.name": settings.service, "service.version": settings.release}
    provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
    # Its queue is bounded: where spans come faster than they can be delivered, the oldest are dropped.
    provider.add_span_processor(BatchSpanProcessor(_Exporter()))
    trace.set_tracer_provider(provider)  # for code that makes spans of its own
    tracer = trace.get_tracer(__name__)
    app.extensions["traces"] = Traces(provider)
    app.extensions["database"]["cursor_factory"] = cursor(tracer, settings.database_url)
    app.wsgi_app = _traced(app.wsgi_app, tracer, health.paths(settings))  # type: ignore[method-assign] # Flask's way
    app.after_request(_end)


@dataclass(frozen=True)
class Traces:
    """The traces of one application."""

    provider: TracerProvider

    def stop(self) -> None:
        """Deliver what is left, or give up after `FLUSH_SECONDS`: a collector may never answer."""
        delivery = threading.Thread(target=self.provider.shutdown, daemon=True)
        delivery.start()
        delivery.join(FLUSH_SECONDS)


def _traced(inner: Callable[..., Any], tracer: Tracer, untraced: frozenset[str]) -> Callable[..., Any]:
    """Return the WSGI application `inner`, within a span that continues the caller's trace."""
    headers = {field: f"HTTP_{field.upper().replace('-', '_')}" for field in propagate.get_global_textmap().fields}

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] in untraced:
            return inner(environ, start_response)
        method = environ["REQUEST_METHOD"] if environ["REQUEST_METHOD"] in HTTPMethod.__members__ else "_OTHER"
        # Errors are in the log, under the same trace ID; their text might hold values, which do not belong into spans.
        with tracer.start_as_current_span(
            method,
            propagate.extract({field: environ[header] for field, header in headers.items() if header in environ}),
            SpanKind.SERVER,
            {
                "http.request.method": method,
                "url.path": environ["PATH_INFO"],
                "url.scheme": environ["wsgi.url_scheme"],
            },
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            # For the application this span is the caller. The log takes its IDs from here.
            ids = span.get_span_context()
            environ["HTTP_TRACEPARENT"] = f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags:02x}"
            return inner(environ, start_response)

    return application


def _end(response: Response) -> Response:
    span = trace.get_current_span()
    if span.is_recording():
        if request.url_rule:
            span.update_name(f"{request.method} {request.url_rule.rule}")
            span.set_attribute("http.route", request.url_rule.rule)
        span.set_attribute("http.response.status_code", response.status_code)
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            span.set_attribute("error.type", str(response.status_code))
            span.set_status(StatusCode.ERROR)
    return response


def cursor(tracer: Tracer, database_url: str) -> type[db.Cursor]:
    """Return a cursor class that traces the statements of requests, and not those of the pool itself."""
    parameters = conninfo_to_dict(database_url)
    database = {
        "db.system.name": "postgresql",
        "db.namespace": str(parameters.get("dbname", "")),
        "server.address": str(parameters.get("host", "")),
    }

    @contextmanager
    def statement(query: object) -> Iterator[None]:
        if not trace.get_current_span().is_recording():
            yield
            return
        text = query if isinstance(query, str) else ""  # a composed statement may hold values
        operation = (text.split(maxsplit=1) or ["SQL"])[0]
        attributes = {**database, "db.operation.name": operation, "db.query.text": text}
        span = tracer.start_span(operation, kind=SpanKind.CLIENT, attributes=attributes)
        try:
            yield
        except psycopg.Error as error:
            span.set_attribute("error.type", error.sqlstate or type(error).__qualname__)
            span.set_status(StatusCode.ERROR)  # without PostgreSQL's message, since it quotes values
            raise
        finally:
            span.end()

    class Cursor(db.Cursor):
        def execute(self, query: Any, *args: Any, **options: Any) -> Self:
            with statement(query):
                return super().execute(query, *args, **options)

        def executemany(self, query: Any, *args: Any, **options: Any) -> None:
            with statement(query):
                super().executemany(query, *args, **options)

    return Cursor


class _Exporter(OTLPSpanExporter):
    """An exporter that logs when spans begin to be lost and, once they are delivered again, how many were lost."""

    lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Deliver `spans`, or drop them."""
        result = super().export(spans)
        if result is SpanExportResult.SUCCESS:
            if self.lost:
                log.warning("spans are delivered again", extra={"lost": self.lost})
            self.lost = 0
        else:
            if not self.lost:
                log.warning("spans cannot be delivered")
            self.lost += len(spans)
        return result
