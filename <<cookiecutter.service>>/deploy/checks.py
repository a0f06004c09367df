"""The checks that decide whether green may have traffic: it is ready, the right release, stores notes, and is fast.

They use the standard library only, so that they run in a Lambda function and on a laptop. Each takes the base URL of a
listener, the path prefix of the service behind it, and the name of the release that must answer; it returns what it
found, or raises `CheckError`.
"""

import functools
import http.client
import json
import math
import ssl
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

REQUEST_SECONDS = 5
"""Timeout of one request, so that a check of a listener that does not answer fails instead of hanging."""

PATIENCE_SECONDS = 60
"""Timeout until a listener answers with the right release. Load balancers apply a change within seconds."""

IN_A_ROW = 10
"""Number of consecutive answers that must come from the right release: a balancer takes its tasks in turn."""

LATENCY_REQUESTS = 50
"""Number of requests that are measured."""

PERCENTILE = 95
"""Percentile of their durations that is compared with the bound."""


NOTE = "a check of a release"
"""How the text of a check's note begins, so that notes of interrupted checks are found and deleted."""

credentials: dict[str, str] = {}
"""Headers that are sent with every request: `Authorization`, where the service wants tokens."""


class CheckError(Exception):
    """Green must not have traffic. The text says why, in one line."""


def everything(base_url: str, url_prefix: str, release: str | None, bound_ms: float) -> dict[str, Any]:
    """Run all checks, one after the other.

    Raises:
        CheckError: One of them failed.
    """
    return {
        **ready(base_url, url_prefix, release),
        **note(base_url, url_prefix, release),
        **latency(base_url, url_prefix, release, bound_ms),
    }


def ready(
    base_url: str, url_prefix: str, release: str | None, patience_seconds: float = PATIENCE_SECONDS
) -> dict[str, Any]:
    """Wait until `IN_A_ROW` consecutive answers show that the service is ready, and is `release` (`None`: any).

    Raises:
        CheckError: That does not happen within `patience_seconds`; the text has the last answer.
    """
    deadline = time.monotonic() + patience_seconds
    seen, running, row = "nothing answered", "", 0
    while row < IN_A_ROW:
        try:
            _ask(base_url, "GET", f"{url_prefix}/readyz", 200)
            running = _ask(base_url, "GET", f"{url_prefix}/version", 200)[0]["release"]
            row = row + 1 if release in (running, None) else 0
            seen = f"release {running} answers, not {release}"
        except CheckError as error:
            seen, row = str(error), 0
        if row == 0:
            if time.monotonic() > deadline:
                raise CheckError(f"not ready after {patience_seconds:.0f} s: {seen}")
            time.sleep(0.5)
    return {"release": running}


def note(base_url: str, url_prefix: str, release: str | None) -> dict[str, Any]:
    """Create a note, read it and delete it: this uses the service and its database.

    Raises:
        CheckError: What was read differs from what was created.
    """
    _clean(base_url, url_prefix)
    text, location = f"{NOTE}: {release}, {uuid.uuid4()}", ""
    try:
        created, location = _ask(base_url, "POST", f"{url_prefix}/notes", 201, {"text": text})
        found, _ = _ask(base_url, "GET", location, 200)
        if found != created or found["text"] != text:
            raise CheckError(f"the note that was created is not the one that was read: {found}")
    finally:
        # Clients that choose random IDs hide it from the list of the newest.
        if location:
            _ask(base_url, "DELETE", location, 204)
        # By their text: when the answer to a request was lost, the note may exist all the same.
        _clean(base_url, url_prefix)
    _ask(base_url, "GET", location, 404)
    return {"note": created["id"]}


def _clean(base_url: str, url_prefix: str) -> None:
    """Delete the notes of checks, this one's and those of checks that were interrupted."""
    newest, _ = _ask(base_url, "GET", f"{url_prefix}/notes?limit=100", 200)
    for each in newest["items"]:
        if each["text"].startswith(NOTE):
            _ask(base_url, "DELETE", f"{url_prefix}/notes/{each['id']}", 204)


def latency(base_url: str, url_prefix: str, release: str | None, bound_ms: float) -> dict[str, Any]:
    """Read the list of notes many times, and compare the 95th percentile of the durations with `bound_ms`.

    Raises:
        CheckError: It is above the bound, or a request failed.
    """
    del release  # any release must be fast
    _ask(base_url, "GET", f"{url_prefix}/notes?limit=1", 200)  # not measured: it sets up what the others reuse
    times_ms = sorted(_time_ms(base_url, f"{url_prefix}/notes?limit=1") for _ in range(LATENCY_REQUESTS))
    percentile_ms = times_ms[math.ceil(PERCENTILE / 100 * len(times_ms)) - 1]
    if percentile_ms > bound_ms:
        raise CheckError(
            f"p{PERCENTILE} of {len(times_ms)} requests is {percentile_ms:.0f} ms, above {bound_ms:.0f} ms"
        )
    return {f"p{PERCENTILE}_ms": round(percentile_ms, 1)}


def _time_ms(base_url: str, path: str) -> float:
    started = time.perf_counter()
    _ask(base_url, "GET", path, 200)
    return (time.perf_counter() - started) * 1_000


def _ask(base_url: str, method: str, path: str, status: int, body: Any = None) -> tuple[Any, str]:
    """Send a request, and return the JSON of the answer, `None` if it has none, and its `Location`.

    Each request has a connection of its own, so that every task is reached.

    Raises:
        CheckError: The answer has another status, is not JSON, or does not come.
    """
    url = urlsplit(base_url)
    connection = (
        http.client.HTTPSConnection(url.hostname or "", url.port, timeout=REQUEST_SECONDS, context=_tls())
        if url.scheme == "https"
        else http.client.HTTPConnection(url.hostname or "", url.port, timeout=REQUEST_SECONDS)
    )
    headers = {"Accept": "application/json", "Connection": "close", **credentials}
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise CheckError(f"{method} {path}: no answer from {base_url}: {type(error).__name__}: {error}") from None
    finally:
        connection.close()
    if answer.status != status:
        raise CheckError(
            f"{method} {path}: {answer.status} instead of {status}: {content[:200].decode(errors='replace')}"
        )
    try:
        return json.loads(content) if content else None, answer.headers.get("Location", "")
    except ValueError:
        raise CheckError(f"{method} {path}: the answer is not JSON: {content[:200].decode(errors='replace')}") from None


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return the TLS context, made once: to read the certificates of all authorities takes 43 ms."""
    return ssl.create_default_context()
