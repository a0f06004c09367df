"""The application of the probes."""

from flask import Flask

from chassis import app
from chassis.config import load
from chassis.tests.probe.api import probes
from chassis.tests.probe.config import Config


def create_app(settings: Config | None = None) -> Flask:
    """Create the WSGI application for `settings`, or for the environment."""
    return app.create(settings or load(Config), resources=[probes])
