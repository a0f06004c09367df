"""Factors VII, VIII, IX: the server is a library, its port and processes are configuration, and it stops when asked.

`gunicorn` alone starts the service. https://gunicorn.org/reference/settings/
"""

from gevent import monkey

monkey.patch_all()  # before anything else: what is imported earlier would go on blocking its whole process

import gc  # noqa: E402

gc.disable()  # until all is loaded: hardly any of it will be garbage, and the search would take a tenth of the start

import logging  # noqa: E402
import os  # noqa: E402
from typing import Any  # noqa: E402

from service import config as configuration  # noqa: E402 - `config` is a setting of gunicorn's
from service import db, lifecycle, logs, worker  # noqa: E402

EX_CONFIG = 78  # sysexits(3)

try:
    settings = configuration.load()
except configuration.ConfigError as error:
    logs.capture()
    logging.critical("the configuration was refused", extra={"faults": error.faults})
    raise SystemExit(EX_CONFIG) from None
logs.configure(settings)
if settings.otel_exporter_otlp_endpoint:
    from service import traces  # it needs packages that are not there otherwise
worker.allow_files(settings.web_threads + settings.database_pool_size)

wsgi_app = "service.app:create_app()"
bind = f"0.0.0.0:{settings.port}"
proc_name = settings.service

workers = settings.web_concurrency
worker_class = worker.Worker
worker_connections = settings.web_threads
# Before the fork: workers share the memory of what is loaded, and a fault in it ends the start.
preload_app = True

# Seconds. Above the balancer's idle time-out, 60 s on an ALB: else it sends a request into a connection that closes.
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html
keepalive = 75
# Seconds that requests in flight have after the drain.
graceful_timeout = settings.shutdown_seconds
# Seconds without a sign of life after which a worker is replaced: a heartbeat, not a limit on requests.
timeout = 30
# Connections that the kernel may accept before a worker does; it caps the figure at net.core.somaxconn, 4096.
backlog = 2048

# Bytes and count; the balancer's own limits are 16 KB a line and 64 KB in all. Beyond them: 414 and 431.
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190

# Peers that may say how they were asked: edge.py believes the same ones what they say of the client. And that is all
# that they may say: a balancer passes on what clients send, such as `X-Forwarded-Ssl` or a header called SCRIPT_NAME.
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/x-forwarded-headers.html
forwarded_allow_ips = settings.forwarded_allow_ips
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
forwarder_headers = ""

# Heartbeats are files: in memory, or a slow disk would look like a dead worker.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112, S108 - macOS has none
# It would be written under $HOME, and nothing here needs it.
control_socket_disable = True
logger_class = worker.ServerLog


def when_ready(server: Any) -> None:
    """Take over SIGTERM once gunicorn has taken its signals."""
    lifecycle.drain_on_sigterm(server, settings.drain_seconds)
    lifecycle.hold_signals_while_forking()
    on_reload(server)


def on_reload(server: Any) -> None:  # noqa: ARG001
    """Once all is loaded, also anew by SIGHUP: look for garbage in what comes from now on."""
    gc.freeze()
    gc.enable()


def post_worker_init(worker: Any) -> None:
    """In each worker, since connections do not survive a fork."""
    if settings.otel_exporter_otlp_endpoint:
        traces.start(worker.wsgi, settings)
    db.open_pool(worker.wsgi)
    lifecycle.started()


def pre_request(worker: Any, req: Any) -> None:  # noqa: ARG001
    """While draining, close each connection after its answer. An application cannot: gunicorn drops such a header."""
    if lifecycle.is_leaving():
        req.force_close()


def worker_exit(server: Any, worker: Any) -> None:  # noqa: ARG001
    """Hang up on the database, or the exit waits for the pool's threads; then deliver the last spans."""
    if worker.booted:
        db.close_pool(worker.wsgi)
    if worker.booted and settings.otel_exporter_otlp_endpoint:
        traces.stop(worker.wsgi)
