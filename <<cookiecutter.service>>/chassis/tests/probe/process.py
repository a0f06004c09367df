"""Processes of the probes' service."""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

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
