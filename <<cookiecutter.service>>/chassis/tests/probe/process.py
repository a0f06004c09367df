"""Processes of the probes' service."""

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from chassis.testing import containers, process
from chassis.tests.probe import PACKAGE

running = partial(containers.running, package=PACKAGE)
run_admin = partial(process.run_admin, package=PACKAGE)


class Gunicorn(process.Gunicorn):
    """A running service of the probes."""

    package = PACKAGE


class AsDeployed(Gunicorn):
    """A running service of the probes with the time-outs that the service has by default."""

    defaults: ClassVar[Mapping[str, object]] = {}


class Unread(AsDeployed):
    """The same, but its log may be left unread for a while: clear `is_read`, and set it again."""

    def __init__(self, **options: Any) -> None:
        self.is_read = threading.Event()
        self.is_read.set()
        super().__init__(**options)

    def _read_events(self) -> None:
        for line in self._process.stdout or ():
            self.is_read.wait()
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()


def lines(server: Gunicorn, **wanted: object) -> list[dict[str, Any]]:
    """Return the events that have these attributes."""
    return [event for event in server.events if wanted.items() <= event.items()]
