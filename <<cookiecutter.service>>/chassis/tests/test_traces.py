"""Traces, as a collector gets them: from real processes, over OTLP."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chassis import traces
from chassis.testing.process import environment, free_port, wait_until
from chassis.tests.probe.process import Gunicorn, run_admin

SOON: dict[str, Any] = {"OTEL_BSP_SCHEDULE_DELAY": 100}
"""Milliseconds between deliveries, so that a test need not wait for them."""

SERVER, CLIENT, ERROR = 2, 3, 2
"""Kinds of spans and a status. https://github.com/open-telemetry/opentelemetry-proto (`trace.proto`)"""


class Collector:
    """A receiver of OTLP over HTTP. `bodies` is what it got, `headers` what came with the last one."""

    def __init__(self, port: int = 0) -> None:
        collector = self
        self.bodies: list[bytes] = []
        self.headers: dict[str, str] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                collector.headers = dict(self.headers)
                collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def spans(self) -> list[dict[str, Any]]:
        """Return the spans so far, with ids as the log writes them."""
        return [
            {
                "name": span.name,
                "kind": span.kind,
                "status": span.status.code,
                "trace_id": span.trace_id.hex(),
                "span_id": span.span_id.hex(),
                "parent": span.parent_span_id.hex(),
                "resource": {each.key: each.value.string_value for each in of_resource.resource.attributes},
                **{each.key: each.value.string_value or each.value.int_value for each in span.attributes},
            }
            for body in list(self.bodies)
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]

    def wait_for(self, trace_id: str, count: int = 1) -> list[dict[str, Any]]:
        """Return the spans of a trace, the server's first, once so many have come."""
        wait_until(lambda: len([span for span in self.spans() if span["trace_id"] == trace_id]) >= count)
        return sorted(
            (span for span in self.spans() if span["trace_id"] == trace_id), key=lambda span: int(span["kind"])
        )


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


def lines(server: Gunicorn, **wanted: object) -> list[dict[str, Any]]:
    """Return the events that have these attributes."""
    return [event for event in server.events if wanted.items() <= event.items()]


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


@pytest.fixture(params=["dead", "hanging"])
def useless(request: pytest.FixtureRequest, processes: ExitStack) -> str:
    """Return the URL of a collector that takes nothing: its port is closed, or it accepts and never answers."""
    if request.param == "dead":
        return f"http://127.0.0.1:{free_port()}"
    sock = processes.enter_context(socket.create_server(("127.0.0.1", 0)))
    return f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_a_collector_that_takes_nothing_costs_nothing(useless: str, database_url: str, processes: ExitStack) -> None:
    small = {**SOON, "OTEL_BSP_MAX_QUEUE_SIZE": 50, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": 10}
    servers = [
        processes.enter_context(Gunicorn(DATABASE_URL=database_url, WEB_CONCURRENCY=1, DRAIN_SECONDS=0, **variables))
        for variables in (small, {**small, "OTEL_EXPORTER_OTLP_ENDPOINT": useless})
    ]
    took: list[list[float]] = [[], []]
    clients = [processes.enter_context(server.client()) for server in servers]
    for _ in range(200):
        for client, seconds in zip(clients, took, strict=True):
            started = time.perf_counter()
            assert client.get("/probes?limit=1").status_code == 200
            seconds.append(time.perf_counter() - started)
    plain, traced = (sum(seconds) for seconds in took)
    print(f"\n200 requests: {plain:.2f} s without traces, {traced:.2f} s with them and a useless collector")
    assert traced < 3 * plain  # tracing is work too; waiting for a collector would be seconds

    plain, traced = (_stop_seconds(server) for server in servers)
    print(f"stopped in {plain:.2f} s without traces, {traced:.2f} s with them")
    assert traced - plain < 2 * traces.FLUSH_SECONDS  # of which the half is for a slow machine
    said = [event["body"] for event in servers[1].events if event["logger"] not in {"access", "gunicorn.error"}]
    assert set(said) <= {"ready", "Queue full, dropping Span.", "spans cannot be delivered"}
    assert max(said.count("ready"), said.count("spans cannot be delivered")) == 1
    assert len(said) < 10  # the SDK repeats its own line on a slow machine, but not for each of the 200 spans


def _stop_seconds(server: Gunicorn) -> float:
    started = server.signal(signal.SIGTERM)
    assert server.wait() == 0
    return time.monotonic() - started


def test_lost_spans_are_counted_once_they_are_delivered_again(database_url: str, processes: ExitStack) -> None:
    port = free_port()
    endpoint: dict[str, Any] = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": 1,
    }
    server = processes.enter_context(Gunicorn(DATABASE_URL=database_url, WEB_CONCURRENCY=1, **SOON, **endpoint))
    server.get("/probes")
    server.wait_for("spans cannot be delivered")
    with Collector(port) as collector:
        server.get("/probes")
        assert server.wait_for("spans are delivered again")["lost"] == 2
        assert len(collector.spans()) == 2
        server.get("/probes")
        wait_until(lambda: len(collector.spans()) == 4)
    assert len(lines(server, body="spans are delivered again")) == 1


def test_without_an_endpoint_nothing_of_it_is_imported(database_url: str) -> None:
    program = (
        "from chassis import web; import sys;"
        "from chassis.tests.probe.app import create_app; create_app();"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'opentelemetry', 'google', 'requests'}))"
    )

    def imported(**variables: str) -> str:
        env = environment(DATABASE_URL=database_url, **variables)
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert imported() == "[]"
    assert "opentelemetry" in imported(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318")


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


def test_an_endpoint_without_the_packages_is_refused_in_one_line(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['opentelemetry'] = None")
    variables: dict[str, Any] = {"DATABASE_URL": database_url, "PYTHONPATH": tmp_path}
    server = Gunicorn(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318", **variables)
    assert server.wait() == 78
    [line] = server.events
    assert "requirements-traces.txt" in line["faults"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert run_admin("check", **variables)[0] == 0  # without the variable all is well
