"""A database connection on which every wait ends: the limit is kept on this side of the network."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import Row

T = TypeVar("T")

CANCEL_SECONDS = 1
"""How long a connection that is given up tries to cancel its statement, in the background, before it is closed."""


class NoConnectionError(psycopg.OperationalError):
    """No connection can be had in time."""


class ServerSilentError(psycopg.OperationalError):
    """The server has not answered within the limit. What became of the statement is not known."""


class Connection(psycopg.Connection[Row]):
    """A connection on which no wait is without a limit."""

    limit_seconds: float | None = 60
    """How long the server may be silent. Then the connection is given up. `None`: somebody else watches."""

    is_pooled = False
    """Whether there is a pooler such as PgBouncer between this process and the server."""

    is_silent = False
    """Whether it has been given up because the server did not answer."""

    # For the pool, in seconds of `time.monotonic`.
    due = math.inf
    lent_at = 0.0
    waits_before = 0
    is_suspect = False
    is_retired = False

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Run a generator of psycopg on this connection and return its result. psycopg calls it for every wait.

        Raises:
            ServerSilentError: The server did not answer within `limit_seconds`, now or earlier.
        """
        if self.is_silent:
            raise ServerSilentError("the connection was given up, since the server did not answer")
        try:
            return self.await_server(gen, interval, self.limit_seconds if timeout is None else timeout)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001 - the only sign of it
            if timeout is not None:
                raise
            self.give_up()
            raise ServerSilentError(f"the server did not answer within {self.limit_seconds} s") from None

    def await_server(self, gen: PQGen[T], interval: float, seconds: float | None) -> T:
        """Run a generator for `seconds` at most. What is faster may replace this method, see `fast.py`."""
        return super().wait(gen, interval, seconds)

    @contextmanager
    def limited_to(self, seconds: float) -> Iterator[None]:
        """Within the block, give the server `seconds` for each answer."""
        before, self.limit_seconds = self.limit_seconds, seconds
        try:
            yield
        finally:
            self.limit_seconds = before

    def give_up(self) -> None:
        """Cancel what the server still does, and close the connection, in the background: neither may take long."""
        if not self.is_silent:
            self.is_silent = True
            threading.Thread(target=self._cancel_and_close, name="cancel", daemon=True).start()

    def has_hung_up(self) -> bool:
        """Return whether the server has closed the connection, as far as this end knows: no round trip.

        The first system call takes in what the server said before it closed the connection, the second one sees the
        close.
        """
        try:
            self.pgconn.consume_input()
            self.pgconn.consume_input()
        except psycopg.OperationalError:
            return True
        return False

    def _cancel_and_close(self) -> None:
        with suppress(psycopg.Error, OSError):
            self.cancel_safe(timeout=CANCEL_SECONDS)
        self.close()
