"""The application of the probes in this process, with its pool open."""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask

from chassis import config, db
from chassis.testing.process import wait_until
from chassis.tests.probe.app import create_app


@contextmanager
def running(settings: config.Config) -> Iterator[Flask]:
    """Run an application whose pool is open and full."""
    app = create_app(settings)
    db.open_pool(app)
    try:
        wait_until(lambda: app.extensions["pool"].idle == settings.database_pool_size)
        yield app
    finally:
        db.close_pool(app)
