"""Factor IV: PostgreSQL, an attached resource that the service knows only by its URL."""

import atexit
import os
import random
import re
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
"""Idle time after which the kernel sends a TCP keepalive probe, and the interval between two probes."""

SILENCE_SECONDS = 1
"""Added to `STATEMENT_TIMEOUT_SECONDS` before a connection without a response is given up, so that the server's own
error, that the statement took too long, arrives first."""

START_UP = {"PGTZ": "UTC", "PGDATESTYLE": "ISO"}
"""Startup parameters of a connection on which psycopg relies. libpq takes them from the environment only. A pooler
tracks them and sets them on each server connection that it lends.
https://www.postgresql.org/docs/18/libpq-envars.html https://www.pgbouncer.org/config.html (`track_extra_parameters`)"""

RELIED_UPON = {
    "IntervalStyle": ("postgres", "postgres"),
    "DateStyle": ("ISO", "ISO, .*"),
    "TimeZone": ("UTC", "(Etc/)?UTC"),
    "client_encoding": ("UTF8", "UTF8"),
}
"""Settings on which the service relies: the value, and a pattern of all values that will do. A pooler need not pass on
what a connection asks for."""

STALE_PLAN = (psycopg.errors.FeatureNotSupported, psycopg.errors.InvalidSqlStatementName)
"""SQLSTATE 0A000, "cached plan must not change result type", and 26000, a prepared statement that the server does not
know: the schema has changed since the statement was prepared, or a pooler has changed the server connection."""

COLLISIONS = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected, *STALE_PLAN)
"""Errors after which the same transaction may succeed: it conflicted with another one, or with a new schema."""

REPETITIONS = 3
"""How often `transaction` repeats a collided one. More would occupy connections for work that probably fails again."""

REPETITION_SECONDS = 0.02
"""Longest pause before the first repetition; it doubles. It is random, so that transactions do not collide again."""


class Cursor(psycopg.Cursor[Any]):
    """A cursor that sends a statement once more, unprepared, if its prepared form can no longer be used.

    A statement that fails outside a transaction block has no effect, so it may be repeated. psycopg itself removes a
    prepared statement that has failed from its cache.
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
    """Create the pool of `app`, still closed. Open it after the fork, since processes must not share its connections.

    https://www.psycopg.org/psycopg3/docs/advanced/pool.html
    """
    options: dict[str, Any] = {"cursor_factory": Cursor}
    app.extensions["database"] = options  # `traces.register` replaces the cursor class
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
    # Without gunicorn, as in many tests, gevent patches nothing, and psycopg waits in its own way.
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
    """Return libpq's parameters beside those of the URL. https://www.postgresql.org/docs/18/libpq-connect.html"""
    return {
        "application_name": f"{settings.service}/{settings.release}"[:63],
        "client_encoding": "UTF8",
        # One statement is one transaction and costs one round trip; `with conn.transaction():` spans several.
        "autocommit": True,
        "connect_timeout": settings.database_timeout_seconds,
        # Refuse a server that accepts connections but no writes, such as the old primary after a failover.
        "target_session_attrs": "read-write",
        # A statement that is sent often is prepared: the server then parses and plans it once for each connection.
        "prepare_threshold": 5 if settings.database_prepare else None,
        # A network that drops packets reports no error. The kernel closes a connection whose packets the server has
        # not acknowledged for this time. A server that is busy with a statement still acknowledges them.
        "tcp_user_timeout": settings.database_timeout_seconds * 1_000,
        "keepalives_idle": KEEPALIVE_SECONDS,
        "keepalives_interval": KEEPALIVE_SECONDS,
        # For systems without `tcp_user_timeout`.
        "keepalives_count": settings.database_timeout_seconds // KEEPALIVE_SECONDS,
    }


def open_pool(app: Flask) -> None:
    """Open the pool of `app`. It connects in the background, since a service must start even without its database."""
    app.extensions["pool"].open()


def close_pool(app: Flask) -> None:
    """Close the pool of `app`."""
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
        shared.suspect_all()  # the server is no longer the primary, and its name leads to another one now or soon
        raise
    finally:
        shared.give_back(conn)


