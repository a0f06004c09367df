"""Factor IV: PostgreSQL, an attached resource that is known by its URL and nothing else."""

import atexit
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import psycopg
from flask import Flask, current_app, g
from gevent.monkey import is_module_patched
from psycopg import Connection
from psycopg.pq import TransactionStatus

from chassis import connections, fast, pool
from chassis.config import Config

T = TypeVar("T")
P = ParamSpec("P")

KEEPALIVE_SECONDS = 1
"""Silence after which the kernel asks a server whether it is there, and between the times that it asks again."""

SILENCE_SECONDS = 1
"""How much longer than a statement may take, `STATEMENT_TIMEOUT_SECONDS`, the server may be silent: time for its own
message that the statement took too long."""

START_UP = {"PGTZ": "UTC", "PGDATESTYLE": "ISO"}
"""What libpq sends as parameters when a connection starts, because psycopg relies on it. libpq takes them from the
environment only. A pooler knows them and gives them to each server connection that it lends.
https://www.postgresql.org/docs/18/libpq-envars.html https://www.pgbouncer.org/config.html (`track_extra_parameters`)"""

STALE_PLAN = (psycopg.errors.FeatureNotSupported, psycopg.errors.InvalidSqlStatementName)
"""SQLSTATE 0A000, "cached plan must not change result type", and 26000, a prepared statement that the server does not
know: the schema has changed since the statement was prepared, or a pooler has changed the server connection."""

COLLISIONS = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected, *STALE_PLAN)
"""PostgreSQL rolled a transaction back for the sake of another one, or of a new schema: it may succeed if repeated."""

REPETITIONS = 3
"""How often `transaction` repeats one that collides. More would keep a connection from others for what fails again."""

REPETITION_SECONDS = 0.02
"""The longest pause before the first repetition; it doubles. By chance, so that two that collided do not meet again."""


class Cursor(psycopg.Cursor[Any]):
    """A cursor that sends a statement once more, and plainly, if its prepared form can no longer be used.

    A statement that fails outside a transaction block leaves nothing behind, so it may be repeated. psycopg itself
    forgets a prepared statement that has failed.
    """

    def execute(self, query: Any, params: Any = None, *, prepare: bool | None = None, **options: Any) -> Self:
        """Send a statement."""
        try:
            return super().execute(query, params, prepare=prepare, **options)
        except STALE_PLAN:
            if self.connection.pgconn.transaction_status != TransactionStatus.IDLE:
                raise
            return super().execute(query, params, prepare=False, **options)


def register(app: Flask, settings: Config) -> None:
    """Give `app` its pool, closed: it must be opened in the process that uses it, since sockets do not survive a fork.

    https://www.psycopg.org/psycopg3/docs/advanced/pool.html
    """
    options: dict[str, Any] = {"cursor_factory": Cursor}
    app.extensions["database"] = options  # traces replace the cursors
    app.extensions["pool"] = pool.Pool(
        lambda: connect(settings, **options),
        _is_writable,
        size=settings.database_pool_size,
        timeout_seconds=settings.database_timeout_seconds,
        lifetime_seconds=settings.database_max_lifetime_seconds,
    )


def connect(settings: Config, **options: Any) -> connections.Connection[Any]:
    """Return a new connection, for the pool or for an admin command.

    Raises:
        psycopg.OperationalError: The database cannot be reached, or does not answer within `DATABASE_TIMEOUT_SECONDS`.
    """
    os.environ.update(START_UP)
    # Without gunicorn, as in tests, threads are threads and wait in psycopg's own way.
    kind: type[connections.Connection[Any]] = connections.Connection
    kind = fast.GreenConnection if is_module_patched("select") else kind
    conn = kind.connect(settings.database_url, **connect_options(settings), **options)
    try:
        with conn.limited_to(settings.database_timeout_seconds):
            _set_up(conn, settings)
    except BaseException:
        if not conn.is_silent:
            conn.close()
        raise
    conn.limit_seconds = settings.statement_timeout_seconds + SILENCE_SECONDS
    return conn


def connect_options(settings: Config) -> dict[str, Any]:
    """How every connection is made, beside the URL. https://www.postgresql.org/docs/18/libpq-connect.html"""
    return {
        "application_name": f"{settings.service}/{settings.release}"[:63],
        "client_encoding": "UTF8",
        # One statement is one transaction and costs one round trip; `with conn.transaction():` spans several.
        "autocommit": True,
        "connect_timeout": settings.database_timeout_seconds,
        # A server that answers but cannot write, such as a primary after a failover, is not the database.
        "target_session_attrs": "read-write",
        # A statement that is sent often is prepared: the server then parses and plans it once for each connection.
        "prepare_threshold": 5 if settings.database_prepare else None,
        # A network that swallows packets reports no error. The kernel gives up when the other one has not confirmed
        # a packet for as long as a new connection may take; one that works on a statement does confirm them.
        "tcp_user_timeout": settings.database_timeout_seconds * 1_000,
        "keepalives_idle": KEEPALIVE_SECONDS,
        "keepalives_interval": KEEPALIVE_SECONDS,
        "keepalives_count": settings.database_timeout_seconds
        // KEEPALIVE_SECONDS,  # where there is no tcp_user_timeout
    }


