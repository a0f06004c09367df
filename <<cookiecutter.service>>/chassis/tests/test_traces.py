"""Traces, as a collector gets them: from real processes, over OTLP."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chassis import traces
from chassis.testing.process import environment, free_port, wait_until
from chassis.tests.collector import SOON, Collector
from chassis.tests.probe.process import Gunicorn, lines

SERVER, CLIENT, ERROR = 2, 3, 2
"""Kinds of spans and a status. https://github.com/open-telemetry/opentelemetry-proto (`trace.proto`)"""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Return a collector that works."""
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(collector: Collector, database_url: str) -> Iterator[Gunicorn]:
    """Return a service whose spans reach the collector."""
    variables: dict[str, Any] = {
        **SOON,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=of-the-operator",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=staging,service.name=another",
    }
    with Gunicorn(DATABASE_URL=database_url, RELEASE="build-42", **variables) as server:
        yield server


def canonical(server: Gunicorn, request_id: str) -> dict[str, Any]:
    """Return the canonical line of a request."""
    wait_until(lambda: lines(server, logger="access", request_id=request_id))
    [line] = lines(server, logger="access", request_id=request_id)
    return line


def test_a_request_and_its_sql_are_one_trace_which_the_log_line_names(traced: Gunicorn, collector: Collector) -> None:
    with traced.client() as client:
        response = client.post("/probes", json={"text": "nobody's business"})
    line = canonical(traced, response.headers["X-Request-ID"])
    request, statement = collector.wait_for(line["trace_id"], 2)
    assert (request["kind"], request["name"], request["parent"]) == (SERVER, "POST /probes", "")
    assert request["span_id"] == line["span_id"]
    assert (request["http.route"], request["http.response.status_code"]) == ("/probes", 201)
    assert (statement["kind"], statement["name"], statement["parent"]) == (CLIENT, "INSERT", request["span_id"])
    assert statement["db.query.text"].startswith("INSERT INTO probes (text) VALUES (%s)")
    assert request["resource"].items() >= {"service.name": line["service.name"], "service.version": "build-42"}.items()
    assert not [body for body in collector.bodies if b"nobody's business" in body]


def test_the_trace_of_the_caller_goes_on(traced: Gunicorn, collector: Collector) -> None:
    trace_id, caller = os.urandom(16).hex(), os.urandom(8).hex()
    with traced.client(headers={"traceparent": f"00-{trace_id}-{caller}-01"}) as client:
        line = canonical(traced, client.get("/probes?limit=1").headers["X-Request-ID"])
    request, statement = collector.wait_for(trace_id, 2)
    assert (request["name"], request["parent"], statement["parent"]) == ("GET /probes", caller, request["span_id"])
    assert (line["trace_id"], line["span_id"]) == (trace_id, request["span_id"])


def test_what_the_caller_does_not_sample_is_not_sent_but_logged(traced: Gunicorn, collector: Collector) -> None:
    trace_id = os.urandom(16).hex()
    with traced.client() as client:
        unsampled = client.get("/probes", headers={"traceparent": f"00-{trace_id}-{'b' * 16}-00"})
        sampled = client.get("/probes")  # spans are sent in their order
    assert canonical(traced, unsampled.headers["X-Request-ID"])["trace_id"] == trace_id
    collector.wait_for(canonical(traced, sampled.headers["X-Request-ID"])["trace_id"], 2)
    assert trace_id not in {span["trace_id"] for span in collector.spans()}


def test_the_names_of_spans_are_few(traced: Gunicorn, collector: Collector) -> None:
    with traced.client() as client:
        asked = [("GET", "/livez"), ("GET", "/readyz"), ("GET", "/made-up"), ("BREW", "/probes"), ("GET", "/probes/1")]
        last = [client.request(method, path) for method, path in asked][-1]
    collector.wait_for(canonical(traced, last.headers["X-Request-ID"])["trace_id"])
    names = {span["name"] for span in collector.spans()}
    assert {"GET", "_OTHER", "GET /probes/<probe_id>"} <= names
    assert not {name for name in names if "livez" in name or "readyz" in name or "made-up" in name or "BREW" in name}


