"""What exists only to be fast. Without this module, and the lines that call it, the service behaves in the same way.

Each part replaces a part of a library for a measured gain. `chassis/tests/test_fast.py` fails if a new version of the
library makes the replacement ineffective.
"""

import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from typing import Any, TypeVar

import gevent
import psycopg
from flask import Flask, Request
from flask.sessions import NullSession, SessionInterface
from psycopg.abc import PQGen
from psycopg.rows import Row
from psycopg.waiting import Ready, Wait

from chassis import connections

T = TypeVar("T")

EVENTS = {Wait.R: 1, Wait.W: 2, Wait.RW: 3}
"""Event masks of gevent's loop for the wait states of psycopg; 1 is readable, 2 is writable."""

READY = {Wait.R: Ready.R, Wait.W: Ready.W, Wait.RW: Ready.RW}
"""What psycopg is told after an event. If only one of two is ready, psycopg still tries both without blocking."""


class NoSessions(SessionInterface):
    """No cookie sessions: Flask would read and write one for each request, and nothing uses them."""

    nothing = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:  # noqa: ARG002
        """Return the session of every request."""
        return self.nothing


class GreenConnection(connections.Connection[Row]):
    """A connection that waits in gevent's event loop.

    gevent patches `select`. psycopg would then create an emulated `poll` for each statement, a fifth of its CPU time.
    https://github.com/psycopg/psycopg/blob/master/psycopg/psycopg/waiting.py (`wait_poll`)
    """

    def await_server(self, gen: PQGen[T], interval: float, seconds: float | None) -> T:  # noqa: ARG002 - nothing to look for in between
        """Run a generator of psycopg on this connection, for `seconds` at most, and return its result."""
        hub = gevent.get_hub()
        try:
            wanted = next(gen)
            with gevent.Timeout(seconds, psycopg.errors._WaitTimeout()):  # noqa: SLF001 - as psycopg's own `wait` raises
                while True:
                    watcher = hub.loop.io(self.pgconn.socket, EVENTS[wanted])
                    try:
                        hub.wait(watcher)
                    finally:
                        watcher.close()
                    wanted = gen.send(READY[wanted])
        except StopIteration as done:
            result: T = done.value
            return result


def speed_up(app: Flask) -> None:
    """Leave out what Flask does for each request and this service never needs."""
    app.session_interface = NoSessions()
    app.ensure_sync = _unchanged  # type: ignore[method-assign] # Flask would look whether each view is a coroutine


def speed_up_server() -> None:
    """Replace what gunicorn does at a higher cost than needed."""
    from gunicorn import util  # noqa: PLC0415 - not before the configuration was checked, see web.py
    from gunicorn.http import wsgi  # noqa: PLC0415

    class JoinedResponse(wsgi.Response):
        """A response whose head leaves together with the first piece of its body, by one system call."""

        sock: Any

        def write(self, arg: bytes) -> None:
            """Send a piece of the body, and before the first one the head."""
            if self.headers_sent:
                super().write(arg)
                return
            sock = self.sock
            pieces = self.sock = _Pieces()
            try:
                super().write(arg)
            finally:
                self.sock = sock
            data = b"".join(pieces)
            # The kernel nearly always takes all; gevent's `sendall` would ask it first, by one more call, how much.
            sent = sock.send(data)
            if sent < len(data):
                sock.sendall(memoryview(data)[sent:])

    wsgi.Response = JoinedResponse
    util.http_date = _http_date


class _Pieces(list[bytes]):
    """In the place of a socket: keeps what would be sent."""

    sendall = list.append


def _unchanged(func: Callable[..., Any]) -> Callable[..., Any]:
    return func


@lru_cache(1)
def _date(second: int) -> str:
    """Return the `Date` of all responses within one second; gunicorn would format it for each of them."""
    return formatdate(second, usegmt=True)


def _http_date(timestamp: float | None = None) -> str:
    return _date(int(time.time() if timestamp is None else timestamp))
