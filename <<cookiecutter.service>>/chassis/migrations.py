"""The database's schema, as plain SQL files `NNNN_what.sql` that are applied once each, in the order of their names.

A file is one transaction in a session of its own: all of it is applied, or nothing. Where PostgreSQL forbids that, as
for `CREATE INDEX CONCURRENTLY`, its first line is `-- no transaction`; then its statements run one by one, and must be
such that they can run again.

Blue and green serve at the same time, so a file may only add what the release before it can ignore (expand); what
nobody uses any more is removed a release later (contract). https://martinfowler.com/bliki/ParallelChange.html
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

NO_TRANSACTION = "-- no transaction"

NAME = re.compile(r"[0-9]{4}_[A-Za-z0-9_-]+\.sql")

LOCK = 0x6D_69_67_72_61_74_65
"""The advisory lock that all migrators of a database share: "migrate" in ASCII."""

FILE_LOCK = LOCK + 1
"""The advisory lock of the file that is being applied. A migrator that was killed keeps it until the server notices."""

LOCK_PATIENCE_SECONDS = 600
"""How long to wait for another migrator."""

TABLE_LOCK_PATIENCE_SECONDS = 10
"""How long a statement may wait for a table that others use, since all who come later queue up behind it."""

ENDS_TRANSACTION = re.compile(
    r"(BEGIN|START\s+TRANSACTION|COMMIT|END|ABORT|ROLLBACK|PREPARE\s+TRANSACTION)\b(?!\s+(WORK\s+|TRANSACTION\s+)?TO\b)",
    re.IGNORECASE,
)

log = logging.getLogger(__name__)


class MigrationError(Exception):
    """The schema cannot be brought up to date; the text says why and what to do."""


@dataclass(frozen=True)
class Migration:
    """A file of the folder."""

    name: str
    sql: str
    """Its text, with `\\n` at the end of each line, and without a byte order mark."""

    @property
    def checksum(self) -> str:
        """Return what is noted of its text. How its lines end is the editor's business, or git's."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def is_transaction(self) -> bool:
        """Return whether it is applied as one transaction."""
        return not self.sql.startswith(NO_TRANSACTION)


