"""Random faults show no failure of the service, and show the failures that it once had."""

import pytest

from chassis.testing import dnsmasq
from chassis.tests.faults import chaos, cluster, pgbouncer
from chassis.tests.probe.code import Code

pytestmark = [cluster.needs_docker, cluster.needs_root, dnsmasq.needs_dnsmasq, pgbouncer.needed]

SECONDS = 45

ATTEMPTS = 10
"""Seeds that are tried for a fault: whether chance meets it in one run depends on how busy the machine is."""

FAULTS = {
    "preparing a connection has no limit": (
        "chassis/db.py",
        "with conn.limited_to(settings.database_timeout_seconds):",
        "with conn.limited_to(3_600):",
    ),
    "a statement has no limit": (
        "chassis/db.py",
        "conn.limit_seconds = settings.statement_timeout_seconds + SILENCE_SECONDS",
        "conn.limit_seconds = 3_600",
    ),
    "a stop ends what was idle a moment ago": (
        "chassis/worker.py",
        "if not arrived_bytes(self.clients[greenlet]):\n                greenlet.throw(limit)",
        "greenlet.kill(limit, block=False)",
    ),
}
"""Faults that the service once had: in which file, what is replaced, and by what."""


def test_random_faults_break_no_promise() -> None:
    assert chaos.run(SECONDS, seed=1) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_was_there_once_is_found(code: Code, fault: str) -> None:
    code.broken(*FAULTS[fault])
    assert any(chaos.run(SECONDS, seed, folder=code.folder) for seed in range(1, ATTEMPTS + 1))
