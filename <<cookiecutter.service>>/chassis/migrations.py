"""The database's schema, as plain SQL files `NNNN_what.sql` that are applied once each, in the order of their names.

A file is applied in one transaction, in a session of its own: either all of it is applied, or nothing. PostgreSQL does
not allow some statements in a transaction, such as `CREATE INDEX CONCURRENTLY`. A file with such a statement begins
with the line `-- no transaction`. Its statements then run one by one, and the file must be safe to run again.

During a deployment the old release (blue) and the new one (green) serve at the same time. A file may therefore only
add what the old release can ignore (expand). What no release uses any more is removed one release later (contract).
https://martinfowler.com/bliki/ParallelChange.html
"""

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.pq import TransactionStatus

from chassis.sql import invalid_indexes, lift_transaction_timeout, reset, statements, transaction_control

NO_TRANSACTION = "-- no transaction"
"""First line of a file whose statements run one by one. A longer comment that begins so is only a comment."""

NAME = re.compile(r"[0-9]{4}_[A-Za-z0-9_-]+\.sql")
"""Name of a file."""

LOCK = 0x6D_69_67_72_61_74_65
"""Key of the advisory lock that lets only one process migrate a database at a time: "migrate" in ASCII."""

FILE_LOCK = LOCK + 1
"""Key of the advisory lock that is held while a file is applied. If the process is killed, the server releases the lock
once it notices that the client is gone."""

LOCK_PATIENCE_SECONDS = 600
"""How long to wait for another process that migrates the same database."""

TABLE_LOCK_PATIENCE_SECONDS = 10
"""`lock_timeout` of a migration. While a statement waits for the lock of a table, all later queries of that table wait
behind it."""

log = logging.getLogger(__name__)


class MigrationError(Exception):
    """The schema cannot be brought up to date. The message says why and what to do."""


@dataclass(frozen=True)
class Migration:
    """A file of the migrations folder."""

    name: str
    sql: str
    """The text of the file, with `\\n` as its line ending, and without a byte order mark."""

    @property
    def checksum(self) -> str:
        """Return the hash that is stored with the name. It does not depend on the line endings of the file."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def is_transaction(self) -> bool:
        """Return whether the file is applied in one transaction."""
        return not re.match(rf"{NO_TRANSACTION}[ \t]*([\r\n]|\Z)", self.sql)


def apply(connect: Callable[[], Connection[Any]], folder: Path) -> list[str]:
    """Apply the pending files, and return their names. Idempotent; several processes may call it at the same time.

    Args:
        connect: Return a new connection in autocommit mode. One connection holds the lock, and each file gets its own.
        folder: The folder of the files.

    Raises:
        MigrationError: The files do not match what was applied, another process migrates for too long, or a statement
            failed. In the last case its file is rolled back, and the files before it stay applied.
        psycopg.Error: The database cannot be reached.
    """
    with connect() as conn, _lock(conn):
        with connect() as other:
            if not _has_own_table(other):
                other.execute(
                    "CREATE TABLE IF NOT EXISTS migrations ("
                    " name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
                )
            todo = _pending(other, read(folder))
        for migration in todo:
            with connect() as other:
                _apply(other, migration)
    return [migration.name for migration in todo]


def pending(conn: Connection[Any], folder: Path) -> list[str]:
    """Return the names of the files that are not applied yet, in order.

    Raises:
        MigrationError: The files do not match what was applied.
    """
    return [migration.name for migration in _pending(conn, read(folder))]


def read(folder: Path) -> list[Migration]:
    """Return the files of a folder, in order.

    Raises:
        MigrationError: The folder or a file cannot be read, or a file is not a migration, or cannot be applied.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise MigrationError(f"{folder} cannot be read, {error.strerror}: it is the folder of the migrations") from None
    found = [_read(path) for path in paths]
    for one, two in pairwise(found):
        if one.name[:4] == two.name[:4]:
            raise MigrationError(f"{one.name} and {two.name} have the same number: give one of them another")
    return found


