"""The database goes away and comes back, in every way that it can: nothing that was acknowledged is lost.

What the clients were told is compared with what the database holds. A failure is a 503 that says when to come again.
"""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from chassis.testing import dnsmasq
from chassis.testing.process import wait_until
from chassis.tests.faults import cluster
from chassis.tests.faults.load import Load
from chassis.tests.probe.process import AsDeployed, run_admin

pytestmark = [cluster.needs_docker, cluster.needs_root]

DATABASE_TIMEOUT_SECONDS, STATEMENT_TIMEOUT_SECONDS = 2, 2
"""The former as in production; the latter shorter, since it is what a test may have to wait for."""

SETTINGS: dict[str, Any] = {
    "DATABASE_TIMEOUT_SECONDS": DATABASE_TIMEOUT_SECONDS,
    "STATEMENT_TIMEOUT_SECONDS": STATEMENT_TIMEOUT_SECONDS,
    "DRAIN_SECONDS": 1,
}

SILENCE_SECONDS = max(DATABASE_TIMEOUT_SECONDS, STATEMENT_TIMEOUT_SECONDS) + 1
"""When a network swallows packets, the kernel gives up after the time-out, at its next question, one a second. When a
server is silent, the service does, a second after a statement should have ended."""

WORST_SECONDS = DATABASE_TIMEOUT_SECONDS + max(STATEMENT_TIMEOUT_SECONDS, SILENCE_SECONDS)
"""The longest that an answer may take: wait for a connection, then for its statement."""

WORST_READ_SECONDS = WORST_SECONDS + DATABASE_TIMEOUT_SECONDS
"""The longest for one that is repeated: it waits for another connection, which is none."""

TOLERANCE_SECONDS = 1
"""For a machine that has other things to do as well."""

RECOVERY_SECONDS = 1
"""After the database can be reached by its name, requests are answered as if nothing had been."""


@pytest.fixture(scope="module")
def server() -> Iterator[cluster.Server]:
    """Return a PostgreSQL with the service's schema, which the tests share; each leaves it running."""
    with cluster.primary() as server:
        status, events, _ = run_admin("migrate", DATABASE_URL=server.url())
        assert status == 0, events
        yield server


def load_on(service: AsDeployed) -> Load:
    """Return a steady load that leaves this machine time for everything else."""
    return Load(service.port, clients=8, pause_seconds=0.01)


def judge(what: str, load: Load, server: cluster.Server, since: float, reachable: float) -> None:
    """Print the figures of a fault that lasted from `since` to `reachable`, and hold them against the promises."""
    rows = server.ask("SELECT id::text, text FROM probes")
    texts = dict(rows)
    lost = [probe_id for probe_id, text in load.acknowledged.items() if texts.get(probe_id) != text]
    doubled = len(rows) - len(texts)
    failed = load.failed
    worst = {
        method: max(
            (
                answer.seconds
                for answer in load.answers
                if answer.method == method and answer.started + answer.seconds >= since
            ),
            default=0,
        )
        for method in ("PUT", "GET")
    }
    after = [answer for answer in load.answers if answer.started > reachable + RECOVERY_SECONDS]
    last = max((answer.started + answer.seconds for answer in failed), default=reachable)
    print(
        f"\n{what}: {len(failed)} of {len(load.answers)} answers were a 503,"
        f" the slowest write took {worst['PUT']:.2f} s, the slowest read {worst['GET']:.2f} s,"
        f" the last failure came {last - reachable:.2f} s after the database was back,"
        f" {len(lost)} of {len(load.acknowledged)} acknowledged writes were lost, {doubled} doubled"
    )
    assert not lost
    assert not doubled
    assert [answer for answer in failed if (answer.status, answer.fault, answer.retry_after) != (503, "", "1")] == []
    assert worst["PUT"] <= WORST_SECONDS + TOLERANCE_SECONDS
    assert worst["GET"] <= WORST_READ_SECONDS + TOLERANCE_SECONDS
    assert len(after) > 100
    assert [answer for answer in after if answer in failed] == []
    assert max(answer.seconds for answer in after) <= TOLERANCE_SECONDS


@contextmanager
def under_load(url: str, within: Sequence[str] = ()) -> Iterator[Load]:
    """Return a service on the database at `url`, and a load on it, which goes on for a while after the block."""
    with AsDeployed(DATABASE_URL=url, within=within, **SETTINGS) as service, load_on(service) as load:
        load.wait_for(500)
        yield load
        load.wait_for(len(load.answers) + 1_500)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_loses_nothing(server: cluster.Server, mode: str) -> None:
    with under_load(server.url()) as load:
        since = time.monotonic()
        server.stop(mode)
        reachable = server.start()
    judge(f"restart, {mode}", load, server, since, reachable)


def test_an_outage_loses_nothing(server: cluster.Server) -> None:
    outage_seconds = 5 * DATABASE_TIMEOUT_SECONDS  # beyond every time-out and every pause between attempts
    with under_load(server.url()) as load:
        since = time.monotonic()
        server.stop()
        wait_until(lambda: time.monotonic() - since > outage_seconds)
        reachable = server.start()
    judge(f"outage of {outage_seconds} s", load, server, since, reachable)
    assert load.failed


