"""gunicorn's gevent worker, with what it lacks: a prompt stop, a request timeout, and errors as problem details.

It uses green threads, because with a thread or a process per connection a hundred clients that send half a request
each keep all others from being served.
"""

import fcntl
import json
import logging
import os
import signal
import socket
import sys
import termios
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from typing import Any

import gevent
from gevent.pool import Pool
from gunicorn.http import errors as refusals
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.ggevent import GeventWorker
from werkzeug.exceptions import RequestTimeout, ServiceUnavailable

from chassis import balance, edge, errors, lifecycle

log = logging.getLogger(__name__)

STATUSES: dict[type[Exception], int] = {
    refusals.LimitRequestLine: 414,
    refusals.LimitRequestHeaders: 431,
    refusals.UnsupportedTransferCoding: 501,
    refusals.ExpectationFailed: 417,
    refusals.ForbiddenProxyRequest: 403,
}
"""Status of the response to a request that gunicorn cannot parse, by exception; 400 for all others. As in gunicorn."""


MAX_HEAD_BYTES = 65_536
"""All header fields together. gunicorn multiplies its limits, and would hold 800 KB for each client that never ends.
https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html (64 KB)"""


LINGER_SECONDS = 2
"""How long the rest of a refused request is thrown away. https://nginx.org/en/docs/http/ngx_http_core_module.html
(`lingering_timeout`)"""


MAX_REST_BYTES = 65_536
"""Maximum number of bytes of an unread request body that the worker discards in order to reuse the connection. gunicorn
itself reads to the end, in pieces of 1 KiB: a refused body of 200 MB blocked a worker for 10 s."""


TURN_REQUESTS = 4
"""Number of requests after which a worker yields to its other green threads. Otherwise a client that sends requests
without a pause starves the others: with 16 clients the slowest responses of `/livez` took 200 ms."""


class ShortRequest(Request):
    """A request whose head is bounded as a whole."""

    max_buffer_headers = property(lambda _self: MAX_HEAD_BYTES, lambda _self, _product: None)


RequestParser.mesg_class = ShortRequest


