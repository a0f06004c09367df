"""Factor IV: the pool refuses what it cannot serve in time, and survives a server that falls silent."""

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, LiteralString, cast

import psycopg
import pytest
from flask import Flask, g
from psycopg import Connection

from chassis import config, connections, db, lending
from chassis.connections import NoConnectionError
from chassis.testing.process import wait_until
from chassis.testing.relay import Relay
from chassis.tests.probe.pool import running


def test_a_pool_that_is_in_use_refuses_after_the_time_out(settings: config.Config) -> None:
    limited = dataclasses.replace(settings, database_pool_size=1, database_timeout_seconds=1)
    with running(limited) as app, app.app_context(), db.connection():
        with pytest.raises(NoConnectionError, match="no connection became available"), db.connection():
            pass
        assert 1_000 <= g.db_pool_wait_ms < 5_000


def use(app: Flask, statement: LiteralString = "SELECT 1") -> tuple[str, float]:
    """Send a statement; return what came of it, and after how many seconds."""
    started = time.monotonic()
    outcome = "served"
    try:
        with app.app_context(), db.connection() as lent:
            lent.execute(statement)
    except psycopg.OperationalError as error:
        outcome = type(error).__name__
    return outcome, time.monotonic() - started


def test_a_queue_that_is_served_in_time_refuses_nobody_however_long_it_is(settings: config.Config) -> None:
    # So much time that a busy machine does not matter.
    patient = dataclasses.replace(settings, database_pool_size=1, database_timeout_seconds=30)
    with running(patient) as app, ThreadPoolExecutor(600) as clients:
        use(app)
        outcomes = Counter(outcome for outcome, _ in clients.map(use, [app] * 600))
    assert outcomes == {"served": 600}


def test_a_queue_that_cannot_be_served_in_time_refuses_at_once(settings: config.Config) -> None:
    timeout_seconds, clients = 5, 120
    limited = dataclasses.replace(settings, database_pool_size=1, database_timeout_seconds=timeout_seconds)
    with running(limited) as app, ThreadPoolExecutor(2) as before, ThreadPoolExecutor(clients) as crowd:
        # So that the pool has seen what a statement takes. By two threads: one alone might be so busy that it did not
        # wait for its statement, and the pool would forget the pace.
        list(before.map(use, [app] * lending.PACE_OF, ["SELECT pg_sleep(0.1)"] * lending.PACE_OF))
        answers = list(crowd.map(use, [app] * clients, ["SELECT pg_sleep(0.1)"] * clients))
    outcomes = Counter(outcome for outcome, _ in answers)
    refused = [seconds for outcome, seconds in answers if outcome == "NoConnectionError"]
    assert set(outcomes) == {"served", "NoConnectionError"}
    assert outcomes["served"] >= 5  # of the 50 that there is time for, or fewer on a busy machine
    assert len([seconds for seconds in refused if seconds < timeout_seconds / 2]) >= 30  # of 70 or more


def test_a_few_slow_statements_are_no_reason_to_refuse_anybody(settings: config.Config) -> None:
    with running(dataclasses.replace(settings, database_pool_size=5)) as app, ThreadPoolExecutor(40) as clients:
        list(clients.map(use, [app] * 5, ["SELECT pg_sleep(0.5)"] * 5))
        outcomes = Counter(outcome for outcome, _ in clients.map(use, [app] * 40, ["SELECT pg_sleep(0.05)"] * 40))
    assert outcomes == {"served": 40}


@pytest.fixture
def relay(conn: Connection) -> Iterator[Relay]:
    """Return a proxy between the service and its database."""
    with Relay(conn.info.host, conn.info.port) as relay:
        yield relay


def behind(relay: Relay, settings: config.Config, **changes: int) -> config.Config:
    """Return a configuration whose database is reached through `relay`."""
    fast: dict[str, Any] = {"database_timeout_seconds": 2, "statement_timeout_seconds": 1, "database_pool_size": 2}
    return dataclasses.replace(settings, database_url=relay.stands_for(settings.database_url), **{**fast, **changes})


