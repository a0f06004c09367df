"""Factor IX under load: instances are stopped, replaced and killed behind a balancer, and nobody notices."""

import os
import signal
import statistics
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from chassis.testing import containers
from chassis.testing.containers import docker
from chassis.testing.process import connections_of, free_port
from chassis.tests.faults import haproxy
from chassis.tests.faults.load import Load
from chassis.tests.probe.process import AsDeployed, running

RESTARTS = 10


def faults_of(load: Load) -> str:
    """Return what went wrong, counted."""
    return str(Counter(f"{answer.status} {answer.fault}" for answer in load.failed).most_common(5))


def assert_that_all_is_there(load: Load, database_url: str) -> None:
    """Every write that was acknowledged is in the database, unchanged."""
    with psycopg.connect(database_url) as conn:
        stored: dict[str, str] = dict(conn.execute("SELECT id::text, text FROM probes").fetchall())
    assert {probe_id: stored.get(probe_id) for probe_id in load.acknowledged} == load.acknowledged


class Fleet:
    """Two instances behind a balancer."""

    def __init__(self, stack: ExitStack, database_url: str, drain_seconds: int) -> None:
        self._stack = stack
        self._database_url = database_url
        self._drain_seconds = drain_seconds
        self._instances = {port: self._start(port) for port in (free_port(), free_port())}
        self.ports = list(self._instances)
        self.balancer = stack.enter_context(haproxy.haproxy(*self.ports))
        for port in self.ports:
            self.balancer.wait_for(port, "UP")

    def restart(self, port: int, *, drained: bool) -> float:
        """Replace an instance; says how long its stop took, in seconds. `drained`: the balancer knows beforehand."""
        if drained:
            self.balancer.drain(port)
        instance = self._instances[port]
        stopped = instance.signal(signal.SIGTERM)
        assert instance.wait() == 0
        seconds = time.monotonic() - stopped
        assert b"requests were cut off" not in b"".join(instance.lines)
        self._instances[port] = self._start(port)
        if drained:
            self.balancer.ready(port)
        self.balancer.wait_for(port, "UP")
        return seconds

    def _start(self, port: int) -> AsDeployed:
        server = AsDeployed(PORT=port, DATABASE_URL=self._database_url, DRAIN_SECONDS=self._drain_seconds)
        return self._stack.enter_context(server)


@haproxy.needed
@pytest.mark.parametrize(("drained", "drain_seconds"), [(False, 2), (True, 1)])
def test_rolling_restarts_lose_no_request(
    database_url: str, processes: ExitStack, *, drained: bool, drain_seconds: int
) -> None:
    fleet = Fleet(processes, database_url, drain_seconds)
    with Load(fleet.balancer.port) as load:
        stops = [fleet.restart(fleet.ports[turn % 2], drained=drained) for turn in range(RESTARTS)]
        load.wait_for(10_000)
    order = "balancer drained first" if drained else "SIGTERM while the balancer still sends"
    print(
        f"{order}: {len(load.failed)} failed of {len(load.answers)} requests over {RESTARTS} restarts; "
        f"exit after {statistics.median(stops):.2f} s, at most {max(stops):.2f} s, with DRAIN_SECONDS={drain_seconds}"
    )
    assert not load.failed, faults_of(load)
    assert_that_all_is_there(load, database_url)
    assert statistics.median(stops) < drain_seconds + 1


@haproxy.needed
def test_without_the_lame_duck_the_same_restarts_lose_requests(database_url: str, processes: ExitStack) -> None:
    fleet = Fleet(processes, database_url, drain_seconds=0)
    with Load(fleet.balancer.port) as load:
        for turn in range(RESTARTS):  # one is enough, as a rule
            fleet.restart(fleet.ports[turn % 2], drained=False)
            if load.failed:
                break
    print(f"with DRAIN_SECONDS=0: {len(load.failed)} failed of {len(load.answers)} requests over {turn + 1} restarts")
    assert load.failed
    assert_that_all_is_there(load, database_url)