class Worker(GeventWorker):
    """Serves each connection in a green thread of its own, `WEB_THREADS` at once."""

    slot: int | None
    """Its place in what the workers know of each other, see `balance.py`."""

    beats_ahead = 0
    """For how many heartbeats it has had far more connections than another worker, see `balance.py`."""

    is_ending = False
    """Whether it exits in any case, and only has to close what it has opened."""

    def run(self) -> None:
        """Serve until gunicorn stops this worker, then finish requests in flight within `SHUTDOWN_SECONDS`."""
        self.clients: dict[Any, Any] = {}
        self.idle: dict[Any, gevent.Timeout] = {}
        loop = gevent.get_hub().loop
        connections = Pool(self.worker_connections)
        servers = [
            balance.Listener(sock, handle=partial(self.handle, sock), spawn=connections, slot=self.slot)
            for sock in self.sockets
        ]
        for server in servers:
            server.start()
        # SIGTERM may reach the whole process group at once (a terminal, systemd); only the arbiter says when to stop.
        while self.alive or lifecycle.is_draining():
            self.notify()
            balance.watch(self)
            gevent.sleep(0.1)

        for server in servers:
            server.close()
        stopped = time.monotonic()
        # After a drain, idle connections can be closed at once. Without one (SIGHUP, SIGTTOU) clients may still send a
        # request: they get `Connection: close` in its response, and have DRAIN_SECONDS for that.
        patience_seconds = 0 if lifecycle.is_leaving() else lifecycle.drain_seconds()
        while connections and time.monotonic() - stopped < self.cfg.graceful_timeout:
            if time.monotonic() - stopped >= patience_seconds:
                loop.run_callback(self.end_idle)
            self.notify()
            connections.join(timeout=0.1)
        if connections:
            log.warning("requests were cut off", extra={"requests": len(connections)})
            connections.kill(ServiceUnavailable("The service is stopping."), timeout=1)
        self.is_ending = True

    def handle_quit(self, sig: int, frame: Any) -> None:  # noqa: ARG002
        """Stop at once. Ctrl-C reaches the worker and the arbiter, whose SIGQUIT must not interrupt the exit."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGQUIT})  # holds until the process has ended
        gevent.spawn(self.quit)  # not in the signal handler, which may have interrupted anything

    def quit(self) -> None:
        """Exit, unless `run` has returned: an exception would interrupt the exit, and leave a traceback in the log.

        gunicorn's own method first has `run` return, and raises it 0.1 s later.
        """
        if not self.is_ending:
            self.is_ending = True
            sys.exit(0)

    def end_idle(self) -> None:
        """Close the connections that wait for a request, or for the rest of its head, and have nothing unread.

        Run it in the event loop, so that no green thread runs between the check and the close: one that
        `kill(block=False)` ends a moment later may be executing a statement by then.
        """
        for greenlet, limit in list(self.idle.items()):
            if not arrived_bytes(self.clients[greenlet]):
                greenlet.throw(limit)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection."""
        greenlet = gevent.getcurrent()
        self.clients[greenlet] = client
        try:
            super().handle(listener, client, addr)
        finally:
            del self.clients[greenlet]

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Limit the time in which a client may send the head of a request to `keepalive`, so that a stop can end it."""
        with gevent.Timeout(self.cfg.keepalive, False) as limit:  # type: ignore[arg-type] # False: end silently
            greenlet = gevent.getcurrent()
            self.idle[greenlet] = limit
            try:
                yield
            finally:
                del self.idle[greenlet]

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Handle one request within the request timeout, `SHUTDOWN_SECONDS`.

        After it, respond with 408 if the application still waits for the body, which trickles in, and with 503
        otherwise: the server was too slow, and it is not known whether a write was committed.
        """
        closing = False
        limit = gevent.get_hub().loop.timer(self.cfg.graceful_timeout)
        limit.start(end_request, gevent.getcurrent())
        try:
            super().handle_request(listener_name, req, sock, addr)
        except StopIteration:
            closing = True
        finally:
            limit.close()
        if not is_read(req):
            linger(sock)
            closing = True
        if closing:
            raise StopIteration
        if self.nr % TURN_REQUESTS == 0:
            gevent.sleep(0)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002
        """Respond to a request that failed outside the application, and close the connection."""
        request_id = os.urandom(16).hex()
        if isinstance(exc, refusals.ParseException):
            status = HTTPStatus(STATUSES.get(type(exc), 400))
            # Not `str(exc)`, which quotes what did not parse: it may be a token or a part of a body.
            fault = type(exc).__name__
            log.warning(
                "malformed request",
                extra={"request_id": request_id, "network.peer.address": addr[0], "fault": fault},
            )
        elif isinstance(exc, ServiceUnavailable):  # cut off by a stop before it reached the application
            status = HTTPStatus.SERVICE_UNAVAILABLE
        else:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            log.error("request failed outside the application", extra={"request_id": request_id}, exc_info=exc)
        problem = {"type": "about:blank", "title": status.phrase, "status": status, "request_id": request_id}
        body = json.dumps(problem)
        headers = "".join(f"{name}: {value}\r\n" for name, value in edge.HEADERS)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers += f"Retry-After: {errors.RETRY_AFTER_SECONDS}\r\n"
        client.sendall(
            f"HTTP/1.1 {status} {status.phrase}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\n{headers}\r\n{body}".encode()
        )
        linger(client)


def end_request(greenlet: Any) -> None:
    """Raise in a request whose time is over. Called by the event loop."""
    text = "The request took too long."
    greenlet.throw(RequestTimeout(text) if is_receiving(greenlet) else ServiceUnavailable(text))


def is_receiving(greenlet: Any) -> bool:
    """Return whether a request waits for more of its body. A body that no handler reads says nothing of its work."""
    return any(frame.f_code is SocketUnreader.chunk.__code__ for frame, _ in traceback.walk_stack(greenlet.gr_frame))


def has_arrived(req: Any) -> bool:
    """Return whether the application has all of a request: gunicorn counts down what is still to come."""
    reader = req.body.reader
    return getattr(reader, "length", None) == 0 or getattr(reader, "parser", ...) is None


def arrived_bytes(client: Any) -> int:
    """Return the number of received bytes that are still unread in the kernel. ioctl_tty(2), `FIONREAD`."""
    return int.from_bytes(fcntl.ioctl(client.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)


def is_read(req: Any) -> bool:
    """Return whether the request was read to its end, after up to `MAX_REST_BYTES` of an unread body were discarded."""
    if has_arrived(req):
        return True
    with gevent.Timeout(LINGER_SECONDS, False), suppress(refusals.ParseException, OSError):  # type: ignore[arg-type] # False: end silently
        return not req.body.failed and len(req.body.read(MAX_REST_BYTES)) < MAX_REST_BYTES
    return False


def linger(client: Any) -> None:
    """Discard what the client still sends: closing at once would reset the connection and might lose the response."""
    with gevent.Timeout(LINGER_SECONDS, False), suppress(OSError):  # type: ignore[arg-type] # False: end silently
        client.shutdown(socket.SHUT_WR)
        while client.recv(65_536):
            gevent.sleep(0)  # a client that sends without a pause would never let others have their turn
