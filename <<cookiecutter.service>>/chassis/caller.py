"""Who sent the request: the claims of its token, where `JWKS_URL` asks for tokens; and what is passed on to others.

A route asks for scopes with `scopes=["items:write"]`, and then they stand in the contract too. A handler that needs to
know more asks `current()`, for example for the owner of what it stores. https://www.rfc-editor.org/rfc/rfc9068
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import abort, g, has_request_context, request

from chassis import errors

TRACE_FIELDS = ("traceparent", "tracestate", "X-Amzn-Trace-Id")
"""https://www.w3.org/TR/trace-context/
https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-request-tracing.html"""


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request, as its token describes it."""

    subject: str | None = None
    """The claim `sub`: the ID of a user or of a service, or `None`."""
    scopes: frozenset[str] = frozenset()
    """What the token allows: the words of the claim `scope`, or the entries of the claim `scp`."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """Everything that the token says."""


ANYONE = Caller()
"""The sender of a request that carries no token: tokens are not asked for."""


def of(claims: Mapping[str, Any]) -> Caller:
    """Return the caller whom the claims of a valid token describe. A claim of another type allows nothing."""
    given = claims.get("scope") or claims.get("scp") or ()
    scopes = given.split() if isinstance(given, str) else given if isinstance(given, list) else ()
    return Caller(claims.get("sub"), frozenset(scope for scope in scopes if isinstance(scope, str)), claims)


def current() -> Caller:
    """Return who sent the current request; `ANYONE` where tokens are not asked for."""
    caller: Caller = g.get("caller", ANYONE)
    return caller


def require(scopes: Collection[str]) -> None:
    """Refuse the current request with 403 if its token lacks one of `scopes`. Where no token is asked for, allow it."""
    if "caller" in g and not g.caller.scopes.issuperset(scopes):
        missing = " ".join(scopes)
        response = errors.problem(403, f"The token must allow: {missing}.")
        response.headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", scope="{missing}"'
        abort(response)


def propagated_headers() -> dict[str, str]:
    """Return the header fields by which a request to another service belongs to the current one: its ID and its trace.

    Where this service traces, the parent in `traceparent` is its own span. In a job, which no request has caused, there
    are no fields. The token is never among them: it is meant for this service.
    """
    if not has_request_context():
        return {}
    trace = {name: request.headers[name] for name in TRACE_FIELDS if name in request.headers}
    return {"X-Request-ID": g.request_id, **trace}