def open_pool(app: Flask) -> None:
    """Connect `app` to its database, in the background: a service must start even if its database is unreachable."""
    app.extensions["pool"].open()


def close_pool(app: Flask) -> None:
    """Disconnect `app`."""
    app.extensions["pool"].close()


@contextmanager
def connection() -> Iterator[Connection[Any]]:
    """Lend a connection for one unit of work.

    Each statement is a transaction, unless `with conn.transaction():` spans several.

    Raises:
        psycopg.OperationalError: No connection is available within `DATABASE_TIMEOUT_SECONDS`, or too many requests
            wait for one already.
    """
    shared = _pool(current_app)
    values: Any = g
    values = fast.behind(values)
    started = time.perf_counter()
    try:
        conn = shared.take()
    finally:
        values.db_pool_wait_ms = values.get("db_pool_wait_ms", 0) + (time.perf_counter() - started) * 1_000
    try:
        yield conn
    except psycopg.errors.ReadOnlySqlTransaction:
        shared.suspect_all()  # it was the primary and is no longer; its name leads to another one by now, or will
        raise
    finally:
        shared.give_back(conn)


def read(query: Callable[Concatenate[Connection[Any], P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return `query(conn, *args, **kwargs)`, for what may be repeated.

    It is called once more, on another connection, if the first one breaks meanwhile; but not if the server is silent,
    since that has taken its time.

    Raises:
        psycopg.OperationalError: As `connection` does, or the second connection broke too.
    """
    with connection() as conn:
        try:
            return query(conn, *args, **kwargs)
        except STALE_PLAN:
            return query(conn, *args, **kwargs)  # it was inside a transaction block, which has ended
        except connections.ServerSilentError:
            raise
        except psycopg.OperationalError:
            if not conn.broken:
                raise
    with connection() as conn:
        return query(conn, *args, **kwargs)


def transaction(work: Callable[Concatenate[Connection[Any], P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return `work(conn, *args, **kwargs)`, run in one transaction, which is repeated if it collides with another one.

    `work` must do nothing but ask the database: what else it did would be done again. At PostgreSQL's default isolation
    only deadlocks are collisions; for `SERIALIZABLE` `work` begins with `SET TRANSACTION ISOLATION LEVEL SERIALIZABLE`.

    Raises:
        psycopg.OperationalError: As `connection` does, or it collided `REPETITIONS` times more.
    """
    for repetition in range(REPETITIONS):
        try:
            return _run(work, *args, **kwargs)
        except COLLISIONS:
            time.sleep(random.uniform(0, REPETITION_SECONDS * 2**repetition))  # noqa: S311 - chance, not cryptography
    return _run(work, *args, **kwargs)


def find_unfit(conn: connections.Connection[Any], settings: Config) -> str | None:
    """Return why the server cannot be relied upon, and what to do, or `None`. `admin check` and `migrate` ask."""
    [(encoding, interval_style, limit_ms, role)] = conn.execute(
        "SELECT getdatabaseencoding(), current_setting('IntervalStyle'),"
        " (SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'), current_user"
    )
    if encoding != "UTF8":
        return f"the database's encoding is {encoding}: create it anew, with ENCODING 'UTF8'"
    if conn.is_pooled and not 0 < limit_ms <= settings.statement_timeout_seconds * 1_000:
        return (
            "there is a pooler before the server, so the role must limit its statements:"
            f" ALTER ROLE {role} SET statement_timeout = '{settings.statement_timeout_seconds}s',"
            " and reconnect the pooler"
        )
    if interval_style != "postgres":
        return (
            f"there is a pooler before the server: ALTER ROLE {role} SET IntervalStyle = 'postgres', and reconnect it"
        )
    return None


def _run(work: Callable[Concatenate[Connection[Any], P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    with connection() as conn, conn.transaction():
        return work(conn, *args, **kwargs)


def _set_up(conn: connections.Connection[Any], settings: Config) -> None:
    """Set what a session needs, or find out that it is no session.

    A pooler lends the server's connections for a transaction each. What is set there stays for whoever comes next, and
    is not there for our own next transaction; the same holds for prepared statements. A pooler shows by the process
    number of the server, which it invents. Not as `options` of the connection: RDS Proxy refuses those.
    """
    statement = """
        SELECT pg_backend_pid() <> %(pid)s, CASE WHEN pg_backend_pid() = %(pid)s THEN (
            set_config('statement_timeout', %(limit)s, false), set_config('IntervalStyle', 'postgres', false)
        ) END IS NULL
    """
    limit = f"{settings.statement_timeout_seconds}s"
    [(conn.is_pooled, _)] = conn.execute(statement, {"pid": conn.info.backend_pid, "limit": limit}, prepare=False)
    if conn.is_pooled:
        conn.prepare_threshold = None


def _is_writable(conn: connections.Connection[Any]) -> bool:
    """Ask the server whether it answers, and is still the one that takes writes."""
    return conn.execute("SHOW transaction_read_only", prepare=False).fetchone() == ("off",)


def _pool(app: Flask) -> pool.Pool:
    """Return the pool. The first use opens it where no server did: in a Python shell, in `flask run`, in a debugger."""
    found: pool.Pool = app.extensions["pool"]
    if not found.is_open:
        open_pool(app)
        atexit.register(found.close)
    return found
