"""Factor IV: a pool of database connections for one process, in which every wait has a timeout.

- A connection is lent to one request at a time. `lending.py` does this, and has the queue of the waiting requests.
- An old connection is replaced by a new one that is already connected. As long as no new one can be made, the old one
  stays in use: a failure of DNS has no effect while the existing connections work.
- Every wait for the server has a timeout in this process. The timeouts of TCP are not enough: the kernel of a frozen
  server or proxy still acknowledges packets.
- When one connection breaks, or its server does not respond, all others become suspects: each is tested with a query
  before it is lent again.

psycopg_pool is not used: it closes an old connection before it has a new one, has no timeout for the setup of a new
connection, and limits its queue by count. https://www.psycopg.org/psycopg3/docs/advanced/pool.html
"""

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg

from chassis.connections import Connection
from chassis.lending import Lender

RETRY_SECONDS = 0.5
"""Interval between two attempts to connect while the database is unreachable, so the longest time until the service
uses it again once it is back. An attempt does not wait for the end of the one before, whose packets may be lost."""

MAX_MORE_ATTEMPTS = 30
"""Greatest number of attempts to connect that may be in progress at the same time while the database is unreachable,
beyond one for each connection. Up to it, there are as many as begin before the first one times out."""

LOOK_SECONDS = 0.25
"""Interval between two checks of the connections: has the server closed an idle one, is one too old?"""

log = logging.getLogger(__name__)


class Pool(Lender):
    """A pool of `size` connections, and one more while a new connection replaces an old one."""

    def __init__(
        self,
        connect: Callable[[], Connection[Any]],
        is_usable: Callable[[Connection[Any]], bool],
        *,
        size: int,
        timeout_seconds: float,
        lifetime_seconds: float,
    ) -> None:
        """Create a pool that is still closed.

        Args:
            connect: Return a new connection, or raise `psycopg.Error`.
            is_usable: Send a query over a suspect, and return whether it can be used.
            size: The number of connections to keep.
            timeout_seconds: The longest time that `take` may wait.
            lifetime_seconds: The age at which a connection is replaced at the latest, if a new one can be made.
        """
        super().__init__(size=size, timeout_seconds=timeout_seconds)
        self._connect, self._is_usable = connect, is_usable
        self._lifetime_seconds = lifetime_seconds
        self.is_open = False
        self._attempts = 0
        self._most_attempts = size + min(math.ceil(timeout_seconds / RETRY_SECONDS), MAX_MORE_ATTEMPTS)
        self._attempted_at = -math.inf
        self._is_failing = False

    def open(self) -> None:
        """Start the thread that connects in the background and keeps the pool full."""
        self.is_open = True
        threading.Thread(target=self._keep, name="pool", daemon=True).start()

    def _test(self, conn: Connection[Any]) -> None:
        """Send a query over a suspect. Keep the connection if the response is right, and close it otherwise."""
        conn.is_suspect = False  # before the query, so that a failure of another connection from now on counts
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
        """Keep the pool full and replace old connections, in a thread of its own, until the pool is closed."""
        while not self._is_closed:
            with self._lock:  # so that no request takes one of these connections meanwhile
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
        """Return how many attempts to connect have to begin now, and count them as begun."""
        now = time.monotonic()
        with self._lock:
            lacking = self.size - len(self._members)
            is_time = now - self._attempted_at >= RETRY_SECONDS
            count = 0
            if lacking > 0 and not self._is_failing:
                count = max(lacking - self._attempts, 0)
            if lacking > 0 and not count and is_time and self._attempts < self._most_attempts:
                count = 1  # the attempts before this one failed, or hang
            if lacking <= 0 and not self._attempts and self._oldest().due <= now and (is_time or not self._is_failing):
                count = 1
            if count:
                self._attempts += count
                self._attempted_at = now
            return count

    def _attempt(self) -> None:
        """Make a connection that is missing, or one that replaces the oldest."""
        try:
            conn = self._connect()
        except Exception as error:  # noqa: BLE001 - after any error another attempt follows
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
        # Well before the end of the lifetime, since it takes time to make a new connection; and at random, so that the
        # connections of this process, and of the others, are not all replaced at the same time.
        conn.due = now + self._lifetime_seconds * random.uniform(0.5, 0.75)  # noqa: S311 - chance, not cryptography
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
        """Add a new connection; if the pool is full, it replaces the oldest. The caller holds the lock.

        Returns:
            The connection that the caller has to close, or `None`.
        """
        if self._is_closed:
            return conn
        old = self._oldest() if len(self._members) >= self.size else None
        if old and old.due > now:
            return conn  # several attempts succeeded at the same time
        self._members.add(conn)
        self._put(conn)
        if old:
            self._members.remove(old)
            if old in self._idle:
                self._idle.remove(old)
                return old
            old.is_retired = True  # it is lent, or being tested, and is closed after that
        return None

    def _oldest(self) -> Connection[Any]:
        return min(self._members, key=lambda conn: conn.due)
