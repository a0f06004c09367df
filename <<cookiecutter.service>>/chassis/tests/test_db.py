"""Factor IV: the pool, on a database whose connections are cut."""

import ast
import dataclasses
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
import pytest
from flask import Flask, g
from psycopg import Connection

from chassis import config, connections, db, lending
from chassis.connections import NoConnectionError
from chassis.testing.process import wait_until
from chassis.testing.relay import Relay
from chassis.tests.probe.app import create_app

TAKERS_OF_SQL = {"execute", "executemany", "copy", "stream"}


def cut_all(conn: Connection) -> None:
    """Have the server end every other connection to this database, and wait until they have ended."""
    conn.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )


def test_psycopg_is_the_compiled_one() -> None:
    assert psycopg.pq.__impl__ == "binary"


def test_each_statement_is_a_transaction_of_its_own(app: Flask) -> None:
    with app.app_context(), db.connection() as conn:
        conn.execute("SELECT 1")
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_a_connection_speaks_utc_and_limits_statements(app: Flask, settings: config.Config) -> None:
    with app.app_context(), db.connection() as conn:
        assert conn.execute("SHOW TimeZone").fetchone() == ("UTC",)
        assert conn.execute("SHOW statement_timeout").fetchone() == (f"{settings.statement_timeout_seconds}s",)
        assert conn.info.get_parameters()["target_session_attrs"] == "read-write"
        assert conn.info.get_parameters()["application_name"].startswith(settings.service)


def test_connections_that_the_server_cut_are_replaced_unseen(app: Flask, conn: Connection) -> None:
    wait_until(lambda: app.extensions["pool"].idle == app.extensions["pool"].size)
    cut_all(conn)
    with app.app_context():
        for _ in range(20):
            with db.connection() as lent:
                assert lent.execute("SELECT 1").fetchone() == (1,)


def test_a_read_whose_connection_breaks_is_repeated_once(app: Flask, conn: Connection) -> None:
    backends: list[int] = []

    def query(lent: Connection) -> int:
        backends.append(lent.info.backend_pid)
        if len(backends) == 1:
            cut_all(conn)
        lent.execute("SELECT 1")
        return lent.info.backend_pid

    with app.app_context():
        assert db.read(query) == backends[1] != backends[0]


def test_a_read_is_not_repeated_for_ever(app: Flask, conn: Connection) -> None:
    attempts: list[int] = []

    def query(lent: Connection) -> None:
        attempts.append(1)
        cut_all(conn)
        lent.execute("SELECT 1")

    with app.app_context(), pytest.raises(psycopg.OperationalError):
        db.read(query)
    assert len(attempts) == 2


def test_a_statement_over_its_time_is_not_repeated(app: Flask) -> None:
    attempts: list[int] = []

    def query(lent: Connection) -> None:
        attempts.append(1)
        lent.execute("SET statement_timeout = '10ms'")
        lent.execute("SELECT pg_sleep(5)")

    with app.app_context(), pytest.raises(psycopg.errors.QueryCanceled):
        db.read(query)
    assert len(attempts) == 1


def test_a_primary_that_was_demoted_loses_its_connections(app: Flask) -> None:
    with app.app_context():
        with db.connection() as before:
            pid = before.info.backend_pid
            before.execute("SET default_transaction_read_only = on")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            _write_until_refused(pid)
        for _ in range(10):
            with db.connection() as after:
                assert after.info.backend_pid != pid


def test_a_pool_that_is_in_use_refuses_after_the_time_out(settings: config.Config) -> None:
    app = create_app(dataclasses.replace(settings, database_pool_size=1, database_timeout_seconds=1))
    db.open_pool(app)
    with app.app_context(), db.connection():
        with pytest.raises(NoConnectionError, match="no connection became available"), db.connection():
            pass
        assert 1_000 <= g.db_pool_wait_ms < 5_000
    db.close_pool(app)


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
    with running(patient) as app, ThreadPoolExecutor(300) as clients:
        use(app)
        outcomes = Counter(outcome for outcome, _ in clients.map(use, [app] * 300))
    assert outcomes == {"served": 300}


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