def test_an_outage_under_which_hundreds_wait_ends_with_it(server: cluster.Server) -> None:
    variables = {**SETTINGS, "WEB_CONCURRENCY": 1, "DATABASE_POOL_SIZE": 1}
    with AsDeployed(DATABASE_URL=server.url(), **variables) as service:
        since = time.monotonic()
        server.stop()
        with Load(service.port, clients=200, pause_seconds=0.5) as crowd:
            crowd.wait_for(500)
        with load_on(service) as load:
            load.wait_for(8)
            reachable = server.start()
            load.wait_for(len(load.answers) + 1_000)
    judge("outage with hundreds in the queue", load, server, since, reachable)


@pytest.mark.parametrize("seconds", [1, 10])
def test_a_server_that_is_frozen_is_left_and_found_again(server: cluster.Server, seconds: int) -> None:
    with under_load(server.url()) as load:
        with server.frozen():
            since = time.monotonic()
            wait_until(lambda: time.monotonic() - since > seconds)
        reachable = server.wait_until_reachable()
    judge(f"server frozen for {seconds} s", load, server, since, reachable)
    assert load.failed or seconds < DATABASE_TIMEOUT_SECONDS


@pytest.mark.parametrize("seconds", [1, 6])
def test_a_network_that_swallows_packets_loses_nothing(server: cluster.Server, seconds: int) -> None:
    with under_load(server.url()) as load:
        with server.cut_off():
            since = time.monotonic()
            wait_until(lambda: time.monotonic() - since > seconds)
        reachable = server.wait_until_reachable()
    judge(f"network that swallows packets for {seconds} s", load, server, since, reachable)
    assert load.failed or seconds < DATABASE_TIMEOUT_SECONDS


def test_connections_that_the_administrator_ends_are_replaced_and_no_read_notices(server: cluster.Server) -> None:
    times, ended = 10, 0
    with under_load(server.url()) as load:
        since = time.monotonic()
        for _ in range(times):
            rows = server.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'service'")
            ended += len(rows)
            reachable = time.monotonic()
            load.wait_for(len(load.answers) + 100)
    judge(f"{ended} connections ended by the administrator", load, server, since, reachable)
    assert ended > times
    assert [answer for answer in load.failed if answer.method == "GET"] == []


@dnsmasq.needs_dnsmasq
def test_a_failover_loses_nothing() -> None:
    with cluster.primary() as old, cluster.standby(of=old) as new, dnsmasq.names() as names:
        run_admin("migrate", DATABASE_URL=old.url())
        names.lead_to(old.host, old.address)
        with under_load(old.url(dnsmasq.NAME), names.within) as load:
            since = time.monotonic()
            old.configure("default_transaction_read_only", "on")
            wait_until(lambda: load.failed)
            old.stop()
            new.promote()
            names.lead_to(new.host, new.address)
            reachable = time.monotonic()
        judge("failover", load, new, since, reachable)


def test_credentials_are_rotated_without_a_failure(server: cluster.Server) -> None:
    def role(name: str) -> None:
        server.ask(f"CREATE ROLE {name} LOGIN PASSWORD '{cluster.PASSWORD}' IN ROLE service")
        server.ask(f"ALTER ROLE {name} SET role = 'service'")

    role("service_blue")
    with AsDeployed(DATABASE_URL=server.url(user="service_blue"), **SETTINGS) as blue, load_on(blue) as on_blue:
        on_blue.wait_for(500)
        role("service_green")
        with AsDeployed(DATABASE_URL=server.url(user="service_green"), **SETTINGS) as green, load_on(green) as on_green:
            on_green.wait_for(500)
            on_blue.__exit__()  # as a balancer does, before or after the signal
            blue.signal(signal.SIGTERM)
            assert blue.wait() == 0
            server.ask("DROP ROLE service_blue")
            refused = run_admin("check", DATABASE_URL=server.url(user="service_blue"))
            on_green.wait_for(len(on_green.answers) + 1_000)
    server.ask("DROP ROLE service_green")
    failed, answers = on_blue.failed + on_green.failed, on_blue.answers + on_green.answers
    print(f"\nrotation of the credentials: {len(failed)} of {len(answers)} requests failed")
    assert failed == []
    assert refused[0] == 1
    assert "authentication failed" in refused[1][-1]["body"]


def test_a_schema_that_changes_under_prepared_statements_fails_no_request(server: cluster.Server) -> None:
    changes = 6
    with ExitStack() as stack:
        blue, green = (stack.enter_context(AsDeployed(DATABASE_URL=server.url(), **SETTINGS)) for _ in range(2))
        on_blue, on_green = (stack.enter_context(load_on(service)) for service in (blue, green))
        for change in range(changes):
            wanted = len(on_blue.answers) + 300
            on_blue.wait_for(wanted)
            on_green.wait_for(len(on_green.answers) + 100)
            # Another type makes the plans of both stale; a new column is what a migration may add.
            kind = "varchar(20000)" if change % 2 == 0 else "text"
            server.ask(f"ALTER TABLE probes ALTER COLUMN text TYPE {kind}, ADD COLUMN IF NOT EXISTS more_{change} int")
        on_blue.wait_for(len(on_blue.answers) + 500)
        on_green.wait_for(len(on_green.answers) + 500)
    for change in range(changes):
        server.ask(f"ALTER TABLE probes DROP COLUMN IF EXISTS more_{change}")
    failed = on_blue.failed + on_green.failed
    answers = on_blue.answers + on_green.answers
    print(f"\n{changes} changes of the schema under blue and green: {len(failed)} of {len(answers)} requests failed")
    assert failed == []
