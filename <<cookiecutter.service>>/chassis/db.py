"""Factor IV: PostgreSQL, an attached resource that is known by its URL and nothing else."""

import atexit
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg
from flask import Flask, current_app, g
from gevent.monkey import is_module_patched
from psycopg import Connection
from psycopg_pool import ConnectionPool

from chassis import fast
from chassis.config import Config

T = TypeVar("T")
P = ParamSpec("P")

RECONNECT_SECONDS = 0.5
"""How long the pool repeats a failed attempt to connect before it gives that connection up. Short, since its pauses
double: with its default of 300 s a service stays down for most of a minute after the database is back. What it gave up
`_renew` asks for again. https://www.psycopg.org/psycopg3/docs/api/pool.html (`reconnect_timeout`)"""

WAITING_PER_CONNECTION = 100
"""Requests that may queue for each connection; more are refused at once. At up to 20 ms a statement the last one in
the queue still waits no longer than the 2 s of `DATABASE_TIMEOUT_SECONDS`."""

KEEPALIVE_SECONDS = 1
"""Silence after which the kernel asks a server whether it is there, and between the times that it asks again."""

COLLISIONS = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
"""PostgreSQL rolled a transaction back for the sake of another one: it may succeed if it is repeated."""

REPETITIONS = 3
"""How often `transaction` repeats one that collides. More would keep a connection from others for what fails again."""

REPETITION_SECONDS = 0.02
"""The longest pause before the first repetition; it doubles. By chance, so that two that collided do not meet again."""

RENEWAL_SECONDS = 0.5
"""How often idle connections are looked at, whether their time is over or the server has closed them, and lost ones are
asked for again: so also the longest that the service overlooks a database that is back."""


def register(app: Flask, settings: Config) -> None:
    """Give `app` its pool, closed: it must be opened in the process that uses it, since sockets do not survive a fork.

    https://www.psycopg.org/psycopg3/docs/advanced/pool.html
    """

    def configure(conn: Connection[Any]) -> None:
        # Not as `options` of the connection: RDS Proxy refuses those.
        conn.execute(
            "SELECT set_config('TimeZone', 'UTC', false), set_config('statement_timeout', %s, false)",
            [f"{settings.statement_timeout_seconds}s"],
        )

    app.extensions["pool"] = ConnectionPool(
        settings.database_url,
        name=settings.service,
        min_size=settings.database_pool_size,
        max_size=settings.database_pool_size,
        max_waiting=settings.database_pool_size * WAITING_PER_CONNECTION,
        timeout=settings.database_timeout_seconds,
        # Less what passes until an idle connection is looked at: none may be older than the configuration says.
        max_lifetime=settings.database_max_lifetime_seconds - RENEWAL_SECONDS,
        reconnect_timeout=RECONNECT_SECONDS,
        configure=configure,
        open=False,
        # Without gunicorn, as in tests, threads are threads and wait in psycopg's own way.
        connection_class=fast.GreenConnection if is_module_patched("select") else Connection,
        kwargs=connect_options(settings),
    )


def connect_options(settings: Config) -> dict[str, Any]:
    """How every connection is made, beside the URL. https://www.postgresql.org/docs/18/libpq-connect.html"""
    return {
        "application_name": f"{settings.service}/{settings.release}"[:63],
        # One statement is one transaction and costs one round trip; `with conn.transaction():` spans several.
        "autocommit": True,
        "connect_timeout": settings.database_timeout_seconds,
        # A server that answers but cannot write, such as a primary after a failover, is not the database.
        "target_session_attrs": "read-write",
        # Statements that the server remembers would tie a connection to one client of RDS Proxy or PgBouncer.
        "prepare_threshold": None,
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
    pool: ConnectionPool[Any] = app.extensions["pool"]
    pool.open(wait=False)
    threading.Thread(target=_renew, args=[pool], name="renewal", daemon=True).start()


def close_pool(app: Flask) -> None:
    """Disconnect `app`. Left undone, it delays the exit of the process by seconds."""
    app.extensions["pool"].close()


@contextmanager
def connection() -> Iterator[Connection[Any]]:
    """Lend a connection for one unit of work.

    Each statement is a transaction of its own, unless `conn.transaction()` spans several.

    Raises:
        psycopg.OperationalError: none can be had within `DATABASE_TIMEOUT_SECONDS`, or too many wait for one already.
    """
    pool = _pool(current_app)
    started = time.perf_counter()
    try:
        conn = pool.getconn()
        while not _is_alive(conn):
            # The server has closed it, so it will have closed the others too: replace them all, and wait for a new one.
            pool.putconn(conn)
            pool.drain()
            conn = pool.getconn()
    finally:
        g.db_pool_wait_ms = g.get("db_pool_wait_ms", 0) + (time.perf_counter() - started) * 1_000
    try:
        yield conn
    except psycopg.errors.ReadOnlySqlTransaction:
        pool.drain()  # it was the primary and is no longer; its name leads to another one by now, or will
        raise
    finally:
        if conn.broken:
            pool.drain()  # the others break too, even if they do not show it yet: who repeats a read shall get none
        pool.putconn(conn)


def read(query: Callable[Concatenate[Connection[Any], ...], T], *args: object) -> T:
    """`query(conn, *args)`, once more on a new connection if the first breaks meanwhile. For what may be repeated.

    Raises:
        psycopg.OperationalError: as `connection` does, or the second connection broke too.
    """
    with connection() as conn:
        try:
            return query(conn, *args)
        except psycopg.OperationalError:
            if not conn.broken:
                raise
    with connection() as conn:
        return query(conn, *args)


def _renew(pool: ConnectionPool[Any]) -> None:
    """Keep the pool full, and its connections young, without a request that asks for one."""
    size = pool.max_size
    while not pool.closed:
        stats = pool.get_stats()
        # The pool gives lost connections up, and connects again only for a request that may queue; and its queue, which
        # who gave up waiting leaves only when a connection comes, is full by then. So it never would.
        if stats["pool_size"] < size:
            pool.resize(stats["pool_size"], size)
            pool.resize(size, size)
        # It looks at the age of a connection only when one is returned: lend each to nobody.
        for _ in range(stats["pool_available"]):
            try:
                conn = pool.getconn(RENEWAL_SECONDS)
            except psycopg.OperationalError:
                break  # all are in use by now, or the pool was closed
            _is_alive(conn)  # one that is not will be replaced
            pool.putconn(conn)
        time.sleep(RENEWAL_SECONDS)


def _is_alive(conn: Connection[Any]) -> bool:
    """Whether the server has not hung up, as far as this end knows: two system calls, no round trip.

    The first call takes in what the server said before it closed the connection, the second one sees the close.
    """
    try:
        conn.pgconn.consume_input()
        conn.pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return True


def _pool(app: Flask) -> ConnectionPool[Connection[Any]]:
    """Return the pool. The first use opens it where no server did: in a Python shell, in `flask run`, in a debugger."""
    pool: ConnectionPool[Connection[Any]] = app.extensions["pool"]
    if pool._opened is False:  # noqa: SLF001
        open_pool(app)
        atexit.register(pool.close)
    return pool


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


def _run(work: Callable[Concatenate[Connection[Any], P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    with connection() as conn, conn.transaction():
        return work(conn, *args, **kwargs)
