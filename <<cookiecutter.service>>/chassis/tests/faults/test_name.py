"""The database is known by a name: who changes where the name leads moves the service, and TLS proves who answers."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chassis.testing import dnsmasq
from chassis.testing.process import wait_until
from chassis.tests.faults import cluster
from chassis.tests.faults.load import Load
from chassis.tests.probe.process import AsDeployed, run_admin

pytestmark = [cluster.needs_docker, cluster.needs_root, dnsmasq.needs_dnsmasq]

POOL: dict[str, Any] = {"WEB_CONCURRENCY": 2, "DATABASE_POOL_SIZE": 5}
CONNECTIONS = 10


@pytest.fixture(scope="module")
def server() -> Iterator[cluster.Server]:
    """Return a PostgreSQL with the service's schema, which the tests share."""
    with cluster.primary() as server:
        status, events, _ = run_admin("migrate", DATABASE_URL=server.url())
        assert status == 0, events
        yield server


@pytest.fixture(scope="module")
def elsewhere(server: cluster.Server) -> Iterator[str]:
    """Return a second address of the same server: what is written over one is found over the other."""
    with cluster.second_address(server) as address:
        yield address


@pytest.fixture
def names() -> Iterator[dnsmasq.Names]:
    """Return a name server of the test's own."""
    with dnsmasq.names() as names:
        yield names


def places(server: cluster.Server) -> dict[str, int]:
    """How many connections the service has, by the address that the server sees them come from."""
    rows = server.ask("SELECT host(client_addr), count(*) FROM pg_stat_activity WHERE usename = 'service' GROUP BY 1")
    return dict(rows)


def have_left(server: cluster.Server, old: str) -> bool:
    """Whether all connections are elsewhere."""
    now = places(server)
    return old not in now and sum(now.values()) == CONNECTIONS


def wait_for_connections(server: cluster.Server) -> str:
    """Wait until all are there, at one place; says at which."""
    wait_until(lambda: sum(places(server).values()) == CONNECTIONS)
    [place] = places(server)
    return place


def test_the_name_is_asked_for_at_each_new_connection(server: cluster.Server, names: dnsmasq.Names) -> None:
    names.lead_to(server.host, server.address)
    before = names.queries()
    with AsDeployed(DATABASE_URL=server.url(dnsmasq.NAME), within=names.within, **POOL):
        wait_for_connections(server)
        first = names.queries() - before
        server.ask("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'service'")
        wait_for_connections(server)
        second = names.queries() - before - first
    print(f"\nname: {first} queries for {CONNECTIONS} connections, {second} more for {CONNECTIONS} new ones")
    assert (first, second) == (CONNECTIONS, CONNECTIONS)


def test_idle_connections_follow_the_name_within_their_lifetime(
    server: cluster.Server, elsewhere: str, names: dnsmasq.Names
) -> None:
    lifetime_seconds = 4
    names.lead_to(server.host, server.address)
    variables = {**POOL, "DATABASE_MAX_LIFETIME_SECONDS": lifetime_seconds}
    with AsDeployed(DATABASE_URL=server.url(dnsmasq.NAME), within=names.within, **variables):
        old = wait_for_connections(server)
        names.lead_to(server.host, elsewhere)
        flipped = time.monotonic()
        wait_until(lambda: have_left(server, old), 3 * lifetime_seconds)
        moved_seconds = time.monotonic() - flipped
    print(f"\nflip, idle: {CONNECTIONS} connections moved in {moved_seconds:.2f} s of {lifetime_seconds} s")
    assert moved_seconds <= lifetime_seconds


def test_connections_in_use_follow_the_name_within_their_lifetime_and_no_request_notices(
    server: cluster.Server, elsewhere: str, names: dnsmasq.Names
) -> None:
    lifetime_seconds = 4
    names.lead_to(server.host, server.address)
    variables = {**POOL, "DATABASE_MAX_LIFETIME_SECONDS": lifetime_seconds}
    with AsDeployed(DATABASE_URL=server.url(dnsmasq.NAME), within=names.within, **variables) as service:
        old = wait_for_connections(server)
        with Load(service.port, clients=8, pause_seconds=0.01) as load:
            load.wait_for(500)
            names.lead_to(server.host, elsewhere)
            flipped = time.monotonic()
            wait_until(lambda: have_left(server, old), 3 * lifetime_seconds)
            moved_seconds = time.monotonic() - flipped
            load.wait_for(len(load.answers) + 500)
    print(
        f"\nflip, in use: {CONNECTIONS} connections moved in {moved_seconds:.2f} s of {lifetime_seconds} s,"
        f" {len(load.failed)} of {len(load.answers)} requests failed"
    )
    assert moved_seconds <= lifetime_seconds
    assert load.failed == []


