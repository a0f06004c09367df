"""Processes of the probes' service."""

from functools import partial

from chassis.testing import containers, process
from chassis.tests.probe import PACKAGE

running = partial(containers.running, package=PACKAGE)
run_admin = partial(process.run_admin, package=PACKAGE)


class Gunicorn(process.Gunicorn):
    """A running service of the probes."""

    package = PACKAGE