def apply(connect: Callable[[], Connection[Any]], folder: Path) -> list[str]:
    """Apply what is pending, and return what that was. Safe to run many times, also at once.

    Args:
        connect: Make a connection in autocommit: one is for the lock, and each file has one of its own.
        folder: Where the files are.

    Raises:
        MigrationError: The files do not fit what was applied, another migrator takes too long, or a statement failed;
            nothing of its file is left then, and the files before it stay applied.
        psycopg.Error: The database cannot be had.
    """
    with connect() as conn, _lock(conn):
        with connect() as other:
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
        MigrationError: The files do not fit what was applied.
    """
    return [migration.name for migration in _pending(conn, read(folder))]


def read(folder: Path) -> list[Migration]:
    """Return the files of a folder, in order.

    Raises:
        MigrationError: There is a file that cannot be applied, or that is none of ours.
    """
    found = [_read(path) for path in sorted(folder.iterdir())]
    for one, two in pairwise(found):
        if one.name[:4] == two.name[:4]:
            raise MigrationError(f"{one.name} and {two.name} have the same number: give one of them another")
    return found


def statements(sql: str) -> list[str]:
    """Return the statements of a text, each without its semicolon.

    A semicolon in a text, a name, a comment, parentheses, or the body of a function does not end a statement.
    https://www.postgresql.org/docs/18/sql-syntax-lexical.html
    """
    found, begin, depth, blocks, words = [], 0, 0, 0, []
    for token in _TOKENS.finditer(sql):
        text = token[0].upper()
        if token.lastgroup == "word":
            words.append(text)
            # The body of a function in SQL: BEGIN ATOMIC … END, and CASE … END within it. As psql counts.
            if words[0] == "CREATE" and (blocks or words[-2:] == ["BEGIN", "ATOMIC"]):
                blocks += {"ATOMIC": 1, "CASE": 1, "END": -1}.get(text, 0)
        elif text in "([":
            depth += 1
        elif text in ")]":
            depth -= 1
        elif text == ";" and depth <= 0 and blocks <= 0:
            found.append(sql[begin : token.start()])
            begin, depth, blocks, words = token.end(), 0, 0, []
    return [text for text in (*found, sql[begin:]) if _bare(text)]


_COMMENT = r"(?:--[^\n]*|/\*(?:[^/*]|\*(?!/)|/(?!\*)|/\*.*?\*/)*\*/)"
"""A comment; one of the second kind may contain others, here one level of them."""

_TOKENS = re.compile(
    _COMMENT
    + r"""
    | [eE]'(?:[^'\\]|\\.|'')*'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | (?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?P=tag)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<mark>[()\[\];])
    """,
    re.VERBOSE | re.DOTALL,
)


def _bare(sql: str) -> str:
    """Return a statement without the comments before it."""
    return re.sub(rf"\A(\s|{_COMMENT})*", "", sql, flags=re.DOTALL)


def _read(path: Path) -> Migration:
    if not (NAME.fullmatch(path.name) and path.is_file()):
        raise MigrationError(f"{path.name} is not named like a migration, NNNN_what.sql: rename or remove it")
    try:
        sql = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise MigrationError(f"{path.name} is not UTF-8 at byte {error.start}: convert it") from None
    if "\0" in sql:
        raise MigrationError(f"{path.name} contains a zero byte: remove it")
    for statement in statements(sql):
        if found := ENDS_TRANSACTION.match(_bare(statement)):
            raise MigrationError(
                f"{path.name} contains {found[1].upper()}: a file is one transaction already, or begins with"
                f" `{NO_TRANSACTION}`; remove that statement"
            )
    return Migration(path.name, sql)


def _pending(conn: Connection[Any], files: list[Migration]) -> list[Migration]:
    [(exists,)] = conn.execute("SELECT to_regclass('migrations') IS NOT NULL")
    applied = dict(conn.execute("SELECT name, checksum FROM migrations").fetchall()) if exists else {}
    for file in files:
        if file.name in applied and applied[file.name] != file.checksum:
            raise MigrationError(
                f"{file.name} was edited after it was applied: restore it, and put the change into a new file"
            )
    names = {file.name for file in files}
    last_file, last_applied = max(names, default=""), max((name for name in applied if name in names), default="")
    for name in sorted(applied.keys() - names):
        if name > last_file:
            # Blue, or a release that was rolled back to: what comes later is another release's, and only adds.
            log.warning("the schema is newer than this release", extra={"migration": name})
        else:
            raise MigrationError(f"{name} was applied, and its file is gone: restore it")
    todo = [file for file in files if file.name not in applied]
    for file in todo:
        if file.name < last_applied:
            raise MigrationError(
                f"{file.name} comes before {last_applied}, which was applied already: give it a higher number"
            )
    return todo


@contextmanager
def _lock(conn: Connection[Any]) -> Iterator[None]:
    """Be the only migrator.

    The lock belongs to a transaction, which a pooler keeps on one connection of the server, and which has no snapshot
    that `CREATE INDEX CONCURRENTLY` would wait for. It is polled, since waiting inside a statement would be such.
    """
    conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # else it would keep its snapshot
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    while True:
        with conn.transaction():
            if conn.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK]).fetchone() == (True,):
                # Sent without parameters, so by another protocol, it also ends the snapshot of the statement before.
                conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0", prepare=False)
                yield
                return
        if time.monotonic() > deadline:
            raise MigrationError(
                f"another migration has been running for {LOCK_PATIENCE_SECONDS} s: wait for it to end"
            )
        time.sleep(0.2)


def _apply(conn: Connection[Any], migration: Migration) -> None:
    started = time.monotonic()
    log.info("applying", extra={"migration": migration.name})
    if migration.is_transaction:
        with _blamed_on(migration, "nothing of it is left"):
            _apply_as_transaction(conn, migration)
    else:
        with _blamed_on(migration, "it will run again from its start"):
            _apply_one_by_one(conn, migration)
    milliseconds = round((time.monotonic() - started) * 1_000, 3)
    log.info("applied", extra={"migration": migration.name, "duration_ms": milliseconds})


def _apply_as_transaction(conn: Connection[Any], migration: Migration) -> None:
    """Apply a file, in a transaction that leaves nothing behind but what the file says.

    Behind a pooler the session goes on, and the next one in it may be another service.
    """
    with conn.transaction():
        # Without the first one the server notices only at the end of a long statement that its migrator was killed.
        conn.execute("SET LOCAL client_connection_check_interval = '1s'")
        conn.execute("SET LOCAL statement_timeout = 0")
        conn.execute("SELECT set_config('lock_timeout', %s, true)", [f"{TABLE_LOCK_PATIENCE_SECONDS}s"])
        conn.execute("SELECT pg_advisory_xact_lock(%s)", [FILE_LOCK])
        [(before,)] = conn.execute("SELECT pg_current_xact_id()::text")
        conn.execute(migration.sql.encode())  # bytes, since only constant strings pass for SQL; our files are as good
        is_same = conn.pgconn.transaction_status == TransactionStatus.INTRANS
        if not is_same or conn.execute("SELECT pg_current_xact_id()::text").fetchone() != (before,):
            raise MigrationError(f"{migration.name} ended its transaction: what it has done is not recorded")
        _reset(conn)
        _record(conn, migration)


def _apply_one_by_one(conn: Connection[Any], migration: Migration) -> None:
    if getattr(conn, "is_pooled", False):
        raise MigrationError(
            f"{migration.name} needs a session of its own, and there is a pooler before the server: run migrate once"
            " with a DATABASE_URL that leads to the server itself"
        )
    conn.execute("SET client_connection_check_interval = '1s'")
    conn.execute("SET statement_timeout = 0")
    conn.execute("SELECT set_config('lock_timeout', %s, false)", [f"{TABLE_LOCK_PATIENCE_SECONDS}s"])
    for statement in statements(migration.sql):
        conn.execute(statement.encode())
    _reset(conn)
    invalid = conn.execute(
        "SELECT i.relname FROM pg_index JOIN pg_class i ON i.oid = indexrelid JOIN pg_class t ON t.oid = indrelid"
        " WHERE NOT indisvalid AND i.relkind = 'i' AND (position(i.relname in %(sql)s) > 0"
        " OR position(t.relname in %(sql)s) > 0)"
        " AND indexrelid NOT IN (SELECT index_relid FROM pg_stat_progress_create_index) ORDER BY 1",
        {"sql": migration.sql},
    ).fetchall()
    if invalid:
        names = ", ".join(name for (name,) in invalid)
        raise MigrationError(
            f"{migration.name} left an index that is not valid, from an attempt that failed half-way: {names}. Have the"
            " file begin with `DROP INDEX CONCURRENTLY IF EXISTS`, instead of `IF NOT EXISTS`"
        )
    with conn.transaction():
        _record(conn, migration)


def _reset(conn: Connection[Any]) -> None:
    """Undo what a file has set, such as `search_path`: our own table must be found, and nothing may leak."""
    conn.execute("RESET SESSION AUTHORIZATION")
    conn.execute("RESET ROLE")
    conn.execute("RESET ALL")


def _record(conn: Connection[Any], migration: Migration) -> None:
    conn.execute("INSERT INTO migrations (name, checksum) VALUES (%s, %s)", [migration.name, migration.checksum])


@contextmanager
def _blamed_on(migration: Migration, outcome: str) -> Iterator[None]:
    """Say which file failed: PostgreSQL says only why."""
    try:
        yield
    except psycopg.Error as error:
        raise MigrationError(f"{migration.name} failed, {outcome}: {error}") from error
