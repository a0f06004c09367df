"""The probes: is the process alive, is it ready for requests, which release is it?

None of them asks the database. ECS replaces tasks that fail the load balancer's health check, and replacing every task
cannot repair a database; an outage of it shows as 503 responses and as log lines instead.
"""

from dataclasses import dataclass
from typing import Literal

from flask import abort

from chassis import lifecycle
from chassis.api import Blueprint
from chassis.config import Config

PATHS = ("/livez", "/readyz", "/version")
"""The paths of the probes. A load balancer asks them every few seconds and has no token."""


@dataclass(frozen=True, slots=True)
class Alive:
    """The process answers."""

    status: Literal["alive"]


@dataclass(frozen=True, slots=True)
class Ready:
    """The service accepts requests."""

    status: Literal["ready"]


@dataclass(frozen=True, slots=True)
class Version:
    """What is running."""

    service: str
    release: str


def paths(settings: Config) -> frozenset[str]:
    """Return the paths under which the probes answer: at the root and under `URL_PREFIX`."""
    return frozenset(f"{prefix}{path}" for prefix in ("", settings.url_prefix) for path in PATHS)


def blueprint(settings: Config) -> Blueprint:
    """Return the routes of the probes."""
    examples = {
        Alive: {"status": "alive"},
        Ready: {"status": "ready"},
        Version: {"service": settings.service, "release": "build-42"},
    }
    api = Blueprint("health", examples=examples)

    @api.get("/livez", is_open=True)
    def get_liveness() -> Alive:
        """Return 200 as long as the process answers."""
        return Alive("alive")

    @api.get("/readyz", is_open=True)
    def get_readiness() -> Ready:
        """Return 200 if new requests are welcome, or 503: not yet, or no longer."""
        if not lifecycle.is_ready():
            abort(503, "The service is starting or about to stop.")
        return Ready("ready")

    @api.get("/version", is_open=True)
    def get_version() -> Version:
        """Return the names of the service and of the running release."""
        return Version(settings.service, settings.release)

    return api
