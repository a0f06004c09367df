"""The HTTP client of the checks. It uses the standard library only: it also runs in a Lambda function."""

import functools
import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

REQUEST_SECONDS = 5
"""Timeout of one request, so that a check of a listener that does not respond fails instead of hanging."""

credentials: dict[str, str] = {}
"""Headers that are sent with every request: `Authorization`, if the service requires tokens."""


class CheckError(Exception):
    """Green must not get traffic. The message says why, in one line."""


def ask(base_url: str, method: str, path: str, status: int, body: Any = None) -> tuple[Any, str]:
    """Send a request. Return the JSON of the response, or `None` if it has no body, and its `Location`, or `""`.

    Each request opens a connection of its own, so that the load balancer sends it to the next task.

    Args:
        base_url: URL of a listener, without a path.
        method: The method of the request.
        path: The path with the prefix of the service, as in `Location`.
        status: The status that the response must have.
        body: What is sent as JSON; `None` for nothing.

    Raises:
        CheckError: The response has another status or is not JSON, or there is none.
    """
    url = urlsplit(base_url)
    connection = (
        http.client.HTTPSConnection(url.hostname or "", url.port, timeout=REQUEST_SECONDS, context=tls())
        if url.scheme == "https"
        else http.client.HTTPConnection(url.hostname or "", url.port, timeout=REQUEST_SECONDS)
    )
    headers = {"Accept": "application/json", "Connection": "close", **credentials}
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise CheckError(f"{method} {path}: no answer from {base_url}: {type(error).__name__}: {error}") from None
    finally:
        connection.close()
    text = content[:200].decode(errors="replace")
    if response.status != status:
        raise CheckError(f"{method} {path}: {response.status} instead of {status}: {text}")
    try:
        return json.loads(content) if content else None, response.headers.get("Location", "")
    except ValueError:
        raise CheckError(f"{method} {path}: the answer is not JSON: {text}") from None


@functools.cache
def tls() -> ssl.SSLContext:
    """Return the TLS context. It is created once, since reading the certificates of all authorities takes 43 ms."""
    return ssl.create_default_context()
