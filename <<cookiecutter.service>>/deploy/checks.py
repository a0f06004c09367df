"""What decides whether green may have traffic: it is ready, is the right release, keeps notes, and is quick.

Only the standard library, so that the same checks run in a Lambda function and on a laptop. Each takes the base URL of
a listener, the path prefix of the service behind it, and the name of the release that must answer; it returns what it
saw, or raises `CheckError`.
"""

import http.client
import json
import math
import time
from typing import Any
from urllib.parse import urlsplit

REQUEST_SECONDS = 5
"""Time that one request may take, so that a silent listener is a failed check and not a hung one."""

PATIENCE_SECONDS = 60
"""How long a listener may take to show the right release. Balancers learn of a change within seconds."""

IN_A_ROW = 10
"""Answers of the right release that must come without another between them: a balancer asks its tasks in turn."""

LATENCY_REQUESTS = 50
"""Requests whose times are looked at."""

PERCENTILE = 95
"""Of those times, the one that is compared with the bound."""


class CheckError(Exception):
    """Green must not have traffic; the text says why, in one line."""


def everything(base_url: str, url_prefix: str, release: str | None, bound_ms: float) -> dict[str, Any]:
    """All checks, in turn.

    Raises:
        CheckError: one of them failed.
    """
    return {
        **ready(base_url, url_prefix, release),
        **note(base_url, url_prefix, release),
        **latency(base_url, url_prefix, release, bound_ms),
    }


def ready(
    base_url: str, url_prefix: str, release: str | None, patience_seconds: float = PATIENCE_SECONDS
) -> dict[str, Any]:
    """Wait until `IN_A_ROW` answers say that the service is ready, and is `release`, whichever that is if `None`.

    Raises:
        CheckError: that does not happen within `patience_seconds`; it says what was seen last.
    """
    deadline = time.monotonic() + patience_seconds
    seen, row = "nothing answered", 0
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
    """Create a note, read it, and delete it: the way through the service to the database and back.

    Raises:
        CheckError: something else came back than was put in.
    """
    text = f"a check of release {release}"
    created, location = _ask(base_url, "POST", f"{url_prefix}/notes", 201, {"text": text})
    try:
        found, _ = _ask(base_url, "GET", location, 200)
        if found != created or found["text"] != text:
            raise CheckError(f"the note that was created is not the one that was read: {found}")
    finally:
        _ask(base_url, "DELETE", location, 204)
    _ask(base_url, "GET", location, 404)
    return {"note": created["id"]}


def latency(base_url: str, url_prefix: str, release: str | None, bound_ms: float) -> dict[str, Any]:
    """Read the list of notes many times, and compare the 95th percentile of the times with `bound_ms`.

    Raises:
        CheckError: it is above, or a request failed.
    """
    del release  # whichever answers has to be quick
    _ask(base_url, "GET", f"{url_prefix}/notes?limit=1", 200)  # the first one pays for what all share
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
    """The JSON of the answer, `None` if it has none, and its `Location`.

    A connection for each request, so as to meet every task.

    Raises:
        CheckError: the answer has another status, is no JSON, or does not come.
    """
    url = urlsplit(base_url)
    connect = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = connect(url.hostname or "", url.port, timeout=REQUEST_SECONDS)
    headers = {"Accept": "application/json", "Connection": "close"}
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
        raise CheckError(f"{method} {path}: the answer is no JSON: {content[:200].decode(errors='replace')}") from None
