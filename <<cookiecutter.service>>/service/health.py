"""The probes: is the process alive, does it want requests, which release is it?

None of them asks the database. ECS replaces tasks that fail the balancer's check, and replacing every task cannot mend
a database; its outage shows as 503 answers and as log lines instead.
"""

from typing import Any, Literal

from flask import abort
from flask_openapi3 import APIBlueprint, OpenAPI, Tag
from pydantic import BaseModel

from service import contract, lifecycle
from service.config import Config

OPEN: dict[str, Any] = {"openapi_extensions": {"security": []}}
"""A balancer has no token, where others need one."""


class Alive(BaseModel):
    """The process answers."""

    model_config = contract.described({"status": "alive"})

    status: Literal["alive"]


class Ready(BaseModel):
    """Requests are welcome."""

    model_config = contract.described({"status": "ready"})

    status: Literal["ready"]


class Version(BaseModel):
    """What is running."""

    model_config = contract.described({"service": "orders", "release": "build-42"})

    service: str
    release: str


def register(app: OpenAPI, settings: Config) -> None:
    """Attach the probes at the root, for whoever knows the port, and under `URL_PREFIX`, for whoever knows the path."""
    api = APIBlueprint("health", __name__, abp_tags=[Tag(name="service")])

    @api.get("/livez", operation_id="getLiveness", responses={200: Alive, **contract.problems()}, **OPEN)
    def livez() -> dict[str, Any]:
        """Whether the process answers. 200."""
        return {"status": "alive"}

    @api.get("/readyz", operation_id="getReadiness", responses={200: Ready, **contract.problems(503)}, **OPEN)
    def readyz() -> dict[str, Any]:
        """Whether requests are welcome. 200, or 503: not yet, or no longer."""
        if not lifecycle.is_ready():
            abort(503, "The service is starting or about to stop.")
        return {"status": "ready"}

    @api.get("/version", operation_id="getVersion", responses={200: Version, **contract.problems()}, **OPEN)
    def version() -> dict[str, Any]:
        """The names of the service and of the running release. 200."""
        return {"service": settings.service, "release": settings.release}

    if settings.url_prefix:
        app.register_blueprint(api, name="health_at_root")
    app.register_api(api, url_prefix=settings.url_prefix)  # last: the contract has what the balancer routes here
