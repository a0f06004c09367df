"""gunicorn's gevent worker, with what it lacks: a quick stop, a limit on time, and errors as problem details.

Green threads, because with a thread or a process per connection a hundred clients that send half a request each keep
everybody else out.
"""

import json
import logging
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.glogging import Logger
from gunicorn.http import errors as refusals
from gunicorn.http import wsgi
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.workers.ggevent import GeventWorker
from werkzeug.exceptions import RequestTimeout

from service import edge, lifecycle

STATUSES: dict[type[Exception], int] = {
    refusals.LimitRequestLine: 414,
    refusals.LimitRequestHeaders: 431,
    refusals.UnsupportedTransferCoding: 501,
    refusals.ExpectationFailed: 417,
    refusals.ForbiddenProxyRequest: 403,
}
"""What is answered to requests that gunicorn cannot parse, where it is not 400. As gunicorn does itself."""

MAX_HEAD_BYTES = 65_536
"""All header fields together. gunicorn multiplies its limits, and would hold 800 KB for each client that never ends.
https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html (64 KB)"""

LINGER_SECONDS = 2
"""How long the rest of a refused request is thrown away. https://nginx.org/en/docs/http/ngx_http_core_module.html
(`lingering_timeout`)"""

MAX_REST_BYTES = 65_536
"""How much of a body that the application has left unread is read, so that its connection can be used again. gunicorn
itself would read on, in pieces of 1 KiB: 200 MB that the application had refused kept a worker from everybody else for
10 s."""

TURN_REQUESTS = 4
"""How many requests are answered before others have their turn: a client that asks again at once is answered at once,
and nobody else would be. With 16 clients the slowest answers of `/livez` took 200 ms so."""

SPARE_FILES = 64
"""Open files of a worker beside its connections: listener, log, heartbeat, the event loop's, modules."""

log = logging.getLogger(__name__)


def allow_files(connections: int) -> None:
    """Let this process and its children have `connections` open, as far as the platform lets them.

    Many platforms begin with 1024 files, and a worker at its limit reaches neither its clients nor its database.
    """
    needed = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != soft < needed:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (needed if hard == resource.RLIM_INFINITY else min(needed, hard), hard)
        )


class ServerLog(Logger):
    """gunicorn's own words, passed on to the service's log; its access log is the canonical line's business."""

    def setup(self, cfg: Any) -> None:
        """Have no handlers, levels or formats of its own."""
        self.cfg = cfg
        self.error_log.propagate = True

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Nothing: see `logs.py`."""


class ShortRequest(Request):
    """A request whose head is bounded as a whole."""

    max_buffer_headers = property(lambda _self: MAX_HEAD_BYTES, lambda _self, _product: None)


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
        # The kernel nearly always takes all; gevent's `sendall` would ask it beforehand, by one more call, how much.
        sent = sock.send(data)
        if sent < len(data):
            sock.sendall(memoryview(data)[sent:])


class _Pieces(list[bytes]):
    """In the place of a socket: keeps what would be sent."""

    sendall = list.append


@lru_cache(1)
def date(second: int) -> str:
    """The `Date` of all answers of one second of the clock: gunicorn would write it anew for each of them."""
    return formatdate(second, usegmt=True)


RequestParser.mesg_class = ShortRequest
wsgi.Response = JoinedResponse
util.http_date = lambda: date(int(time.time()))


class Worker(GeventWorker):
    """Serves each connection in a green thread of its own, `WEB_THREADS` at once."""

    def run(self) -> None:
        """Serve until told to stop; then finish what is in flight, within `SHUTDOWN_SECONDS`, and wait for nobody."""
        self.idle: dict[Any, gevent.Timeout] = {}
        connections = Pool(self.worker_connections)
        servers = [StreamServer(sock, handle=partial(self.handle, sock), spawn=connections) for sock in self.sockets]
        for server in servers:
            server.max_accept = 1  # else one worker takes all that comes at once, and the others have nothing to do
            server.start()
        # SIGTERM may reach the whole process group at once (a terminal, systemd); only the arbiter says when to stop.
        while self.alive or lifecycle.is_draining():
            self.notify()
            gevent.sleep(0.1)

        for server in servers:
            server.close()
        stopped = time.monotonic()
        # After a drain nobody is about to send more. Without one (SIGHUP, SIGTTOU) clients still are: each is told to
        # close by its next answer, and has as long for that as a drain takes.
        patience_seconds = 0 if lifecycle.is_leaving() else lifecycle.drain_seconds()
        while connections and time.monotonic() - stopped < self.cfg.graceful_timeout:
            if time.monotonic() - stopped >= patience_seconds:
                for greenlet, limit in list(self.idle.items()):
                    greenlet.kill(limit, block=False)
            self.notify()
            connections.join(timeout=0.1)
        if connections:
            log.warning("requests were cut off", extra={"requests": len(connections)})
            connections.kill(timeout=1)

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """The time in which a client may send the head of a request, `keepalive`; noted, so that a stop can end it."""
        with gevent.Timeout(self.cfg.keepalive, False) as limit:  # type: ignore[arg-type] # False: end silently
            greenlet = gevent.getcurrent()
            self.idle[greenlet] = limit
            try:
                yield
            finally:
                del self.idle[greenlet]

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Answer one request. What takes longer than a stop grants it, such as a body that trickles in, is a 408."""
        closing = False
        try:
            with gevent.Timeout(self.cfg.graceful_timeout, RequestTimeout("The request took too long.")):
                super().handle_request(listener_name, req, sock, addr)
        except StopIteration:
            closing = True
        if not is_read(req):
            linger(sock)
            closing = True
        if closing:
            raise StopIteration
        if self.nr % TURN_REQUESTS == 0:
            gevent.sleep(0)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002
        """Answer what never reached the application, and close the connection."""
        request_id = os.urandom(16).hex()
        if isinstance(exc, refusals.ParseException):
            status = HTTPStatus(STATUSES.get(type(exc), 400))
            log.warning(
                "malformed request",
                extra={"request_id": request_id, "network.peer.address": addr[0], "detail": str(exc)},
            )
        else:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            log.error("request failed outside the application", extra={"request_id": request_id}, exc_info=exc)
        problem = {"type": "about:blank", "title": status.phrase, "status": status, "request_id": request_id}
        body = json.dumps(problem)
        headers = "".join(f"{name}: {value}\r\n" for name, value in edge.HEADERS)
        client.sendall(
            f"HTTP/1.1 {status} {status.phrase}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\n{headers}\r\n{body}".encode()
        )
        linger(client)


def is_read(req: Any) -> bool:
    """Whether all of a request has come, after a little of what the application has left unread; else it never may."""
    if getattr(req.body.reader, "length", None) == 0:  # gunicorn counts down what is still to come
        return True
    with gevent.Timeout(LINGER_SECONDS, False), suppress(refusals.ParseException, OSError):  # type: ignore[arg-type] # False: end silently
        return not req.body.failed and len(req.body.read(MAX_REST_BYTES)) < MAX_REST_BYTES
    return False


def linger(client: Any) -> None:
    """Throw away what a client still sends: closing would reset the connection, and the answer might never be seen."""
    with gevent.Timeout(LINGER_SECONDS, False), suppress(OSError):  # type: ignore[arg-type] # False: end silently
        client.shutdown(socket.SHUT_WR)
        while client.recv(65_536):
            gevent.sleep(0)  # a client that sends without a pause would never let others have their turn
