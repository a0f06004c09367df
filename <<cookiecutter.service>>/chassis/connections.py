"""A database connection on which every wait has a timeout, which this process enforces and not the server."""

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
"""Timeout of the attempt to cancel the statement of a connection that is given up, before it is closed."""


class NoConnectionError(psycopg.OperationalError):
    """No connection is available in time."""


class ServerSilentError(psycopg.OperationalError):
    """The server did not respond within the limit. Whether the statement took effect is not known."""


class Connection(psycopg.Connection[Row]):
    """A connection of psycopg with a timeout for every wait."""

    limit_seconds: float | None = 60
    """Time without a response after which the connection is given up. `None`: no limit, see `admin.Watched`."""

    is_pooled = False
    """Whether there is a pooler such as PgBouncer between this process and the server."""

    is_silent = False
    """Whether it was given up: the server did not respond, or the request was ended in the middle of a statement."""

    # State that the pool keeps here. `due` and `lent_at` are in seconds of `time.monotonic`.
    due = math.inf
    lent_at = 0.0
    waits_before = 0
    is_suspect = False
    is_retired = False

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Run a generator of psycopg on this connection and return its result. psycopg calls this for every wait.

        Raises:
            ServerSilentError: The server did not answer within `limit_seconds`, now or earlier.
        """
        if self.is_silent:
            raise ServerSilentError("the connection was given up, since the server did not answer")
        try:
            return self.await_server(gen, interval, self.limit_seconds if timeout is None else timeout)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001 - psycopg raises no public exception here
            if timeout is not None:
                raise
            self.give_up()
            raise ServerSilentError(f"the server did not answer within {self.limit_seconds} s") from None

    def await_server(self, gen: PQGen[T], interval: float, seconds: float | None) -> T:
        """Run a generator for `seconds` at most and return its result. `fast.py` overrides this method."""
        return super().wait(gen, interval, seconds)

    @contextmanager
    def limited_to(self, seconds: float) -> Iterator[None]:
        """Set `limit_seconds` to `seconds` within the block."""
        before, self.limit_seconds = self.limit_seconds, seconds
        try:
            yield
        finally:
            self.limit_seconds = before

    def give_up(self) -> None:
        """Cancel the running statement and close the connection, in the background: nobody waits for that."""
        if not self.is_silent:
            self.is_silent = True
            threading.Thread(target=self._cancel_and_close, name="cancel", daemon=True).start()

    def has_hung_up(self) -> bool:
        """Return whether the server is known to have closed the connection. This costs no round trip.

        The first call reads what the server sent before it closed the connection, the second one sees the close.
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
