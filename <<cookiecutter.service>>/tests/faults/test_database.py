"""The database goes away and comes back, in every way that it can: nothing that was acknowledged is lost.

What the clients were told is compared with what the database holds. A failure is a 503 that says when to come again.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from service import config
from tests.faults import cluster, dnsmasq
from tests.faults.load import Answer, Load
from tests.process import Gunicorn, run_admin

pytestmark = [cluster.needs_docker, cluster.needs_root]

QUICK = {"DATABASE_TIMEOUT_SECONDS": 2, "STATEMENT_TIMEOUT_SECONDS": 2, "DRAIN_SECONDS": 1}
"""Shorter than production's, where the length of a time-out is what a test waits for."""

RECOVERY_SECONDS = 1
"""After the database can be reached by its name, requests are answered as if nothing had been."""


@pytest.fixture(scope="module")
def server() -> Iterator[cluster.Server]:
    """A PostgreSQL with the service's schema, which the tests share; each leaves it running."""
    with cluster.primary() as server:
        status, events, _ = run_admin("migrate", DATABASE_URL=server.url())
        assert status == 0, events
        yield server


def load_on(service: Gunicorn) -> Load:
    """A steady load that leaves this machine time for everything else."""
    return Load(service.port, clients=8, pause_seconds=0.01)


def worst_seconds(settings: dict[str, int]) -> float:
    """The longest that a request may take: for a connection, for its statement, and for a second attempt to read."""
    ...


@dataclass
class Verdict:
    failed: list[Answer]
    worst_seconds: float
    recovered_seconds: float


def judge(what: str, load: Load, server: cluster.Server, since: float, reachable: float, limit_seconds: float) -> list[Answer]:
    """Print the figures of a fault that lasted from `since` to `reachable`, and hold them against the promises."""
    rows = dict(server.ask("SELECT id::text, text FROM notes"))
    [(doubled,)] = server.ask("SELECT count(*) - count(DISTINCT id) FROM notes")
    lost = [note_id for note_id, text in load.acknowledged.items() if rows.get(note_id) != text]
    failed = load.failed
    during = [answer.seconds for answer in load.answers if answer.started + answer.seconds >= since]
    after = [answer for answer in load.answers if answer.started > reachable + RECOVERY_SECONDS]
    last = max((answer.started + answer.seconds for answer in failed), default=reachable) - reachable
    last_start = max((answer.started for answer in failed), default=reachable) - reachable
    print(
        f"\n{what}: {len(load.answers)} answers, {len(failed)} of them 503, the worst after {max(during):.2f} s;"
        f" recovered {last:.2f} ({last_start:.2f}) s after the database; {len(load.acknowledged)} writes acknowledged,"
        f" {len(lost)} lost, {doubled} doubled"
    )
    print([a for a in failed if a.status != 503 or a.retry_after is None or a.fault][:5])
    assert not lost
    assert not doubled
    assert [answer for answer in failed if (answer.status, answer.fault) != (503, "") or not answer.retry_after] == []
    assert max(during) <= limit_seconds
    assert len(after) > 100
    assert [answer for answer in after if answer in failed] == []
    return failed


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_loses_nothing(server: cluster.Server, mode: str) -> None:
    with Gunicorn(DATABASE_URL=server.url()) as service, load_on(service) as load:
        load.wait_for(500)
        since = time.monotonic()
        server.stop(mode)
        reachable = server.start()
        load.wait_for(len(load.answers) + 2_000)
    judge(f"restart, {mode}", load, server, since, reachable, 4.5)


def test_an_outage_loses_nothing(server: cluster.Server) -> None:
    with Gunicorn(DATABASE_URL=server.url()) as service, load_on(service) as load:
        load.wait_for(500)
        since = time.monotonic()
        server.stop()
        time.sleep(10)
        reachable = server.start()
        load.wait_for(len(load.answers) + 2_000)
    judge("outage", load, server, since, reachable, 4.5)


@pytest.mark.parametrize("seconds", [1, 4, 10])
def test_a_network_that_swallows_packets_loses_nothing(server: cluster.Server, seconds: int) -> None:
    with Gunicorn(DATABASE_URL=server.url()) as service, load_on(service) as load:
        load.wait_for(500)
        with server.cut_off():
            since = time.monotonic()
            time.sleep(seconds)
        reachable = server.wait_until_reachable()
        load.wait_for(len(load.answers) + 2_000)
    judge(f"black hole of {seconds} s", load, server, since, reachable, 10)


def test_connections_that_the_administrator_ends_are_replaced(server: cluster.Server) -> None:
    with Gunicorn(DATABASE_URL=server.url()) as service, load_on(service) as load:
        load.wait_for(500)
        since = time.monotonic()
        for _ in range(10):
            server.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'service'")
            reachable = time.monotonic()
            load.wait_for(len(load.answers) + 200)
        load.wait_for(len(load.answers) + 2_000)
    failed = judge("terminated", load, server, since, reachable, 4.5)
    assert [answer for answer in failed if answer.method == "GET"] == []


@dnsmasq.needs_dnsmasq
def test_a_failover_loses_nothing(server: cluster.Server) -> None:
    with ExitStack() as stack:
        names = stack.enter_context(dnsmasq.names())
        replica = stack.enter_context(cluster.standby(server))
        names.lead_to(server.host, server.address)
        service = stack.enter_context(Gunicorn(DATABASE_URL=server.url(dnsmasq.NAME), within=names.within))
        with load_on(service) as load:
            load.wait_for(500)
            since = time.monotonic()
            server.configure("default_transaction_read_only", "on")
            time.sleep(2)
            server.stop()
            replica.promote()
            names.lead_to(replica.host, replica.address)
            reachable = time.monotonic()
            load.wait_for(len(load.answers) + 2_000)
        judge("failover", load, replica, since, reachable, 4.5)
