"""Random faults show no failure of the service, and show the failures that it once had."""

import pytest

from chassis.testing import dnsmasq
from chassis.tests.faults import chaos, cluster, pgbouncer
from chassis.tests.probe.code import Code

pytestmark = [cluster.needs_docker, cluster.needs_root, dnsmasq.needs_dnsmasq, pgbouncer.needed]

ATTEMPTS = 3
"""Seeds that are tried for a fault. The first one finds it, unless the machine is very busy."""

FAULTS = {
    "preparing a connection has no limit": (
        "proxy frozen and replaced",
        "chassis/db.py",
        "with conn.limited_to(settings.database_timeout_seconds):",
        "with conn.limited_to(3_600):",
    ),
    "a statement has no limit": (
        "connections forgotten for ever",
        "chassis/db.py",
        "conn.limit_seconds = settings.statement_timeout_seconds + SILENCE_SECONDS",
        "conn.limit_seconds = 3_600",
    ),
    # It was a hair's breadth, which `test_stop.py` meets with many reloads. Here it is wide enough for a few.
    "a stop ends what was idle a moment ago": (
        "reload",
        "chassis/worker.py",
        "if not arrived_bytes(self.clients[greenlet]):\n                greenlet.throw(limit)",
        "gevent.spawn_later(0.02, greenlet.kill, limit, block=False)",
    ),
}
"""Faults that the service once had: what shows them, in which file they were, what is replaced, and by what."""


def test_random_faults_break_no_promise() -> None:
    assert chaos.run(120, seed=1) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_was_there_once_is_found(code: Code, fault: str) -> None:
    shown_by, *change = FAULTS[fault]
    code.broken(*change)
    assert any(chaos.run(20, seed, [shown_by], code.folder) for seed in range(1, ATTEMPTS + 1))


def test_a_fault_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="FAULTS has comet, flood; there are: server frozen, server restarted"):
        chaos.run(20, 1, ["flood", "comet"])
