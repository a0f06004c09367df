"""Factor IV: a pool of database connections for one process, in which every wait ends.

- A connection is lent to one request at a time, and handed to the one that has waited longest.
- An old connection is replaced by one that is already up, and kept as long as no replacement can be made: a name server
  that is away costs nothing while the connections work.
- No wait for the server is without a limit. The limit is kept on this side, because a frozen server or proxy keeps
  confirming packets, so that the kernel notices nothing.
- When one connection breaks or falls silent, the others become suspects: each must answer before it is lent again.
- A request that cannot be served in time, at the pace at which connections were returned lately, is refused at once.

Everything here uses `threading`, which is the standard library's or, in the web process, gevent's. Nothing under the
lock waits, so that with gevent nobody ever waits for the lock, and no request can be ended while it does.
psycopg_pool closes an old connection before it has a new one, prepares new connections without a limit on time, and
limits its queue by count. https://www.psycopg.org/psycopg3/docs/advanced/pool.html
"""

import logging
import math
import random
import resource
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from chassis.connections import Connection, NoConnectionError

RETRY_SECONDS = 0.5
"""Time between two attempts to connect while the database is away, and so what the service needs at most to find it
again. The attempts do not wait for each other: packets of an older one may have been lost."""

MORE_ATTEMPTS = 4
"""Attempts to connect that may be in progress at once while the database is away, beyond one for each connection."""

LOOK_SECONDS = 0.25
"""How often idle connections are looked at: whether the server has closed them, whether they are too old."""


PACE_OF = 64
"""The loans whose mean duration says how fast the queue moves."""

log = logging.getLogger(__name__)