@contextmanager
def running(settings: config.Config) -> Iterator[Flask]:
    """Run an application whose pool is open and full."""
    app = create_app(settings)
    db.open_pool(app)
    try:
        wait_until(lambda: app.extensions["pool"].idle == settings.database_pool_size)
        yield app
    finally:
        db.close_pool(app)


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


def test_a_prepared_statement_that_no_longer_fits_is_sent_anew(app: Flask, conn: Connection) -> None:
    conn.execute("CREATE TABLE changing (id int, text varchar(10))")
    try:
        with app.app_context(), db.connection() as lent:
            for _ in range(10):
                lent.execute("INSERT INTO changing VALUES (%s, 'a') RETURNING text", [1])
                lent.execute("SELECT * FROM changing WHERE id = %s", [1])
            assert lent.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (2,)
            conn.execute("ALTER TABLE changing ALTER COLUMN text TYPE text, ADD COLUMN more int")
            [*rows] = lent.execute("SELECT * FROM changing WHERE id = %s", [1])
            assert rows == [(1, "a", None)] * 10
            lent.execute("DEALLOCATE ALL")
            for _ in range(10):
                lent.execute("INSERT INTO changing VALUES (%s, 'a') RETURNING text", [1])
        [(count,)] = conn.execute("SELECT count(*) FROM changing")
        assert count == 20
    finally:
        conn.execute("DROP TABLE changing")


def test_preparing_can_be_switched_off(settings: config.Config) -> None:
    with (
        running(dataclasses.replace(settings, database_prepare=False)) as app,
        app.app_context(),
        db.connection() as lent,
    ):
        for _ in range(10):
            lent.execute("SELECT %s::int", [1])
        assert lent.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


def test_a_read_in_a_transaction_block_is_repeated_if_its_plan_no_longer_fits(app: Flask, conn: Connection) -> None:
    conn.execute("CREATE TABLE changing (id int)")
    attempts: list[int] = []

    def query(lent: Connection) -> Any:
        attempts.append(1)
        with lent.transaction():
            return lent.execute("SELECT * FROM changing WHERE id = %s", [1]).fetchall()

    try:
        wait_until(lambda: app.extensions["pool"].idle == app.extensions["pool"].size)
        with app.app_context():
            for _ in range(10):
                db.read(query)
            conn.execute("ALTER TABLE changing ADD COLUMN more int")
            assert db.read(query) == []
    finally:
        conn.execute("DROP TABLE changing")
    assert len(attempts) == 12


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


def _write_until_refused(pid: int) -> None:
    """Write over the connection of backend `pid`, which any checkout may give."""
    for _ in range(100):
        with db.connection() as conn:
            if conn.info.backend_pid == pid:
                conn.execute("INSERT INTO probes (text) VALUES ('refused')")


def test_sql_appears_only_as_constants() -> None:
    constant, variable = 0, []
    for path in sorted([*Path("service").rglob("*.py"), *Path("chassis").glob("*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        literals = {
            target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and _is_text(node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        # A name counts if nothing but literals is ever bound to it, anywhere in the file.
        others = {
            name.id
            for node in ast.walk(tree)
            if not (isinstance(node, ast.Assign) and _is_text(node.value))
            for name in ast.iter_child_nodes(node)
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
        } | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in TAKERS_OF_SQL:
                sql = call.args[0]
                if _is_text(sql) or (isinstance(sql, ast.Name) and sql.id in literals - others):
                    constant += 1
                else:
                    variable.append(f"{path}: {ast.unparse(sql)}")
    print(f"\nSQL: {constant} constants; beside them only the files of the migrations")
    assert constant > 10
    assert sorted(variable) == [
        "chassis/db.py: query",  # handed on
        "chassis/db.py: query",
        "chassis/migrations.py: migration.sql.encode()",
        "chassis/migrations.py: statement.encode()",
        "chassis/traces.py: query",  # handed on
        "chassis/traces.py: query",
    ]


def _is_text(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
