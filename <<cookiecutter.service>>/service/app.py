"""The composition root: how the parts become one application. It touches nothing outside the application itself."""

from collections.abc import Callable
from typing import Any

import orjson
from flask import Flask, Request, Response
from flask.json.provider import JSONProvider
from flask.sessions import NullSession, SessionInterface
from flask_openapi3 import OpenAPI

from service import config, contract, db, edge, errors, health, logs, routes


class OrjsonProvider(JSONProvider):
    """JSON by orjson: quick, and RFC 3339 for times, where Flask's own writes HTTP dates."""

    def dumps(self, obj: Any, **_options: Any) -> str:
        """`obj` as JSON text; dataclasses, UUIDs and times included."""
        return orjson.dumps(obj, option=orjson.OPT_UTC_Z).decode()

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """`args` or `kwargs` as an answer: bytes as they are, where Flask's way decodes and encodes them again."""
        content = orjson.dumps(self._prepare_response_obj(args, kwargs), option=orjson.OPT_UTC_Z)
        return Response(content, content_type="application/json")

    def loads(self, s: str | bytes, **_options: Any) -> Any:
        """The value of a JSON text.

        Raises:
            ValueError: it is not JSON; lone surrogates and NaN are not.
        """
        return orjson.loads(s)


class NoSessions(SessionInterface):
    """Factor VI: nothing of a client is kept between requests, so there is nothing to read and to write for each."""

    nothing = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:  # noqa: ARG002
        """The session of every request."""
        return self.nothing


class Service(OpenAPI):
    """The application. Nothing in it is a coroutine."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """`func` itself: Flask would look at each hook and view, for each request, whether it is a coroutine."""
        return func


def create_app(settings: config.Config | None = None) -> OpenAPI:
    """The service as a WSGI application, for `settings` or else for the environment. Its pool is still closed."""
    settings = settings or config.load()
    app = Service(
        "service",
        info=contract.info(settings),
        security_schemes={},
        doc_ui=False,
        validation_error_status=400,
        validation_error_model=errors.Problem,
        validation_error_callback=errors.invalid,
        static_folder=None,
    )
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.request_class = errors.JSONRequest
    app.json = OrjsonProvider(app)
    app.session_interface = NoSessions()
    edge.register(app, settings)
    logs.register(app)
    errors.register(app)
    if settings.jwks_url:
        from service import tokens  # noqa: PLC0415 - its library is large, and not installed where it is not wanted

        tokens.register(app, settings)
    db.register(app, settings)
    routes.register(app, settings.url_prefix)
    health.register(app, settings)
    contract.register(app, settings)
    return app