@haproxy.needed
@containers.needed
def test_docker_stop_loses_no_request(image: str, network: str, processes: ExitStack) -> None:
    restarts = 2
    fleet = {}
    for port in (free_port(), free_port()):
        options = (f"--publish=127.0.0.1:{port}:8000", "--env=DRAIN_SECONDS=2")
        fleet[port] = processes.enter_context(running(image, network, *options))
    balancer = processes.enter_context(haproxy.haproxy(*fleet))
    with Load(balancer.port) as load:
        for port in list(fleet) * (restarts // 2):
            docker("stop", fleet[port])
            assert docker("inspect", "--format={{.State.ExitCode}}", fleet[port]) == "0"
            docker("start", fleet[port])
            balancer.wait_for(port, "UP")
        load.wait_for(2_000)
    print(f"docker stop: {len(load.failed)} failed of {len(load.answers)} requests over {restarts} restarts")
    assert not load.failed, faults_of(load)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux tells whose a connection is")
def test_a_killed_worker_takes_only_its_own_requests_with_it(database_url: str, processes: ExitStack) -> None:
    server = processes.enter_context(AsDeployed(DATABASE_URL=database_url, WEB_CONCURRENCY=2))
    server.wait_for("ready", count=2)
    held, kills = 0, 4
    with Load(server.port) as load:
        for kill in range(kills):
            load.wait_for(len(load.answers) + 500)
            victim = max(server.workers(), key=lambda pid: connections_of(pid, server.port))
            os.kill(victim, signal.SIGSTOP)  # so that the count is of the moment of its death
            held += connections_of(victim, server.port)
            os.kill(victim, signal.SIGKILL)
            server.wait_for("ready", count=3 + kill)
        failed = len(load.failed)
        load.wait_for(len(load.answers) + 1_000)
    print(
        f"{kills} workers killed: {len(load.failed)} failed of {len(load.answers)} requests, "
        f"where the killed ones held {held} connections of {kills} times {load.clients}"
    )
    assert 0 < len(load.failed) <= held, faults_of(load)
    assert len(load.failed) == failed  # none once the last one was replaced
    assert_that_all_is_there(load, database_url)


@pytest.mark.parametrize("drain_seconds", [0, 1])
def test_a_reload_kills_no_request_that_has_begun(database_url: str, processes: ExitStack, drain_seconds: int) -> None:
    reloads = 8
    server = processes.enter_context(AsDeployed(DATABASE_URL=database_url, DRAIN_SECONDS=drain_seconds))
    server.wait_for("ready", count=2)
    with Load(server.port, clients=24, pause_seconds=0.001) as load:
        for reload in range(reloads):
            load.wait_for(len(load.answers) + 500)
            server.signal(signal.SIGHUP)
            server.wait_for("ready", count=4 + 2 * reload)
        load.wait_for(len(load.answers) + 500)
    answered = [answer for answer in load.failed if answer.status]
    print(
        f"{reloads} reloads with DRAIN_SECONDS={drain_seconds}: {len(answered)} of {len(load.answers)} requests were"
        f" answered with an error, and {len(load.failed) - len(answered)} connections closed before a request"
    )
    assert answered == [], faults_of(load)
    assert_that_all_is_there(load, database_url)


def test_a_stop_kills_no_request_that_has_begun(database_url: str, processes: ExitStack) -> None:
    stops, answered = 6, 0
    for _ in range(stops):
        server = processes.enter_context(AsDeployed(DATABASE_URL=database_url, DRAIN_SECONDS=1))
        server.wait_for("ready", count=2)
        with Load(server.port, clients=24, pause_seconds=0.001) as load:
            load.wait_for(500)
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
        answered += len([answer for answer in load.failed if answer.status])
    print(f"{stops} stops under load, unannounced: {answered} requests were answered with an error")
    assert answered == 0
