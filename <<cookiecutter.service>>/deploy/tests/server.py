"""A server of AWS's API: moto, in front of which operations may be answered by methods of a subclass.

botocore validates the requests, and the answers of the methods are validated against its service models.
"""

import functools
import gzip
import json
import threading
from collections.abc import Callable, Iterable
from typing import Any

import boto3
from botocore.session import Session
from botocore.validate import validate_parameters
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

ACCOUNT, REGION = "123456789012", "eu-central-1"


class Server:
    """The server. It answers an operation of CodeDeploy or ECS by its method `on_<operation>`, if it has that.

    The method takes the request and returns the answer, a `Refusal`, or `None` to have moto answer.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        """The requests that such methods got."""
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def client(self, service: str) -> Any:
        """Return a client of this AWS."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",  # noqa: S106 - of nothing
        )

    def reset_moto(self) -> None:
        """Delete everything that moto has."""
        request = b"{}"
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/moto-api/reset",
            "HTTP_HOST": "localhost",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "CONTENT_LENGTH": str(len(request)),
            "wsgi.url_scheme": "http",
            "wsgi.input": _Body(request),
        }
        list(self.moto(environ, _ignore))

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request of WSGI: by a method, or else by moto."""
        service, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")
        answer = getattr(self, f"on_{operation}", None)
        if answer is None or not service.startswith(("CodeDeploy", "AmazonEC2ContainerService")):
            return self._moto(environ, start_response)
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        if environ.get("HTTP_CONTENT_ENCODING") == "gzip":
            body = gzip.decompress(body)
        request = json.loads(body)
        self.requests.append((operation, request))
        result = answer(request)
        if result is None:
            environ["wsgi.input"] = _Body(body)
            return self._moto(environ, start_response)
        if isinstance(result, Refusal):
            text = json.dumps({"__type": result.code, "message": result.message}).encode()
            start_response("400 Bad Request", _headers(text))
            return [text]
        name = "codedeploy" if service.startswith("CodeDeploy") else "ecs"
        shape = _model(name).operation_model(operation).output_shape
        if shape is not None:
            validate_parameters(result, shape)
        text = json.dumps(result, default=lambda time: time.timestamp()).encode()
        start_response("200 OK", _headers(text))
        return [text]

    def _moto(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        response: Iterable[bytes] = self.moto(environ, start_response)
        return response


class Refusal:
    """An error as AWS answers it."""

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message


def _ignore(*_arguments: Any) -> None:
    pass


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - as in the class above
        """Print nothing."""


class _Body:
    """What WSGI reads a request from."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, size: int = -1) -> bytes:
        taken = self.content if size < 0 else self.content[:size]
        self.content = self.content[len(taken) :]
        return taken


@functools.cache
def _model(service: str) -> Any:
    """Return botocore's description of a service, which it takes a tenth of a second to read."""
    return Session().get_service_model(service)


def _headers(text: bytes) -> list[tuple[str, str]]:
    return [("Content-Type", "application/x-amz-json-1.1"), ("Content-Length", str(len(text)))]