def test_the_operator_s_variables_are_the_sdk_s_own(traced: Gunicorn, collector: Collector) -> None:
    line = canonical(traced, traced.get("/probes").headers["X-Request-ID"])
    [span, _] = collector.wait_for(line["trace_id"], 2)
    assert collector.headers["x-key"] == "of-the-operator"
    assert span["resource"]["deployment.environment.name"] == "staging"
    assert span["resource"]["service.name"] == line["service.name"]  # the configuration's, not the variable's


def test_every_worker_sends(traced: Gunicorn, collector: Collector) -> None:
    def of_workers() -> dict[int, str]:
        traced.get("/probes")
        return {line["process.pid"]: line["trace_id"] for line in lines(traced, **{"url.path": "/probes"})}

    wait_until(lambda: len(of_workers()) == 2)
    for trace_id in of_workers().values():
        collector.wait_for(trace_id)


def test_what_a_request_logs_carries_the_ids_too(collector: Collector, processes: ExitStack) -> None:
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    variables = {**SOON, "DATABASE_TIMEOUT_SECONDS": 1, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    server = processes.enter_context(Gunicorn(DATABASE_URL=nowhere, **variables))
    assert server.get("/probes").status_code == 503
    warning = server.wait_for("database unavailable")
    [span] = collector.wait_for(warning["trace_id"])
    assert span["span_id"] == warning["span_id"]
    assert (span["status"], span["error.type"]) == (ERROR, "503")


def test_values_over_which_a_statement_failed_are_not_shown(database_url: str) -> None:
    made = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(made))
    tracer = provider.get_tracer("test")
    with psycopg.connect(database_url, cursor_factory=traces.cursor(tracer, database_url)) as conn:
        conn.execute("SELECT 1")  # outside of a request
        with tracer.start_as_current_span("request"), pytest.raises(psycopg.errors.UniqueViolation) as failed:
            conn.execute("INSERT INTO probes (id, text) SELECT %s, 'x' FROM generate_series(1, 2)", ["7" * 32])
        conn.rollback()
    assert "77777777-7777" in str(failed.value)
    statement, _request = made.get_finished_spans()
    assert statement.attributes is not None
    assert statement.attributes["error.type"] == "23505"
    assert "7777" not in statement.to_json()


def test_spans_of_requests_in_flight_are_delivered_before_a_stop(
    collector: Collector, database_url: str, processes: ExitStack
) -> None:
    variables: dict[str, Any] = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    server = processes.enter_context(Gunicorn(DATABASE_URL=database_url, DRAIN_SECONDS=0, **variables))
    body = b'{"text": "in flight"}'
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.sendall(b"POST /probes HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
        sock.sendall(b"X-Request-ID: in-flight\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert sock.recv(65_536).startswith(b"HTTP/1.1 100 ")  # the worker has it
        server.signal(signal.SIGTERM)
        server.wait_for("Handling signal: term")
        sock.sendall(body)
        assert sock.recv(65_536).startswith(b"HTTP/1.1 201 ")
    assert server.wait() == 0
    [line] = lines(server, request_id="in-flight")
    assert line["trace_id"] in {span["trace_id"] for span in collector.spans()}


def test_for_another_service_the_span_of_this_one_is_the_parent(database_url: str) -> None:
    program = (
        "from chassis import caller; from chassis.tests.probe.app import create_app; app = create_app();"
        "app.add_url_rule('/next', view_func=caller.propagated_headers);"
        f"headers = {{'traceparent': '00-{'a' * 32}-{'b' * 16}-01', 'tracestate': 'a=1'}};"
        "print(app.test_client().get('/next', headers=headers).text)"
    )
    env = environment(DATABASE_URL=database_url, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    headers = json.loads(done.stdout.splitlines()[-1])
    version, trace_id, parent, flags = headers["traceparent"].split("-")
    assert (version, trace_id, flags, headers["tracestate"]) == ("00", "a" * 32, "01", "a=1")
    assert len(parent) == 16
    assert parent != "b" * 16
