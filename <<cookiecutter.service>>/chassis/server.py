"""Factor VIII: concurrency. The web process is gunicorn with worker processes, and green threads in each of them."""

import gc
import logging
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from chassis import balance, db, fast, lifecycle
from chassis.config import Config
from chassis.worker import Worker

SPARE_FILES = 64
"""Open files of a worker beside its connections: listener, log, heartbeat, the event loop's, modules."""

log = logging.getLogger(__name__)


def allow_files(connections: int) -> None:
    """Raise the soft limit of open files to fit `connections`, up to the hard limit. Child processes inherit it.

    Many platforms begin with 1024 files, and a worker at its limit reaches neither its clients nor its database.
    """
    needed = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != soft < needed:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (needed if hard == resource.RLIM_INFINITY else min(needed, hard), hard)
        )


class ServerLog(Logger):
    """Pass gunicorn's messages to the service's log. `logs.py` writes a canonical line instead of an access log."""

    def setup(self, cfg: Any) -> None:
        """Have no handlers, levels or formats of its own."""
        self.cfg = cfg
        self.error_log.propagate = True

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log a message with only the names of exceptions: their texts quote a head that broke off, with its token."""
        super().debug(msg, *(type(arg).__name__ if isinstance(arg, Exception) else arg for arg in args), **kwargs)

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Do nothing: `logs.py` writes one canonical line for each request."""


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
    """Enable garbage collection, except for the objects that exist now. gunicorn calls this after a SIGHUP, too."""
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


def pre_request(worker: Any, req: Any) -> None:
    """While draining, close each connection after its response, and else some that another worker should have.

    gunicorn drops `Connection` headers of the application.
    """
    if lifecycle.is_leaving() or balance.gives_away(worker):
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
