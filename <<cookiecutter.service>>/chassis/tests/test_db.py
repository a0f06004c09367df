"""Factor IV: statements are sent on connections that may be cut, and prepared for a schema that may change."""

import ast
import dataclasses
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from psycopg import Connection

from chassis import config, db
from chassis.testing.process import wait_until
from chassis.tests.probe.pool import running

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