def test_a_sighup_makes_all_connections_follow_the_name_at_once_and_no_request_notices(
    server: cluster.Server, elsewhere: str, names: dnsmasq.Names
) -> None:
    drain_seconds = 1
    names.lead_to(server.host, server.address)
    variables = {**POOL, "DATABASE_MAX_LIFETIME_SECONDS": 3_600, "DRAIN_SECONDS": drain_seconds}
    with AsDeployed(DATABASE_URL=server.url(dnsmasq.NAME), within=names.within, **variables) as service:
        old = wait_for_connections(server)
        with Load(service.port, clients=8, pause_seconds=0.01) as load:
            load.wait_for(500)
            names.lead_to(server.host, elsewhere)
            told = service.signal(signal.SIGHUP)
            wait_until(lambda: old not in (now := places(server)) and sum(now.values()) == CONNECTIONS)
            moved_seconds = time.monotonic() - told
            load.wait_for(len(load.answers) + 1_000)
    print(
        f"\nflip, SIGHUP: {CONNECTIONS} connections moved in {moved_seconds:.2f} s,"
        f" {len(load.failed)} of {len(load.answers)} requests failed"
    )
    assert moved_seconds <= drain_seconds + 3  # new workers start, the old ones answer what they have
    assert load.failed == []


@pytest.mark.parametrize("how", ["frozen", "away"])
def test_a_name_server_that_is_silent_costs_nothing_and_the_name_is_followed_when_it_is_back(
    server: cluster.Server, elsewhere: str, names: dnsmasq.Names, how: str
) -> None:
    lifetime_seconds, silence_seconds = 3, 10
    names.lead_to(server.host, server.address)
    variables = {**POOL, "DATABASE_MAX_LIFETIME_SECONDS": lifetime_seconds}
    with AsDeployed(DATABASE_URL=server.url(dnsmasq.NAME), within=names.within, **variables) as service:
        old = wait_for_connections(server)
        with Load(service.port, clients=8, pause_seconds=0.01) as load:
            load.wait_for(500)
            silent = time.monotonic()
            names.freeze() if how == "frozen" else names.stop()
            wait_until(lambda: time.monotonic() - silent > silence_seconds)
            wait_until(lambda: server.sessions() == CONNECTIONS)
            names.lead_to(server.host, elsewhere)
            flipped = time.monotonic()
            wait_until(lambda: old not in places(server), 5 * lifetime_seconds)
            moved_seconds = time.monotonic() - flipped
            load.wait_for(len(load.answers) + 500)
    print(
        f"\nname server {how} for {silence_seconds} s with a lifetime of {lifetime_seconds} s:"
        f" {len(load.failed)} of {len(load.answers)} requests failed, moved {moved_seconds:.2f} s after it was back"
    )
    assert load.failed == []
    # What is renewed when the name server comes back may still wait for an answer that was lost.
    assert moved_seconds <= lifetime_seconds + 3


def test_tls_through_the_name_works_with_the_right_authority(
    server: cluster.Server, names: dnsmasq.Names, tmp_path: Path
) -> None:
    names.lead_to(server.host, server.address)
    authority = str(cluster.certificate_authority(server, tmp_path))
    url = server.url(dnsmasq.NAME, sslmode="verify-ca", sslrootcert=authority, channel_binding="require")
    with AsDeployed(DATABASE_URL=url, within=names.within) as service, service.client() as client:
        assert client.post("/probes", json={"text": "in private"}).status_code == 201
        versions = server.ask(
            "SELECT DISTINCT version FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'service'"
        )
    status, [*_, event], _ = run_admin("check", within=names.within, DATABASE_URL=url)
    assert (status, event["body"]) == (0, "everything can be reached")
    print(f"\nTLS, verify-ca through the CNAME: {versions[0][0]}, and channel binding")
    assert versions == [("TLSv1.3",)]


def test_tls_with_another_authority_is_refused_and_the_reason_is_said(
    server: cluster.Server, names: dnsmasq.Names, tmp_path: Path
) -> None:
    names.lead_to(server.host, server.address)
    wrong = tmp_path / "wrong.pem"
    cluster.run(
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=another CA",
        "-keyout",
        "/dev/null",
        "-out",
        str(wrong),
    )
    url = server.url(dnsmasq.NAME, sslmode="verify-ca", sslrootcert=str(wrong), channel_binding="require")
    with AsDeployed(DATABASE_URL=url, within=names.within) as service, service.client() as client:
        answer = client.get("/probes")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    status, events, stderr = run_admin("check", within=names.within, DATABASE_URL=url)
    print(f"\nTLS, wrong authority: {answer.status_code}, and check says: {events[-1]['body']}")
    assert (status, len(events), stderr) == (1, 1, "")
    assert "certificate verify failed" in events[0]["body"]


def test_verify_full_needs_a_certificate_for_the_name_that_the_service_knows(
    server: cluster.Server, names: dnsmasq.Names, tmp_path: Path
) -> None:
    with cluster.primary(host=dnsmasq.NAME) as named:
        for each, expected in ((server, 1), (named, 0)):
            names.lead_to("postgres-1.internal", each.address)
            authority = str(cluster.certificate_authority(each, tmp_path))
            url = each.url(dnsmasq.NAME, sslmode="verify-full", sslrootcert=authority)
            run_admin("migrate", DATABASE_URL=each.url())
            status, events, _ = run_admin("check", within=names.within, DATABASE_URL=url)
            print(f"\nTLS, verify-full, certificate for {each.host}: {events[-1]['body']}")
            assert status == expected
            assert expected == 0 or "does not match host name" in events[-1]["body"]