@pytest.mark.parametrize("after_login", [False, True])
def test_a_server_that_falls_silent_is_found_again_within_a_second_of_its_return(
    relay: Relay, settings: config.Config, *, after_login: bool
) -> None:
    with running(behind(relay, settings)) as app:
        relay.freeze(after_login=after_login)
        outcome, seconds = use(app)
        assert outcome == "ServerSilentError"
        assert seconds < 1 + db.SILENCE_SECONDS + 1
        for _ in range(3):  # all connections have been given up by then, and every attempt to connect hangs
            assert use(app)[0] in {"NoConnectionError", "ServerSilentError"}
        relay.thaw()
        returned = time.monotonic()
        wait_until(lambda: use(app)[0] == "served")
        assert time.monotonic() - returned < 1


def test_a_proxy_that_is_replaced_is_found_within_a_second_even_while_many_attempts_hang(
    relay: Relay, settings: config.Config
) -> None:
    timeout_seconds = 10
    with running(behind(relay, settings, database_timeout_seconds=timeout_seconds)) as app:
        relay.freeze(after_login=True)
        assert use(app)[0] == "ServerSilentError"
        time.sleep(4)  # attempts to connect begin all the time, and the first of them hangs for longer
        relay.forget()
        outcome, seconds = use(app)
    assert outcome == "served"
    assert seconds < timeout_seconds / 3


def test_a_connection_that_falls_silent_makes_the_others_suspects(relay: Relay, settings: config.Config) -> None:
    with running(behind(relay, settings, database_pool_size=5)) as app:
        relay.freeze()
        assert use(app)[0] == "ServerSilentError"
        assert app.extensions["pool"].idle == 0
        assert use(app)[0] == "NoConnectionError"  # and no other one has to find out by itself
        relay.thaw()


def test_a_statement_whose_request_ends_is_cancelled(relay: Relay, settings: config.Config, conn: Connection) -> None:
    with running(behind(relay, settings, statement_timeout_seconds=10)) as app:
        with app.app_context(), suppress(psycopg.OperationalError), db.connection() as lent:
            lent = cast("connections.Connection[Any]", lent)
            with lent.limited_to(0.2):
                lent.execute("SELECT pg_sleep(60)")
        running_still = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        wait_until(lambda: not conn.execute(running_still).fetchone(), seconds=5)


def test_the_locks_of_a_process_that_is_cut_off_are_released(
    relay: Relay, settings: config.Config, conn: Connection
) -> None:
    is_free = "SELECT pg_try_advisory_xact_lock(77)"
    freed = []
    with running(behind(relay, settings, shutdown_seconds=1)) as app:
        ends = suppress(psycopg.OperationalError, TimeoutError)
        with app.app_context(), ends, db.connection() as lent, lent.transaction():
            lent.execute("SELECT pg_advisory_xact_lock(77)")
            relay.freeze()
            assert conn.execute(is_free).fetchone() == (False,)
            wait_until(lambda: conn.execute(is_free).fetchone() == (True,), seconds=20)
            freed.append(True)
        relay.thaw()
    assert freed  # an exception from within would be replaced by that of the ROLLBACK that nobody answers


def test_an_old_connection_stays_until_there_is_a_new_one(relay: Relay, settings: config.Config) -> None:
    with running(behind(relay, settings, database_max_lifetime_seconds=1)) as app:
        relay.freeze(after_login=True)
        relay.thaw()
        before = backends(app)
        wait_until(lambda: not before & backends(app))  # they are replaced when they can be
        with refusing(relay):
            kept = backends(app)
            started = time.monotonic()
            while time.monotonic() - started < 3:
                assert use(app)[0] == "served"
            assert backends(app) == kept
        wait_until(lambda: not kept & backends(app))


def backends(app: Flask) -> set[int]:
    """Return the process numbers of the server behind the connections of the pool."""
    return {member.info.backend_pid for member in app.extensions["pool"].connections()}


@contextmanager
def refusing(relay: Relay) -> Iterator[None]:
    """Let no new connection be made to the database, while the old ones go on."""
    relay.refuse()
    try:
        yield
    finally:
        relay.accept()
