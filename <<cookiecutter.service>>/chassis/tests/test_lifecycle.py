"""Factor IX: what SIGTERM does to a running service."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import Connection

from chassis import db
from chassis.testing.process import wait_until
from chassis.testing.relay import Relay
from chassis.tests.probe.process import Gunicorn

if TYPE_CHECKING:
    import httpx

DRAIN_SECONDS = 1


@pytest.fixture
def server(database_url: str, processes: ExitStack) -> Gunicorn:
    """Return a service that a test may stop."""
    return processes.enter_context(Gunicorn(DATABASE_URL=database_url, DRAIN_SECONDS=DRAIN_SECONDS))


@pytest.fixture
def patient(database_url: str, processes: ExitStack) -> Gunicorn:
    """Return a service whose drain only a second SIGTERM ends, however slow the machine is."""
    return processes.enter_context(Gunicorn(DATABASE_URL=database_url, DRAIN_SECONDS=60))


def test_a_draining_service_serves_closes_connections_and_fails_readiness(patient: Gunicorn) -> None:
    with patient.client() as client:
        assert client.get("/readyz").headers["connection"] == "keep-alive"
        patient.signal(signal.SIGTERM)
        patient.wait_for("draining")
        answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["connection"]) == (503, "close")
        assert client.get("/livez").status_code == 200
        assert client.get("/probes").status_code == 200  # a new connection
    patient.signal(signal.SIGTERM)
    assert patient.wait() == 0


def test_idle_connections_do_not_delay_the_stop(server: Gunicorn) -> None:
    with server.client() as client:
        client.get("/livez")
        stopped = server.signal(signal.SIGTERM)
        assert server.wait() == 0
    # At most half of the time that requests in flight have.
    assert DRAIN_SECONDS < time.monotonic() - stopped < DRAIN_SECONDS + 10


def test_a_second_sigterm_ends_the_drain(patient: Gunicorn) -> None:
    patient.signal(signal.SIGTERM)
    patient.wait_for("draining")
    patient.signal(signal.SIGTERM)
    assert patient.wait(seconds=20) == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT])
def test_an_interrupt_ends_the_service_at_once(server: Gunicorn, signum: int) -> None:
    server.signal(signum)
    assert server.wait(seconds=20) == 0
    assert "draining" not in [event["body"] for event in server.events]


@pytest.mark.parametrize("_", range(5))  # whether the signals meet the exit is chance
def test_an_interrupt_of_a_worker_that_is_stopping_leaves_no_traceback(server: Gunicorn, _: int) -> None:
    server.wait_for("ready", count=2)
    workers = server.workers()
    server.signal(signal.SIGINT)
    for pid in workers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
    assert server.wait(seconds=20) == 0
    assert [event for event in server.events if event["severity_text"] not in ("INFO", "DEBUG")] == []


def test_sigterm_for_the_whole_process_group_drains_all_the_same(patient: Gunicorn) -> None:
    patient.wait_for("ready", count=2)
    for pid in (*patient.workers(), patient.pid):
        os.kill(pid, signal.SIGTERM)
    patient.wait_for("draining")
    with patient.client() as client:
        assert client.get("/probes").status_code == 200
    patient.signal(signal.SIGTERM)
    assert patient.wait() == 0


def test_a_request_that_outlasts_the_drain_is_finished(server: Gunicorn) -> None:
    answers: list[httpx.Response] = []
    may_end = threading.Event()

    def slow_body() -> object:
        yield b'{"text": "'
        may_end.wait(20)
        yield b'slow"}'

    def post() -> None:
        with server.client() as client:
            answers.append(client.post("/probes", content=slow_body(), headers={"content-type": "application/json"}))  # type: ignore[arg-type]

    thread = threading.Thread(target=post)
    thread.start()
    server.signal(signal.SIGTERM)
    server.wait_for("Handling signal: term")  # the drain is over
    may_end.set()
    thread.join()
    assert [answer.status_code for answer in answers] == [201]
    assert server.wait() == 0


def test_a_silent_database_does_not_delay_the_stop_beyond_its_time_outs(
    database_url: str, conn: Connection, processes: ExitStack
) -> None:
    relay = processes.enter_context(Relay(conn.info.host, conn.info.port))
    drain_seconds, statement_seconds = 3, 1
    limits: dict[str, Any] = {"DRAIN_SECONDS": drain_seconds, "STATEMENT_TIMEOUT_SECONDS": statement_seconds}
    server = processes.enter_context(Gunicorn(DATABASE_URL=relay.stands_for(database_url), **limits))
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        wait_until(lambda: client.get("/probes").status_code == 200)
        relay.freeze()
        asking = pool.submit(client.post, "/probes", json={"text": "heard by nobody"})
        stopped = server.signal(signal.SIGTERM)
        assert asking.result().status_code == 503
        assert server.wait() == 0
    # The last one is for a busy machine; requests in flight have twice as much.
    assert time.monotonic() - stopped < drain_seconds + statement_seconds + db.SILENCE_SECONDS + 10
    assert "ServerSilentError" in {each["exception.type"] for each in server.events_named("database unavailable")}


def test_no_drain_is_a_stop_at_once(database_url: str, processes: ExitStack) -> None:
    server = processes.enter_context(Gunicorn(DATABASE_URL=database_url, DRAIN_SECONDS=0))
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert "draining" not in [event["body"] for event in server.events]


def test_a_reload_brings_new_workers_and_ends_the_old_ones(server: Gunicorn) -> None:
    server.wait_for("ready", count=2)
    before = set(server.workers())
    server.signal(signal.SIGHUP)
    server.wait_for("ready", count=4)
    for pid in before:
        server.wait_for(f"Worker exiting (pid: {pid})")
    with server.client() as client:
        assert client.get("/probes").status_code == 200
