"""Factor VIII: concurrency. The web process is gunicorn with worker processes, and green threads in each of them.

This is gunicorn's gevent worker, with what it lacks: a prompt stop, a request timeout, and errors as problem details.

Green threads, because with a thread or a process per connection a hundred clients that send half a request each keep
everybody else out.
"""

import fcntl
import gc
import json
import logging
import os
import resource
import socket
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import gevent
from flask import Flask
from gevent.pool import Pool
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.http import errors as refusals
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.workers.ggevent import GeventWorker
from werkzeug.exceptions import RequestTimeout, ServiceUnavailable

from chassis import balance, db, edge, errors, fast, lifecycle
from chassis.config import Config

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


RequestParser.mesg_class = ShortRequest
fast.speed_up_server()


class Service(BaseApplication):
    """The gunicorn server of one service. Its settings are made of the configuration, and of nothing else.

    https://gunicorn.org/reference/settings/
    """

    def __init__(self, settings: Config, load_app: Callable[[], Flask]) -> None:
        self._settings = settings
        self._load_app = load_app
        allow_files(settings.web_threads + settings.database_pool_size)
        super().__init__()

    def load_config(self) -> None:
        """Give gunicorn its settings, at the start and again at SIGHUP."""
        for name, value in gunicorn_settings(self._settings).items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Return the WSGI application."""
        return self._load_app()


def on_reload(_server: Any) -> None:
    """Collect garbage again, but not in what is loaded already, also after a SIGHUP has loaded it anew."""
    gc.freeze()
    gc.enable()


def pre_fork(_server: Any, worker: Any) -> None:
    """Give each worker its place in what the workers know of each other."""
    balance.claim(worker)


def child_exit(_server: Any, worker: Any) -> None:
    """Forget a worker that has ended, however it did."""
    balance.release(worker)


def post_worker_init(worker: Any) -> None:
    """Connect each worker to the database, since connections do not survive a fork."""
    db.open_pool(worker.wsgi)
    lifecycle.started()


def pre_request(_worker: Any, req: Any) -> None:
    """While draining, close each connection after its response. gunicorn drops such a header of an application."""
    if lifecycle.is_leaving():
        req.force_close()


def worker_exit(_server: Any, worker: Any) -> None:
    """Disconnect from the database, or the exit waits for the pool's threads; then deliver the last spans."""
    if worker.booted:
        db.close_pool(worker.wsgi)
        if "traces" in worker.wsgi.extensions:
            worker.wsgi.extensions["traces"].stop()


def gunicorn_settings(settings: Config) -> dict[str, Any]:
    """Return gunicorn's settings for a configuration, with its hooks."""

    def when_ready(server: Any) -> None:
        """Take over SIGTERM once gunicorn has installed its signal handlers."""
        lifecycle.drain_on_sigterm(server, settings.drain_seconds)
        lifecycle.hold_signals_while_forking()
        on_reload(server)

    return {
        "bind": f"0.0.0.0:{settings.port}",
        "proc_name": settings.service,
        "workers": settings.web_concurrency,
        "worker_class": Worker,
        "worker_connections": settings.web_threads,
        # Before the fork: workers share the memory of what is loaded, and a fault in it ends the start.
        "preload_app": True,
        # Seconds. Above the balancer's idle timeout, 60 s on an ALB: else it sends a request into a connection that
        # closes. https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html
        "keepalive": 75,
        # Seconds that requests in flight have after the drain.
        "graceful_timeout": settings.shutdown_seconds,
        # Seconds without a sign of life after which a worker is replaced: a heartbeat, not a limit on requests.
        "timeout": 30,
        # Connections that the kernel may accept before a worker does; it caps the number at net.core.somaxconn, 4096.
        "backlog": 2048,
        # Bytes and count; the balancer's own limits are 16 KB a line and 64 KB in all. Beyond them: 414 and 431.
        "limit_request_line": 4094,
        "limit_request_fields": 100,
        "limit_request_field_size": 8190,
        # Which peers may set the forwarded headers, as in edge.py, and which ones: a balancer passes on what clients
        # send, such as `X-Forwarded-Ssl` or a header called SCRIPT_NAME.
        # https://docs.aws.amazon.com/elasticloadbalancing/latest/application/x-forwarded-headers.html
        "forwarded_allow_ips": settings.forwarded_allow_ips,
        "secure_scheme_headers": {"X-FORWARDED-PROTO": "https"},
        "forwarder_headers": "",
        # Heartbeats are files: in memory, or a slow disk would look like a dead worker.
        "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108 - macOS has none
        # It would be written under $HOME, and nothing here needs it.
        "control_socket_disable": True,
        "logger_class": ServerLog,
        "when_ready": when_ready,
        "on_reload": on_reload,
        "pre_fork": pre_fork,
        "child_exit": child_exit,
        "post_worker_init": post_worker_init,
        "pre_request": pre_request,
        "worker_exit": worker_exit,
    }


class Worker(GeventWorker):
    """Serves each connection in a green thread of its own, `WEB_THREADS` at once."""

    slot: int | None
    """Its place in what the workers know of each other, see `balance.py`."""

    def run(self) -> None:
        """Serve until told to stop; then finish what is in flight, within `SHUTDOWN_SECONDS`, and wait for nobody."""
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
            gevent.sleep(0.1)

        for server in servers:
            server.close()
        stopped = time.monotonic()
        # After a drain nobody is about to send more. Without one (SIGHUP, SIGTTOU) clients still are: each is told to
        # close by its next answer, and has as long for that as a drain takes.
        patience_seconds = 0 if lifecycle.is_leaving() else lifecycle.drain_seconds()
        while connections and time.monotonic() - stopped < self.cfg.graceful_timeout:
            if time.monotonic() - stopped >= patience_seconds:
                loop.run_callback(self.end_idle)
            self.notify()
            connections.join(timeout=0.1)
        if connections:
            log.warning("requests were cut off", extra={"requests": len(connections)})
            connections.kill(ServiceUnavailable("The service is stopping."), timeout=1)

    def end_idle(self) -> None:
        """Close the connections on which no request has begun. One whose first bytes have come is served.

        It runs in the event loop itself, where no green thread can go on between the look and the deed: one that is
        ended a moment later, as by `kill(block=False)`, may be in the middle of a statement by then.
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
        """Answer one request within the request timeout.

        Beyond it, a request that still arrives is answered with 408, as when a body trickles in. One that has arrived
        is answered with 503: that is our fault, and what became of it is not known.
        """
        closing = False
        limit = gevent.get_hub().loop.timer(self.cfg.graceful_timeout)
        limit.start(end_request, gevent.getcurrent(), req)
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
        """Answer what never reached the application, and close the connection."""
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


def end_request(greenlet: Any, req: Any) -> None:
    """Raise in a request whose time is over. Called by the event loop."""
    text = "The request took too long."
    greenlet.throw(ServiceUnavailable(text) if has_arrived(req) else RequestTimeout(text))


def has_arrived(req: Any) -> bool:
    """Return whether the application has all of a request: gunicorn counts down what is still to come."""
    reader = req.body.reader
    return getattr(reader, "length", None) == 0 or getattr(reader, "parser", ...) is None


def arrived_bytes(client: Any) -> int:
    """Return how many bytes lie in the kernel that nobody has read. ioctl_tty(2), `FIONREAD`."""
    return int.from_bytes(fcntl.ioctl(client.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)


def is_read(req: Any) -> bool:
    """Whether all of a request has come, after a little of what the application has left unread; else it never may."""
    if has_arrived(req):
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
