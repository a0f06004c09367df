"""Factor VII: port binding. The service is its own web server: gunicorn is a library, and its port is configuration.

Importing this module makes the standard library cooperative for gevent, so it must be imported before anything else.
https://www.gevent.org/intro.html#monkey-patching
"""

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402

gc.disable()  # until all is loaded: hardly any of it will be garbage, and the search would take a tenth of the start

import importlib  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

from chassis import logs  # noqa: E402
from chassis.config import Config, ConfigError, load  # noqa: E402

if TYPE_CHECKING:
    from flask import Flask

EX_CONFIG, EX_UNAVAILABLE = 78, 69  # sysexits(3)

MAX_PRIVILEGED_PORT, MAX_PORT = 1_023, 65_535


def serve(create_app: str, kind: type[Config]) -> None:
    """Serve until SIGTERM. Exit with status 78 if the configuration is refused.

    Args:
        create_app: The function that makes the WSGI application of a configuration, as `module:function`. It is
            imported once logs are in place, so that a fault in it is an event like every other one.
        kind: The service's configuration.
    """
    logs.capture()
    try:
        settings = load(kind)
    except ConfigError as error:
        logging.critical("the configuration was refused", extra={"faults": error.faults})
        sys.exit(EX_CONFIG)
    logs.configure(settings)
    if reason := _cannot_listen(settings.port):
        logging.critical("cannot listen on port %d: %s; choose another one, as in PORT=%d", *reason)
        sys.exit(EX_UNAVAILABLE)
    # After the configuration was checked: gunicorn reads WEB_CONCURRENCY by itself as soon as it is imported.
    from chassis import server  # noqa: PLC0415

    def load_app() -> "Flask":
        module, _, function = create_app.partition(":")
        app: Flask = getattr(importlib.import_module(module), function)(settings)
        return app

    server.Service(settings, load_app).run()


def _cannot_listen(port: int) -> tuple[int, str, int] | None:
    """Return why the port cannot be used. gunicorn would try for five seconds, and say so in six lines."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("0.0.0.0", port))  # noqa: S104 - where the server is about to listen
        except OSError as error:
            return port, os.strerror(error.errno or 0), port + 1 if MAX_PRIVILEGED_PORT < port < MAX_PORT else 8000
    return None
