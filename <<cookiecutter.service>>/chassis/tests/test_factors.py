"""The factors of running processes, proven from outside: `make factors`.

A function `prove_…` runs services and raises `AssertionError` where its law is broken; what it returns is the figure.
One test shows that the law holds, and its companion breaks the law on purpose and shows that the proof notices: a proof
that cannot fail is none.
"""

import json
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chassis import migrations
from chassis.dev import embedded
from chassis.testing.process import BIN, environment, wait_until
from chassis.testing.relay import Relay
from chassis.tests.factors import URL, refused
from chassis.tests.faults.load import Load
from chassis.tests.probe import MIGRATIONS, PACKAGE
from chassis.tests.probe.code import Code

# IV


def prove_backing_services(code: Code) -> str:
    """Check that what answers under the database's name is swapped while the service runs, and it follows."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        name = folder / "name"
        urls = [stack.enter_context(embedded.temporary()) for _ in range(2)]
        sockets = []
        for url in urls:
            with psycopg.connect(url, autocommit=True) as conn:
                sockets.append(conn.info.host)
            migrations.apply(partial(psycopg.connect, url, autocommit=True), MIGRATIONS)
        name.symlink_to(sockets[0])
        server = stack.enter_context(
            code.run(DATABASE_URL=f"postgresql://postgres@/postgres?host={name}", DATABASE_MAX_LIFETIME_SECONDS=1)
        )
        client = stack.enter_context(server.client())
        probe = client.post("/probes", json={"text": "on one"}).headers["location"]
        other = folder / "other"
        other.symlink_to(sockets[1])
        swapped = time.monotonic()
        other.replace(name)
        wait_until(lambda: client.get(probe).status_code == 404, seconds=10)
        assert client.post("/probes", json={"text": "on two"}).status_code == 201
        return f"followed after {time.monotonic() - swapped:.1f} s, without a restart"


def test_iv_backing_services(code: Code, holds: Callable[[str, str], None]) -> None:
    holds("swapped the database behind its name", prove_backing_services(code))


def test_iv_is_noticed_when_connections_live_for_ever(code: Code) -> None:
    code.broken("chassis/db.py", "lifetime_seconds=settings.database_max_lifetime_seconds", "lifetime_seconds=3600")
    refused(lambda: prove_backing_services(code))


# VI


def prove_processes(code: Code, database_url: str) -> str:
    """Two processes share no memory and no disk: what one stores, the other serves; and nothing is written."""
    path = f"/probes/{uuid.uuid4()}"
    before = code.digest()
    alone = {"DATABASE_URL": database_url, "WEB_CONCURRENCY": 1}
    with code.run(**alone) as one, code.run(**alone) as two:
        with one.client() as client:
            assert client.put(path, json={"text": "shared"}).status_code == 201
        assert two.get(path).status_code == 200, "kept in one process"
    assert code.digest() == before, "a file was written"
    return "stored by one, served by the other, 0 files written"


def test_vi_processes(code: Code, database_url: str, holds: Callable[[str, str], None]) -> None:
    holds("stored a probe by one process and asked another", prove_processes(code, database_url))


def test_vi_is_noticed_when_probes_are_kept_in_memory(code: Code, database_url: str) -> None:
    code.broken(
        "chassis/tests/probe/api.py",
        "    probe = Probe(*columns)\n",
        "    probe = KEPT[probe_id] = Probe(*columns)\n",
    )
    code.broken(
        "chassis/tests/probe/api.py",
        "    return db.read(select, probe_id) or",
        "    return KEPT.get(probe_id) or",
    )
    code.broken(
        "chassis/tests/probe/api.py",
        "MAX_TEXT_CHARS = 10_000\n",
        "MAX_TEXT_CHARS = 10_000\nKEPT: dict[UUID, Any] = {}\n",
    )
    assert "kept in one process" in refused(lambda: prove_processes(code, database_url))


# VII


def prove_port_binding(code: Code) -> str:
    """Check that it is an HTTP server by itself, on whatever port it is told."""
    with code.run(DATABASE_URL=URL) as one, code.run(DATABASE_URL=URL) as two:
        assert [server.get("/livez").status_code for server in (one, two)] == [200, 200]
        return f"answered on {one.port} and {two.port}"


def test_vii_port_binding(code: Code, holds: Callable[[str, str], None]) -> None:
    holds("started it on two free ports, with nothing in front", prove_port_binding(code))


def test_vii_is_noticed_when_the_port_is_fixed(code: Code) -> None:
    code.broken("chassis/server.py", 'f"0.0.0.0:{settings.port}"', '"127.0.0.1:0"')
    with pytest.raises(Exception, match="refused"):
        prove_port_binding(code)


# VIII


def prove_concurrency(code: Code, database_url: str) -> str:
    """Twice the processes carry more, without a change of code. Each has one connection, and the database is slow."""
    carried = []
    with psycopg.connect(database_url) as conn, Relay(conn.info.host, conn.info.port, delay_seconds=0.02) as slow:
        far = slow.stands_for(database_url)
        for processes in (1, 2):
            with code.run(DATABASE_URL=far, WEB_CONCURRENCY=processes, DATABASE_POOL_SIZE=1) as server:
                server.wait_for("ready", count=processes)
                with Load(server.port, clients=16) as load:
                    load.wait_for(50)
                    first, started = len(load.answers), time.monotonic()
                    time.sleep(2)  # the span of the measurement
                    carried.append((len(load.answers) - first) / (time.monotonic() - started))
                assert load.failed == []
    ratio = carried[1] / carried[0]
    assert ratio > 1.4, f"twice the processes carried {ratio:.2f} times as much"
    return f"{carried[0]:.0f} and {carried[1]:.0f} requests/s: {ratio:.2f} times as much"


def test_viii_concurrency(code: Code, database_url: str, holds: Callable[[str, str], None]) -> None:
    holds("put load on 1 process and on 2", prove_concurrency(code, database_url))


def test_viii_is_noticed_when_the_number_of_processes_is_fixed(code: Code, database_url: str) -> None:
    code.broken("chassis/server.py", '"workers": settings.web_concurrency', '"workers": 1')
    code.broken("chassis/server.py", "lifecycle.started()", "lifecycle.started(); lifecycle.started()")
    assert "times as much" in refused(lambda: prove_concurrency(code, database_url))


# IX


def prove_disposability(code: Code, database_url: str, **variables: Any) -> str:
    """Check that it is ready soon, and SIGTERM under load loses nothing while the balancer looks away."""
    begun = time.monotonic()
    with code.run(DATABASE_URL=database_url, **{"DRAIN_SECONDS": 5, **variables}) as server:
        ready_seconds = time.monotonic() - begun
        with Load(server.port, clients=8) as load:
            load.wait_for(100)
            server.signal(signal.SIGTERM)
            load.wait_for(len(load.answers) + 200, seconds=4.5)  # while it drains
        assert load.failed == [], "requests were lost"
        stopped = time.monotonic()
        assert server.wait() == 0
    gone_seconds = time.monotonic() - stopped
    return f"ready in {ready_seconds:.1f} s, 0 of {len(load.answers)} requests lost, gone {gone_seconds:.1f} s later"


def test_ix_disposability(code: Code, database_url: str, holds: Callable[[str, str], None]) -> None:
    holds("started it, and stopped it under load", prove_disposability(code, database_url))


def test_ix_is_noticed_when_it_does_not_drain(code: Code, database_url: str) -> None:
    refused(lambda: prove_disposability(code, database_url, DRAIN_SECONDS=0))


# XI


def prove_logs(code: Code, database_url: str) -> str:
    """Every byte on stdout is an event, stderr is silent, and no file appears."""
    before = code.digest()
    with code.run(DATABASE_URL=database_url, DRAIN_SECONDS=0) as server:
        with server.client() as client:
            client.post("/probes", json={"text": "line\nbreak"})
            client.get("/nowhere%0d%0a")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    events: list[Any] = [json.loads(line) for line in server.lines]
    assert server.stderr == b"", "something on stderr"
    assert code.digest() == before, "a file appeared"
    return f"{len(events)} lines, {len(events)} events"


def test_xi_logs(code: Code, database_url: str, holds: Callable[[str, str], None]) -> None:
    holds("started it, asked it, stopped it, and read all that it said", prove_logs(code, database_url))


def test_xi_is_noticed_when_something_is_logged_elsewhere(code: Code, database_url: str) -> None:
    code.broken("chassis/health.py", "import Config\n", "import Config\n\nopen('service.log', 'w').close()\n")
    assert "a file appeared" in refused(lambda: prove_logs(code, database_url))


# XII


def prove_admin(code: Code, empty_database_url: str) -> str:
    """Check that a one-off process has the same code and configuration, and its exit status says how it went."""

    def admin(command: str, url: str) -> int:
        env = environment(DATABASE_URL=url, DATABASE_TIMEOUT_SECONDS=1)
        return subprocess.run(
            [BIN / "python", "-m", f"{PACKAGE}.admin", command],
            cwd=code.folder,
            env=env,
            capture_output=True,
            check=False,
        ).returncode

    statuses = [
        admin("check", empty_database_url),
        admin("migrate", empty_database_url),
        admin("check", empty_database_url),
        admin("check", URL),
    ]
    assert statuses == [1, 0, 0, 1], f"statuses {statuses}"
    return "statuses 1, 0, 0, 1"


def test_xii_admin_processes(code: Code, empty_database_url: str, holds: Callable[[str, str], None]) -> None:
    holds("checked, migrated, checked again, and asked a database that is away", prove_admin(code, empty_database_url))


def test_xii_is_noticed_when_failures_are_hidden(code: Code, empty_database_url: str) -> None:
    code.broken("chassis/admin.py", "        return EX_FAILED\n", "        return 0\n")
    assert "statuses" in refused(lambda: prove_admin(code, empty_database_url))