def _read(path: Path) -> Migration:
    if not NAME.fullmatch(path.name):
        raise MigrationError(f"{path.name} is not named like a migration, NNNN_what.sql: rename or remove it")
    try:
        sql = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise MigrationError(f"{path.name} cannot be read, {error.strerror}: have it be a readable file") from None
    except UnicodeDecodeError as error:
        raise MigrationError(f"{path.name} is not UTF-8 at byte {error.start}: convert it") from None
    if "\0" in sql:
        raise MigrationError(f"{path.name} contains a zero byte: remove it")
    if command := transaction_control(sql):
        raise MigrationError(
            f"{path.name} contains {command}: a file is one transaction already, or begins with"
            f" `{NO_TRANSACTION}`; remove that statement"
        )
    return Migration(path.name, sql)


def _pending(conn: Connection[Any], files: list[Migration]) -> list[Migration]:
    _has_own_table(conn)  # `check` comes here without `apply`
    [(exists,)] = conn.execute("SELECT to_regclass('migrations') IS NOT NULL")
    applied = dict(conn.execute("SELECT name, checksum FROM migrations").fetchall()) if exists else {}
    for file in files:
        if file.name in applied and applied[file.name] != file.checksum:
            raise MigrationError(
                f"{file.name} was edited after it was applied: restore it, and put the change into a new file"
            )
    names = {file.name for file in files}
    last_file, last_applied = max(names, default=""), max(applied, default="")
    todo = [file for file in files if file.name not in applied]
    for file in todo:
        if file.name[:4] <= last_applied[:4]:
            raise MigrationError(
                f"{file.name} does not come after {last_applied}, which was applied already: give it a higher number,"
                " or the name under which it was applied"
            )
    for name in sorted(applied.keys() - names):
        if name > last_file:
            # This release is blue, or one that was rolled back to. A newer release has applied a file that only adds.
            log.warning("the schema is newer than this release", extra={"migration": name})
        else:
            raise MigrationError(f"{name} was applied, and its file is gone: restore it")
    return todo


def _has_own_table(conn: Connection[Any]) -> bool:
    """Return whether the name `migrations` leads to a table of this role.

    Raises:
        MigrationError: It does not, because of the `search_path` of the role or the database, which a file may have
            set. With a second table, all files would be applied again.
    """
    [(found, schema, path)] = conn.execute(
        "SELECT bool_or(c.oid = to_regclass('migrations')), min(relnamespace::regnamespace::text), (SELECT setting FROM"
        " pg_settings WHERE name = 'search_path' AND source IN ('database', 'user', 'database user'))"
        " FROM pg_class c WHERE relname = 'migrations' AND relkind = 'r' AND relowner = current_user::regrole"
    )
    if schema and path and not found:
        raise MigrationError(
            f"the table migrations is in the schema {schema}, to which the search_path {path} does not lead: add it"
            f" there, or move the table with ALTER TABLE {schema}.migrations SET SCHEMA …"
        )
    return bool(found)


@contextmanager
def _lock(conn: Connection[Any]) -> Iterator[None]:
    """Hold the advisory lock, so that no other process migrates within the block.

    The lock belongs to a transaction, because a pooler keeps a transaction on one connection to the server. The
    transaction must not hold a snapshot, since `CREATE INDEX CONCURRENTLY` waits for all older snapshots. Therefore the
    lock is polled: a statement that waits for a lock holds a snapshot meanwhile.
    """
    conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # other levels keep the snapshot between statements
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    while True:
        with conn.transaction():
            if conn.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK]).fetchone() == (True,):
                # Without parameters it is sent by the simple query protocol, which also releases the last snapshot.
                conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0", prepare=False)
                lift_transaction_timeout(conn)
                yield
                return
        if time.monotonic() > deadline:
            raise MigrationError(
                f"another migration has been running for {LOCK_PATIENCE_SECONDS} s: wait for it to end"
            )
        time.sleep(0.2)


