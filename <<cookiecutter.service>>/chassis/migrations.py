"""The database's schema, as plain SQL files `NNNN_what.sql` that are applied once each, in the order of their names.

A file is one transaction: all of it, or nothing. Where PostgreSQL forbids that, as for `CREATE INDEX CONCURRENTLY`, its
first line is `-- no transaction`; then its statements, which end with `;` at the end of a line, run one by one, and
must bear to be run again.

Blue and green serve at the same time, so a file may only add what the release before it can ignore (expand); what
nobody uses any more is removed a release later (contract). https://martinfowler.com/bliki/ParallelChange.html
"""

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection

NO_TRANSACTION = "-- no transaction"

LOCK = 0x6D_69_67_72_61_74_65
"""The advisory lock that all migrators of a database share: "migrate" in ASCII."""

LOCK_PATIENCE_SECONDS = 600
"""How long to wait for another migrator."""

TABLE_LOCK_PATIENCE_SECONDS = 10
"""How long a statement may wait for a table that others use, since all who come later queue up behind it."""

log = logging.getLogger(__name__)


class MigrationError(Exception):
    """The schema cannot be brought up to date; the text says why and what to do."""


def apply(conn: Connection[Any], folder: Path) -> list[str]:
    """Apply what is pending; says what that was. `conn` is in autocommit. Safe to run many times, also at once.

    Raises:
        MigrationError: a file was edited after it was applied, another migrator takes too long, or a statement failed;
            nothing of its file is left then, and the files before it stay applied.
        psycopg.Error: the database cannot be had.
    """
    with _lock(conn):
        conn.execute(
            "CREATE TABLE IF NOT EXISTS migrations ("
            " name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        names = pending(conn, folder)
        for name in names:
            _apply_file(conn, folder / name)
    return names


def pending(conn: Connection[Any], folder: Path) -> list[str]:
    """Return the names of the files that are not applied yet, in order.

    Raises:
        MigrationError: a file was edited after it was applied.
    """
    [(exists,)] = conn.execute("SELECT to_regclass('migrations') IS NOT NULL")
    applied = dict(conn.execute("SELECT name, checksum FROM migrations").fetchall()) if exists else {}
    names = sorted(path.name for path in folder.glob("*.sql"))
    for name in names:
        if name in applied and applied[name] != _checksum(folder / name):
            raise MigrationError(
                f"{name} was edited after it was applied: restore it, and put the change into a new file"
            )
    return [name for name in names if name not in applied]


@contextmanager
def _lock(conn: Connection[Any]) -> Iterator[None]:
    """Be the only migrator. Polled, since waiting inside a statement deadlocks with `CREATE INDEX CONCURRENTLY`."""
    # Without it the server notices only at the end of a long statement that its migrator was killed.
    conn.execute("SET client_connection_check_interval = '1s'")
    conn.execute("SELECT set_config('lock_timeout', %s, false)", [f"{TABLE_LOCK_PATIENCE_SECONDS}s"])
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    while conn.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone() != (True,):
        if time.monotonic() > deadline:
            raise MigrationError(
                f"another migration has been running for {LOCK_PATIENCE_SECONDS} s: wait for it to end"
            )
        time.sleep(0.2)
    try:
        yield
    finally:
        if not conn.broken:
            conn.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def _apply_file(conn: Connection[Any], path: Path) -> None:
    started = time.monotonic()
    log.info("applying", extra={"migration": path.name})
    sql = path.read_text(encoding="utf-8")
    note = "INSERT INTO migrations (name, checksum) VALUES (%s, %s)"
    # SQL goes in as bytes, since only constant strings pass for it; files of ours are as good.
    if sql.startswith(NO_TRANSACTION):
        with _blamed_on(path, "it will run again from its start"):
            for statement in sql.split(";\n"):
                if statement.strip():
                    conn.execute(statement.encode())
            conn.execute(note, [path.name, _checksum(path)])
    else:
        with _blamed_on(path, "nothing of it is left"), conn.transaction():
            conn.execute(sql.encode())
            conn.execute(note, [path.name, _checksum(path)])
    log.info("applied", extra={"migration": path.name, "duration_ms": round((time.monotonic() - started) * 1_000, 3)})


@contextmanager
def _blamed_on(path: Path, outcome: str) -> Iterator[None]:
    """Say which file failed: PostgreSQL says only why."""
    try:
        yield
    except psycopg.Error as error:
        raise MigrationError(f"{path.name} failed, {outcome}: {error}") from error


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
