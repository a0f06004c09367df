"""Factor VI: the composition of the machinery: how the parts of the chassis become one stateless WSGI application.

https://flask.palletsprojects.com/en/stable/patterns/appfactories/
"""

from collections.abc import Sequence
from typing import Any

import orjson
from flask import Flask, Response
from flask.json.provider import JSONProvider

from chassis import contract, db, edge, errors, fast, health, logs
from chassis.api import Blueprint
from chassis.config import Config


class OrjsonProvider(JSONProvider):
    """JSON by orjson, which writes times as RFC 3339, where Flask writes HTTP dates."""

    def dumps(self, obj: Any, **_options: Any) -> str:
        """Return `obj` as JSON text. Dataclasses, UUIDs, times, enums and decimals are allowed."""
        return contract.dump(obj).decode()

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a response whose JSON body is `args` or `kwargs`."""
        return Response(contract.dump(self._prepare_response_obj(args, kwargs)), content_type="application/json")

    def loads(self, s: str | bytes, **_options: Any) -> Any:
        """Return the value of a JSON text.

        Raises:
            ValueError: The text is not JSON. Lone surrogates and NaN are not JSON.
        """
        return orjson.loads(s)


def create(settings: Config, resources: Sequence[Blueprint]) -> Flask:
    """Create the WSGI application that serves `resources`, configured by `settings`.

    Nothing is opened here: `db` opens its connection pool later, in the process that uses it.
    """
    app = Flask("service", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.json = OrjsonProvider(app)
    app.extensions["settings"] = settings
    edge.register(app, settings)
    logs.register(app)
    errors.register(app)
    if settings.jwks_url:
        from chassis import tokens  # noqa: PLC0415 - PyJWT is an optional dependency

        tokens.register(app, settings)
    db.register(app, settings)
    health_checks = health.blueprint(settings)
    if settings.url_prefix:
        app.register_blueprint(health_checks, name="health_at_root")  # for a caller that knows only the port
    for blueprint in (*resources, health_checks):
        app.register_blueprint(blueprint, url_prefix=settings.url_prefix or None)
    contract.register(app, settings, [*resources, health_checks])
    if settings.otel_exporter_otlp_endpoint:
        from chassis import traces  # noqa: PLC0415 - OpenTelemetry is an optional dependency

        traces.register(app, settings)
    fast.speed_up(app)
    return app
