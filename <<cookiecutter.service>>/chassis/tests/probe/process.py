"""Processes of the probes' service."""

from functools import partial

from chassis.testing import process
from chassis.tests.probe import PACKAGE

run_admin = partial(process.run_admin, package=PACKAGE)


class Gunicorn(process.Gunicorn):
    """A running service of the probes."""

    package = PACKAGE
