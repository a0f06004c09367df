"""Which resources this service offers."""

from flask import Flask

from chassis import app
from chassis.config import load
from service import api
from service.config import Config


def create_app(settings: Config | None = None) -> Flask:
    """Create the WSGI application for `settings`, or for the environment."""
    return app.create(settings or load(Config), resources=[api.notes])
