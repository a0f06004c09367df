"""Lending database connections to requests: the part of the pool that every request uses.

A request takes a connection and gives it back. If none is idle, the request waits in a queue, first in, first out. A
request that cannot be served in time, at the pace at which connections were returned recently, is refused at once.

The module uses `threading`, which is the standard library's or, in the web process, gevent's. No code waits while it
holds the lock. With gevent, therefore, the lock is always free when a green thread wants it, and no green thread can be
killed while it holds it.
"""

import resource
import threading
import time
from collections import deque
from typing import Any

from psycopg.pq import TransactionStatus

from chassis.connections import Connection, NoConnectionError

PACE_OF = 64
"""Number of latest loans whose mean duration, divided by the number of connections, is the pace of the queue."""

NO_PACE_YET = [0.0] * 16
"""Durations that stand for the loans before the first ones whose duration counts. A few slow loans, as when the machine
stands still for a moment, are no pace yet: with 64 clients, five of a third of a second would have others refused."""


def _waits() -> int:
    """Return the number of voluntary context switches of this process: how often it has waited. getrusage(2).

    If the process did not wait once while a connection was lent, then the processor was the bottleneck, and not the
    database. Then `give_back` forgets the durations: to refuse a request takes as much processor time as to serve it,
    so refusals would make all loans longer, and cause more refusals: 3 of 4 requests, with 512 clients on one worker.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


class _Waiter:
    """A request that waits for a connection."""

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.conn: Connection[Any] | None = None


class Lender:
    """Connections that are lent to one request at a time. `Pool` extends it: it makes the connections."""

    def __init__(self, *, size: int, timeout_seconds: float) -> None:
        """Create a lender that has no connections yet.

        Args:
            size: The number of connections while the database is reachable.
            timeout_seconds: The longest time that `take` may wait.
        """
        self.size = size
        self.timeout_seconds = timeout_seconds
        self._is_closed = False
        self._lock = threading.Lock()
        self._members: set[Connection[Any]] = set()  # all connections that are not retired: idle, lent, or being tested
        self._idle: list[Connection[Any]] = []  # a stack: what was used last is still in caches, at both ends
        self._suspects: list[Connection[Any]] = []  # to be tested by the thread of `Pool`
        self._waiters: deque[_Waiter] = deque()
        self._loans: deque[float] = deque(NO_PACE_YET, maxlen=PACE_OF)
        self._lent_seconds = 0.0  # the sum of `_loans`
        self._woken = threading.Event()  # wakes the thread of `Pool`

    def close(self) -> None:
        """Close the connections that are not lent. The others are closed when they are returned."""
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
        """Return a connection that is lent to nobody else until `give_back`.

        Raises:
            NoConnectionError: No connection is available within `timeout_seconds`, or so many requests wait already
                that none will be.
        """
        deadline = time.monotonic() + self.timeout_seconds
        while True:
            conn = self._take(deadline)
            if not conn.has_hung_up():
                return conn
            self.give_back(conn)

    def give_back(self, conn: Connection[Any]) -> None:
        """Take back a connection that `take` has lent, in whatever state it is."""
        status = conn.pgconn.transaction_status
        is_intact = status == TransactionStatus.IDLE and not conn.is_silent
        with self._lock:
            if is_intact and _waits() == conn.waits_before:
                self._loans = deque(NO_PACE_YET, maxlen=PACE_OF)  # the processor was the bottleneck, see `_waits`
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
            conn.give_up()  # the request was ended in the middle of a statement
        elif not conn.is_silent:
            conn.close()
        if not is_intact and status not in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
            self.suspect_all()
        self._woken.set()

    def suspect_all(self) -> None:
        """Have every connection tested before it is lent again, because one of them has failed."""
        with self._lock:
            for conn in self._members:
                conn.is_suspect = True
            idle, self._idle = self._idle, []
            for conn in idle:
                self._put(conn)
        self._woken.set()

    def connections(self) -> list[Connection[Any]]:
        """Return all connections, whether they are lent or not."""
        with self._lock:
            return list(self._members)

    @property
    def idle(self) -> int:
        """The number of connections that can be lent at once."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a connection."""
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
        except BaseException:  # the request was ended while it waited
            if not self._withdraw(waiter) and waiter.conn:
                self.give_back(waiter.conn)
            raise
        if waiter.conn is None and self._withdraw(waiter):
            raise NoConnectionError(f"no connection became available within {self.timeout_seconds} s")
        if waiter.conn is None:
            raise NoConnectionError("the pool is closed")
        return waiter.conn

    def _withdraw(self, waiter: _Waiter) -> bool:
        """Remove a request from the queue. Return whether it was still in it."""
        with self._lock:
            try:
                self._waiters.remove(waiter)
            except ValueError:
                return False
            return True

    def _put(self, conn: Connection[Any]) -> None:
        """Lend an intact connection to the first request of the queue, or keep it idle. The caller holds the lock.

        A suspect is kept for the thread of `Pool`, which tests it first.
        """
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