def _apply(conn: Connection[Any], migration: Migration) -> None:
    _has_own_table(conn)  # the file before may have changed the `search_path` of new sessions
    started = time.monotonic()
    log.info("applying", extra={"migration": migration.name})
    if migration.is_transaction:
        with _named_in_errors(migration, "nothing of it is left"):
            _apply_as_transaction(conn, migration)
    else:
        with _named_in_errors(migration, "it will run again from its start"):
            _apply_one_by_one(conn, migration)
    milliseconds = round((time.monotonic() - started) * 1_000, 3)
    log.info("applied", extra={"migration": migration.name, "duration_ms": milliseconds})


def _apply_as_transaction(conn: Connection[Any], migration: Migration) -> None:
    """Apply a file in one transaction, without changing the session.

    Behind a pooler the session outlives this connection, and another service may use it next.
    """
    with conn.transaction():
        # Otherwise the server would notice only at the end of a long statement that this process was killed.
        conn.execute("SET LOCAL client_connection_check_interval = '1s'")
        conn.execute("SET LOCAL statement_timeout = 0")
        lift_transaction_timeout(conn)
        conn.execute("SELECT set_config('lock_timeout', %s, true)", [f"{TABLE_LOCK_PATIENCE_SECONDS}s"])
        conn.execute("SELECT pg_advisory_xact_lock(%s)", [FILE_LOCK])
        [(before,)] = conn.execute("SELECT pg_current_xact_id()::text")
        conn.execute(migration.sql.encode())  # psycopg's types take constant strings or bytes
        is_same = conn.pgconn.transaction_status == TransactionStatus.INTRANS
        if not is_same or conn.execute("SELECT pg_current_xact_id()::text").fetchone() != (before,):
            raise MigrationError(f"{migration.name} ended its transaction: what it has done is not recorded")
        reset(conn)
        _refuse_invalid_indexes(conn, migration)
        _record(conn, migration)


def _apply_one_by_one(conn: Connection[Any], migration: Migration) -> None:
    if getattr(conn, "is_pooled", False):
        raise MigrationError(
            f"{migration.name} needs a session of its own, and there is a pooler before the server: run migrate once"
            " with a DATABASE_URL that leads to the server itself"
        )
    conn.execute("SET client_connection_check_interval = '1s'")
    conn.execute("SET statement_timeout = 0")
    lift_transaction_timeout(conn)
    conn.execute("SELECT set_config('lock_timeout', %s, false)", [f"{TABLE_LOCK_PATIENCE_SECONDS}s"])
    for statement in statements(migration.sql):
        conn.execute(statement.encode())
    reset(conn)
    _refuse_invalid_indexes(conn, migration)
    with conn.transaction():
        _record(conn, migration)


def _refuse_invalid_indexes(conn: Connection[Any], migration: Migration) -> None:
    if names := invalid_indexes(conn, migration.sql, of_tables=not migration.is_transaction):
        how = "" if migration.is_transaction else " CONCURRENTLY"
        raise MigrationError(
            f"{migration.name} left an index that is not valid, from an attempt that failed half-way:"
            f" {', '.join(names)}. Have the file begin with `DROP INDEX{how} IF EXISTS`, instead of `IF NOT EXISTS`"
        )


def _record(conn: Connection[Any], migration: Migration) -> None:
    conn.execute("INSERT INTO migrations (name, checksum) VALUES (%s, %s)", [migration.name, migration.checksum])


@contextmanager
def _named_in_errors(migration: Migration, outcome: str) -> Iterator[None]:
    """Add the name of the file, and the state in which it was left, to an error of PostgreSQL."""
    try:
        yield
    except psycopg.Error as error:
        raise MigrationError(f"{migration.name} failed, {outcome}: {error}") from error
