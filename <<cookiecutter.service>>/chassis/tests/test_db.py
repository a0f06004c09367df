"""Factor IV: the pool, on a database whose connections are cut."""

import ast
import dataclasses
import threading
from pathlib import Path

import psycopg
import pytest
from flask import Flask, g
from psycopg import Connection
from psycopg_pool import PoolTimeout, TooManyRequests

from chassis import config, db
from chassis.testing.process import wait_until
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
    app.extensions["pool"].wait()
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
        with pytest.raises(PoolTimeout), db.connection():
            pass
        assert 1_000 <= g.db_pool_wait_ms < 5_000
    db.close_pool(app)


def test_a_full_queue_refuses_at_once(settings: config.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "WAITING_PER_CONNECTION", 1)
    app = create_app(dataclasses.replace(settings, database_pool_size=1))
    db.open_pool(app)

    def use() -> None:
        with app.app_context(), db.connection():
            pass

    queued = threading.Thread(target=use)
    with app.app_context(), db.connection():
        queued.start()
        wait_until(lambda: app.extensions["pool"].get_stats()["requests_waiting"])
        with pytest.raises(TooManyRequests):
            use()
    queued.join()
    db.close_pool(app)


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
        "chassis/migrations.py: sql.encode()",
        "chassis/migrations.py: statement.encode()",
        "chassis/traces.py: query",  # handed on
        "chassis/traces.py: query",
    ]


def _is_text(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