def _waits() -> int:
    """Return how often this process has waited for anything, as the kernel counts it. getrusage(2), `ru_nvcsw`.

    If it has not waited once while a connection was lent, then the time was its own: it had more requests than it could
    work on. That is no reason to refuse some: an answer that refuses takes as long to write as one that does not, and
    then all connections are lent for longer, so that more are refused. With 512 clients and one worker, 3 of 4 were.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


class _Waiter:
    """A request that waits for a connection."""

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.conn: Connection[Any] | None = None


class Pool:
    """Up to `size` connections, and one more for the moment in which a new one takes the place of an old one."""

    def __init__(
        self,
        connect: Callable[[], Connection[Any]],
        is_usable: Callable[[Connection[Any]], bool],
        *,
        size: int,
        timeout_seconds: float,
        lifetime_seconds: float,
    ) -> None:
        """Make a pool that is still closed.

        Args:
            connect: Make a connection, or raise `psycopg.Error`.
            is_usable: Ask the server, over a connection that is under suspicion, whether it can be used.
            size: How many connections to keep.
            timeout_seconds: How long `take` may wait.
            lifetime_seconds: The age by which a connection is replaced, if a new one can be made.
        """
        self.size = size
        self.timeout_seconds = timeout_seconds
        self._connect, self._is_usable = connect, is_usable
        self._lifetime_seconds = lifetime_seconds
        self.is_open = False
        self._is_closed = False
        self._lock = threading.Lock()
        self._members: set[Connection[Any]] = set()  # all that are up and not retired: idle, lent, or being tested
        self._idle: list[Connection[Any]] = []  # the last one returned is lent first: it is warm at both ends
        self._suspects: list[Connection[Any]] = []  # to be tested by threads, which are not started under the lock
        self._waiters: deque[_Waiter] = deque()
        self._loans: deque[float] = deque([0.0], maxlen=PACE_OF)
        self._lent_seconds = 0.0  # the sum of `_loans`
        self._attempts = 0
        self._attempted_at = -math.inf
        self._is_failing = False
        self._woken = threading.Event()

    def open(self) -> None:
        """Connect, in the background, and stay connected."""
        self.is_open = True
        threading.Thread(target=self._keep, name="pool", daemon=True).start()

    def close(self) -> None:
        """Close the connections that nobody uses; the others are closed when they are returned."""
        with self._lock:
            self._is_closed = True
            idle, self._idle, self._suspects = self._idle + self._suspects, [], []
            waiters, self._waiters = list(self._waiters), deque()
        self._woken.set()
        for waiter in waiters:
            waiter.woken.set()
        for conn in idle:
            conn.close()

    def take(self) -> Connection[Any]:
        """Return a connection that nobody else uses until `give_back`.

        Raises:
            NoConnectionError: None is available within `timeout_seconds`, or at the present pace none would be.
        """
        deadline = time.monotonic() + self.timeout_seconds
        while True:
            conn = self._take(deadline)
            if not conn.has_hung_up():
                return conn
            self.give_back(conn)

    def give_back(self, conn: Connection[Any]) -> None:
        """Return a connection that `take` has lent, in whatever state it is."""
        status = conn.pgconn.transaction_status
        is_intact = status == TransactionStatus.IDLE and not conn.is_silent
        with self._lock:
            if is_intact and _waits() == conn.waits_before:
                self._loans = deque([0.0], maxlen=PACE_OF)
                self._lent_seconds = 0.0
            elif is_intact:
                self._lent_seconds -= self._loans[0] if len(self._loans) == PACE_OF else 0
                self._loans.append(time.monotonic() - conn.lent_at)
                self._lent_seconds += self._loans[-1]
            if is_intact and not (self._is_closed or conn.is_retired):
                self._put(conn)
                return
            self._members.discard(conn)
        if status == TransactionStatus.ACTIVE:
            conn.give_up()  # its request was ended in the middle of a statement
        elif not conn.is_silent:
            conn.close()
        if not is_intact and status not in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
            self.suspect_all()
        self._woken.set()

    def suspect_all(self) -> None:
        """Lend no connection that has not answered first: something has happened to one of them."""
        with self._lock:
            for conn in self._members:
                conn.is_suspect = True
            idle, self._idle = self._idle, []
            for conn in idle:
                self._put(conn)
        self._woken.set()

    def connections(self) -> list[Connection[Any]]:
        """Return the connections that are up."""
        with self._lock:
            return list(self._members)

    @property
    def idle(self) -> int:
        """How many connections could be lent at once."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many requests wait for a connection."""
        return len(self._waiters)

    def _take(self, deadline: float) -> Connection[Any]:
        with self._lock:
            if self._is_closed:
                raise NoConnectionError("the pool is closed")
            if self._idle:
                conn = self._idle.pop()
                conn.lent_at, conn.waits_before = time.monotonic(), _waits()
                return conn
            wait_seconds = deadline - time.monotonic()
            queued = len(self._waiters)
            pace_seconds = self._lent_seconds / len(self._loans) / (len(self._members) or self.size)
            if (queued + 1) * pace_seconds > wait_seconds:
                raise NoConnectionError(f"{queued} requests wait for a connection: too many for {wait_seconds:.1f} s")
            waiter = _Waiter()
            self._waiters.append(waiter)
        try:
            waiter.woken.wait(wait_seconds)
        except BaseException:  # its request was ended
            if not self._withdraw(waiter) and waiter.conn:
                self.give_back(waiter.conn)
            raise
        if waiter.conn is None and self._withdraw(waiter):
            raise NoConnectionError(f"no connection became available within {self.timeout_seconds} s")
        if waiter.conn is None:
            raise NoConnectionError("the pool is closed")
        return waiter.conn

    def _withdraw(self, waiter: _Waiter) -> bool:
        """Take a request out of the queue; return whether it was still in it."""
        with self._lock:
            try:
                self._waiters.remove(waiter)
            except ValueError:
                return False
            return True

    def _put(self, conn: Connection[Any]) -> None:
        """Hand an intact connection to who has waited longest, or keep it; test it first if it is a suspect. Locked."""
        if conn.is_suspect:
            self._suspects.append(conn)
            self._woken.set()
        elif self._waiters:
            waiter = self._waiters.popleft()
            conn.lent_at, conn.waits_before = time.monotonic(), _waits()
            waiter.conn = conn
            waiter.woken.set()
        else:
            self._idle.append(conn)

    def _test(self, conn: Connection[Any]) -> None:
        """Ask the server over a connection that is a suspect, and keep it if the answer is right."""
        conn.is_suspect = False  # before the question: what happens from now on counts
        is_usable = False
        with suppress(psycopg.Error), conn.limited_to(self.timeout_seconds):
            is_usable = self._is_usable(conn)
        with self._lock:
            if is_usable and not (self._is_closed or conn.is_retired):
                self._put(conn)
                return
            self._members.discard(conn)
        if not conn.is_silent:
            conn.close()
        self._woken.set()

    def _keep(self) -> None:
        """Keep the pool full, and its connections young, without a request that asks for one."""
        while not self._is_closed:
            with self._lock:  # only who has taken a connection out of the pool may touch it
                is_lost = any(conn.has_hung_up() for conn in self._idle)
            if is_lost:
                self.suspect_all()
            with self._lock:
                suspects, self._suspects = self._suspects, []
            for conn in suspects:
                threading.Thread(target=self._test, args=[conn], name="test", daemon=True).start()
            for _ in range(self._count_attempts()):
                threading.Thread(target=self._attempt, name="connect", daemon=True).start()
            self._woken.wait(LOOK_SECONDS)
            self._woken.clear()

    def _count_attempts(self) -> int:
        """Return how many attempts to connect are to be begun now, and count them as begun."""
        now = time.monotonic()
        with self._lock:
            lacking = self.size - len(self._members)
            is_time = now - self._attempted_at >= RETRY_SECONDS
            count = 0
            if lacking > 0 and not self._is_failing:
                count = max(lacking - self._attempts, 0)
            if lacking > 0 and not count and is_time and self._attempts < self.size + MORE_ATTEMPTS:
                count = 1  # all others fail, or hang
            if lacking <= 0 and not self._attempts and self._oldest().due <= now and (is_time or not self._is_failing):
                count = 1
            if count:
                self._attempts += count
                self._attempted_at = now
            return count

    def _attempt(self) -> None:
        """Make a connection that is lacking, or one that takes the place of the oldest."""
        try:
            conn = self._connect()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt follows
            with self._lock:
                self._attempts -= 1
                was_failing, self._is_failing = self._is_failing, True
                lacking = self.size - len(self._members)
            if not (was_failing or self._is_closed):
                extra = {"exception.type": type(error).__qualname__, "exception.message": str(error)}
                log.warning(
                    "no connection to the database can be made", extra={"connections.lacking": lacking, **extra}
                )
            return
        now = time.monotonic()
        # Early, since a new connection takes its time; and not all at once, here and in the other processes.
        conn.due = now + self._lifetime_seconds * random.uniform(0.5, 0.75)  # noqa: S311
        with self._lock:
            self._attempts -= 1
            was_failing, self._is_failing = self._is_failing, False
            superfluous = self._admit(conn, now)
        if superfluous:
            superfluous.close()
        if was_failing and not self._is_closed:
            log.info("connections to the database can be made again")
        self._woken.set()

    def _admit(self, conn: Connection[Any], now: float) -> Connection[Any] | None:
        """Keep a new connection, in the place of the oldest if there are enough; return the one to close. Locked."""
        if self._is_closed:
            return conn
        old = self._oldest() if len(self._members) >= self.size else None
        if old and old.due > now:
            return conn  # several attempts have succeeded at once
        self._members.add(conn)
        self._put(conn)
        if old:
            self._members.remove(old)
            if old in self._idle:
                self._idle.remove(old)
                return old
            old.is_retired = True  # it is lent, or being tested: closed after that
        return None

    def _oldest(self) -> Connection[Any]:
        return min(self._members, key=lambda conn: conn.due)
