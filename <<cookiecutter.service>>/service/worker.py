"""gunicorn's gevent worker, with what it lacks: a quick stop, a limit on time, and errors as problem details.

Green threads, because with a thread or a process per connection a hundred clients that send half a request each keep
everybody else out.
"""

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.glogging import Logger
from gunicorn.http import errors as refusals
from gunicorn.workers.ggevent import GeventWorker
from werkzeug.exceptions import RequestTimeout

from service import lifecycle

STATUSES: dict[type[Exception], int] = {
    refusals.LimitRequestLine: 414,
    refusals.LimitRequestHeaders: 431,
    refusals.UnsupportedTransferCoding: 501,
    refusals.ExpectationFailed: 417,
    refusals.ForbiddenProxyRequest: 403,
}
"""What is answered to requests that gunicorn cannot parse, where it is not 400. As gunicorn does itself."""

LINGER_SECONDS = 2
"""How long the rest of a refused request is thrown away. https://nginx.org/en/docs/http/ngx_http_core_module.html
(`lingering_timeout`)"""

log = logging.getLogger(__name__)


class ServerLog(Logger):
    """gunicorn's own words, passed on to the service's log; its access log is the canonical line's business."""

    def setup(self, cfg: Any) -> None:
        """Have no handlers, levels or formats of its own."""
        self.cfg = cfg
        self.error_log.propagate = True

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Nothing: see `logs.py`."""


class Worker(GeventWorker):
    """Serves each connection in a green thread of its own, `WEB_THREADS` at once."""

    def run(self) -> None:
        """Serve until told to stop; then finish what is in flight, within `SHUTDOWN_SECONDS`, and wait for nobody."""
        self.idle: dict[Any, gevent.Timeout] = {}
        connections = Pool(self.worker_connections)
        servers = [StreamServer(sock, handle=partial(self.handle, sock), spawn=connections) for sock in self.sockets]
        for server in servers:
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
        with gevent.Timeout(self.cfg.graceful_timeout, RequestTimeout("The request took too long.")):
            return super().handle_request(listener_name, req, sock, addr)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002
        """Answer what never reached the application, and close the connection."""
        request_id = os.urandom(16).hex()
        if isinstance(exc, refusals.ParseException):
            status = HTTPStatus(STATUSES.get(type(exc), 400))
            log.warning(
                "malformed request", extra={"request_id": request_id, "client.address": addr[0], "detail": str(exc)}
            )
        else:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            log.error("request failed outside the application", extra={"request_id": request_id}, exc_info=exc)
        problem = {"type": "about:blank", "title": status.phrase, "status": status, "request_id": request_id}
        body = json.dumps(problem)
        client.sendall(
            f"HTTP/1.1 {status} {status.phrase}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        # Closed with unread bytes in it, a connection is reset, and the client may never see the answer.
        with gevent.Timeout(LINGER_SECONDS, False):  # type: ignore[arg-type] # False: end silently
            client.shutdown(socket.SHUT_WR)
            while client.recv(65_536):
                pass
