"""Traces that no collector gets: requests do not wait for it, what is lost is counted, and it may be missing."""

import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chassis import traces
from chassis.testing.process import environment, free_port, wait_until
from chassis.tests.collector import SOON, Collector
from chassis.tests.probe.process import Gunicorn, lines, run_admin


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


def test_an_endpoint_without_the_packages_is_refused_in_one_line(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['opentelemetry'] = None")
    variables: dict[str, Any] = {"DATABASE_URL": database_url, "PYTHONPATH": tmp_path}
    server = Gunicorn(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318", **variables)
    assert server.wait() == 78
    [line] = server.events
    assert "requirements-traces.txt" in line["faults"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert run_admin("check", **variables)[0] == 0  # without the variable all is well
