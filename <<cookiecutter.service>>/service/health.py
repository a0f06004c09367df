"""The probes: is the process alive, does it want requests, which release is it?

None of them asks the database. ECS replaces tasks that fail the balancer's check, and replacing every task cannot mend
a database; its outage shows as 503 answers and as log lines instead.
"""

from flask import Blueprint, Flask, abort
from flask.typing import ResponseReturnValue

from service import lifecycle
from service.config import Config


def register(app: Flask, settings: Config) -> None:
    """Attach the probes at the root, for whoever knows the port, and under `URL_PREFIX`, for whoever knows the path."""
    bp = Blueprint("health", __name__)

    @bp.get("/livez")
    def livez() -> ResponseReturnValue:
        """200: the process answers."""
        return {"status": "alive"}

    @bp.get("/readyz")
    def readyz() -> ResponseReturnValue:
        """200: requests are welcome. 503: not yet, or no longer."""
        if not lifecycle.is_ready():
            abort(503, "The service is starting or about to stop.")
        return {"status": "ready"}

    @bp.get("/version")
    def version() -> ResponseReturnValue:
        """200: the names of the service and of the running release."""
        return {"service": settings.service, "release": settings.release}

    app.register_blueprint(bp)
    if settings.url_prefix:
        app.register_blueprint(bp, url_prefix=settings.url_prefix, name="health_prefixed")
