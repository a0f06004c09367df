"""What exists only to be fast. Without this module, and the lines that call it, the service behaves in the same way.

Each part replaces a part of a library for a measured gain. `chassis/tests/test_fast.py` fails if a new version of the
library makes the replacement ineffective.
"""

import ipaddress
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, TypeVar

import gevent
import psycopg
from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface
from psycopg.abc import PQGen
from psycopg.rows import Row
from psycopg.waiting import Ready, Wait

from chassis import connections

T = TypeVar("T")

EVENTS = {Wait.R: 1, Wait.W: 2, Wait.RW: 3}
"""Event masks of gevent's loop for the wait states of psycopg; 1 is readable, 2 is writable."""

WITHOUT_BODY = {204, 304}
"""Statuses whose responses have no body, whatever the application says. So have those below 200, which nobody sends."""

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
        # A timer of the loop itself: `gevent.Timeout` does the same, at three times the cost.
        limit = None if seconds is None else hub.loop.timer(seconds)
        try:
            wanted = next(gen)
            if limit:
                limit.start(gevent.getcurrent().throw, psycopg.errors._WaitTimeout)  # noqa: SLF001 - as psycopg's own `wait` raises
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
        finally:
            if limit:
                limit.close()


def behind(proxy: Any) -> Any:
    """Return the object behind a proxy of Flask's. Each access through the proxy would look for it again.

    https://werkzeug.palletsprojects.com/en/stable/local/
    """
    return proxy._get_current_object()  # noqa: SLF001 - documented, in spite of its name


def speed_up(app: Flask) -> None:
    """Leave out what Flask does for each request and this service never needs."""
    app.session_interface = NoSessions()
    app.ensure_sync = _unchanged  # type: ignore[method-assign] # Flask would look whether each view is a coroutine
    Response.__call__ = _send  # type: ignore[assignment,method-assign] # Werkzeug would copy the headers, and look at each of them


def speed_up_server() -> None:
    """Replace what gunicorn does at a higher cost than needed."""
    from gunicorn import util  # noqa: PLC0415 - not before the configuration was checked, see web.py
    from gunicorn.http import message, wsgi  # noqa: PLC0415

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
    # What gunicorn makes anew for each request, and what is always the same.
    wsgi.WSGIErrorsWrapper = lru_cache(1)(wsgi.WSGIErrorsWrapper)
    message.ipaddress = SimpleNamespace(ip_address=lru_cache(1_024)(ipaddress.ip_address))


class _Pieces(list[bytes]):
    """In the place of a socket: keeps what would be sent."""

    sendall = list.append


_send_as_werkzeug = Response.__call__


def _send(self: Response, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Send a response that is complete as it is: bytes of known length, and no header that must be completed."""
    body, headers = self.response, self.headers
    location = headers.get("Location", "")
    if (
        type(body) is list
        and len(body) == 1
        and type(body[0]) is bytes
        and location.isascii()
        and "Content-Length" in headers
        and "Content-Location" not in headers
        and environ["REQUEST_METHOD"] != "HEAD"
        and self.status_code not in WITHOUT_BODY
        and not (self._on_close or self.autocorrect_location_header)
    ):
        start_response(self.status, headers.to_wsgi_list())
        return body
    return _send_as_werkzeug(self, environ, start_response)


def _unchanged(func: Callable[..., Any]) -> Callable[..., Any]:
    return func


@lru_cache(1)
def _date(second: int) -> str:
    """Return the `Date` of all responses within one second; gunicorn would format it for each of them."""
    return formatdate(second, usegmt=True)


def _http_date(timestamp: float | None = None) -> str:
    return _date(int(time.time() if timestamp is None else timestamp))
