"""The checks that decide whether green may get traffic: it is ready, it is the right release, it works, and it is fast.

They use the standard library only, so that they run in a Lambda function and on a laptop. Each takes the base URL of a
listener, the path prefix of the service behind it, and the name of the release that must respond. It returns what it
found, or raises `CheckError`. What is particular to this service is in `smoke.py`.
"""

import math
import time
from typing import Any

from deploy import smoke
from deploy.client import CheckError, ask

PATIENCE_SECONDS = 60
"""Timeout until a listener answers with the right release. Load balancers apply a change within seconds."""

IN_A_ROW = 10
"""Number of consecutive responses that must come from the right release: a load balancer uses its tasks in turn."""

LATENCY_REQUESTS = 50
"""Number of requests that are measured."""

PERCENTILE = 95
"""Percentile of their durations that is compared with the bound."""


def everything(base_url: str, url_prefix: str, release: str | None, bound_ms: float) -> dict[str, Any]:
    """Run all checks, one after the other.

    Raises:
        CheckError: One of them failed.
    """
    return {
        **ready(base_url, url_prefix, release),
        **smoke.check(base_url, url_prefix, release),
        **latency(base_url, url_prefix, release, bound_ms),
    }


def ready(
    base_url: str, url_prefix: str, release: str | None, patience_seconds: float = PATIENCE_SECONDS
) -> dict[str, Any]:
    """Wait until `IN_A_ROW` consecutive responses show that the service is ready, and is `release` (`None`: any).

    Raises:
        CheckError: That does not happen within `patience_seconds`. The message has the last response.
    """
    deadline = time.monotonic() + patience_seconds
    seen, running, row = "nothing answered", "", 0
    while row < IN_A_ROW:
        try:
            ask(base_url, "GET", f"{url_prefix}/readyz", 200)
            running = ask(base_url, "GET", f"{url_prefix}/version", 200)[0]["release"]
            row = row + 1 if release in (running, None) else 0
            seen = f"release {running} answers, not {release}"
        except CheckError as error:
            seen, row = str(error), 0
        if row == 0:
            if time.monotonic() > deadline:
                raise CheckError(f"not ready after {patience_seconds:.0f} s: {seen}")
            time.sleep(0.5)
    return {"release": running}


def latency(base_url: str, url_prefix: str, release: str | None, bound_ms: float) -> dict[str, Any]:
    """Send the same request many times, and compare the 95th percentile of the durations with `bound_ms`.

    Raises:
        CheckError: It is above the bound, or a request failed.
    """
    del release  # any release must be fast
    path = f"{url_prefix}{smoke.LATENCY_PATH}"
    ask(base_url, "GET", path, 200)  # not measured: it sets up what the others reuse
    times_ms = sorted(_time_ms(base_url, path) for _ in range(LATENCY_REQUESTS))
    percentile_ms = times_ms[math.ceil(PERCENTILE / 100 * len(times_ms)) - 1]
    if percentile_ms > bound_ms:
        raise CheckError(
            f"p{PERCENTILE} of {len(times_ms)} requests is {percentile_ms:.0f} ms, above {bound_ms:.0f} ms"
        )
    return {f"p{PERCENTILE}_ms": round(percentile_ms, 1)}


def _time_ms(base_url: str, path: str) -> float:
    started = time.perf_counter()
    ask(base_url, "GET", path, 200)
    return (time.perf_counter() - started) * 1_000