def read(query: Callable[Concatenate[Connection[Any], P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return `query(conn, *args, **kwargs)`. `query` must be safe to repeat: it only reads.

    It is called once more, on another connection, if the first connection breaks. It is not called again if the server
    does not respond, since the request has waited long enough by then.

    Raises:
        psycopg.OperationalError: As `connection` does, or the second connection broke too.
    """
    with connection() as conn:
        try:
            return query(conn, *args, **kwargs)
        except STALE_PLAN:
            return query(conn, *args, **kwargs)  # it failed inside a transaction block, which has ended
        except connections.ServerSilentError:
            raise
        except psycopg.OperationalError:
            if not conn.broken:
                raise
    with connection() as conn:
        return query(conn, *args, **kwargs)


def transaction(work: Callable[Concatenate[Connection[Any], P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return `work(conn, *args, **kwargs)`, run in one transaction, which is repeated if it collides with another one.

    `work` must only use the database, since any other effect would be repeated too. At PostgreSQL's default isolation
    level two transactions collide only in a deadlock. For `SERIALIZABLE`, `work` must begin with the statement
    `SET TRANSACTION ISOLATION LEVEL SERIALIZABLE`.

    Raises:
        psycopg.OperationalError: As `connection` does, or all `REPETITIONS` collided too.
    """
    for repetition in range(REPETITIONS):
        try:
            return _run(work, *args, **kwargs)
        except COLLISIONS:
            time.sleep(random.uniform(0, REPETITION_SECONDS * 2**repetition))  # noqa: S311 - chance, not cryptography
    return _run(work, *args, **kwargs)


def find_unfit(conn: connections.Connection[Any], settings: Config) -> str | None:
    """Return why the server is not fit for the service, and what to do, or `None`. For `admin check` and `migrate`."""
    [(encoding, limit_ms, role)] = conn.execute(
        "SELECT getdatabaseencoding(),"
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
    for name, (value, pattern) in RELIED_UPON.items():
        [(setting,)] = conn.execute("SELECT current_setting(%s)", [name])
        if not re.fullmatch(pattern, setting):
            return (
                f"there is a pooler before the server, and {name} is {setting}:"
                f" ALTER ROLE {role} SET {name} = '{value}', and reconnect the pooler"
            )
    return None


def _run(work: Callable[Concatenate[Connection[Any], P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    with connection() as conn, conn.transaction():
        return work(conn, *args, **kwargs)


def _set_up(conn: connections.Connection[Any], settings: Config) -> None:
    """Set the parameters of the session, unless a pooler is in between: set `conn.is_pooled` then.

    A pooler lends a server connection for one transaction. What is set there would stay for the next client, and be
    missing in our own next transaction; the same holds for prepared statements. A pooler is recognised by the backend
    process ID that it reports, which is not the server's. RDS Proxy refuses parameters that are sent as `options`, and
    would lend a server connection for the whole session because of a statement that names `set_config`.
    https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-proxy-pinning.html

    A transaction that is idle for longer than a request may take belongs to a process that the server cannot reach any
    more. Its locks would block others until TCP notices, for two hours by default.
    """
    [(pid,)] = conn.execute("SELECT pg_backend_pid()", prepare=False)
    conn.is_pooled = pid != conn.info.backend_pid
    if conn.is_pooled:
        conn.prepare_threshold = None
        return
    statement = """
        SELECT set_config('statement_timeout', %s, false), set_config('idle_in_transaction_session_timeout', %s, false),
            set_config('IntervalStyle', 'postgres', false)
    """
    limits = [f"{settings.statement_timeout_seconds}s", f"{settings.shutdown_seconds}s"]
    conn.execute(statement, limits, prepare=False)


def _is_writable(conn: connections.Connection[Any]) -> bool:
    """Return whether the server accepts writes: it may have been demoted since the connection was made."""
    return conn.execute("SHOW transaction_read_only", prepare=False).fetchone() == ("off",)


def _pool(app: Flask) -> pool.Pool:
    """Return the pool. Open it if gunicorn has not: in a Python shell, in `flask run`, in a debugger."""
    found: pool.Pool = app.extensions["pool"]
    if not found.is_open:
        open_pool(app)
        atexit.register(found.close)
    return found
