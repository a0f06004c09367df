"""Error responses: problem details that do not leak internals. https://www.rfc-editor.org/rfc/rfc9457"""

import logging
import re
from http import HTTPStatus
from typing import Annotated, Any

import psycopg
from flask import Flask, Response, current_app, g, request
from gunicorn.http.errors import NoMoreData, ParseException
from pydantic import BaseModel, Field, ValidationError
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

RETRY_AFTER_SECONDS = 1
"""`Retry-After` of a 503. The pool tries to connect again within half of that time."""

REFUSALS: dict[type[psycopg.Error], tuple[int, str]] = {
    psycopg.errors.UniqueViolation: (409, "There is one with this value already."),
    psycopg.errors.ExclusionViolation: (409, "It conflicts with another one."),
    psycopg.errors.RestrictViolation: (409, "Something else still refers to it."),
    psycopg.errors.ForeignKeyViolation: (422, "What it refers to does not exist."),
    psycopg.errors.CheckViolation: (422, "The value is not allowed."),
    psycopg.errors.NotNullViolation: (422, "A value is needed."),
    psycopg.errors.NumericValueOutOfRange: (400, "A number is too large."),
    psycopg.errors.StringDataRightTruncation: (400, "A text is too long."),
}
"""The answers to what PostgreSQL refuses to store. A route declares the status as one of its `problems`.
https://www.postgresql.org/docs/18/errcodes-appendix.html"""

UNAVAILABLE = (
    psycopg.OperationalError,  # no connection, a full pool, a lost connection, a statement over its time
    psycopg.InterfaceError,  # a connection that was closed under our hands
    psycopg.errors.ReadOnlySqlTransaction,  # a primary that was demoted
)

QUOTES_OF_TWO_NAMES = 4
"""Quotation marks around two names in a message of PostgreSQL."""

log = logging.getLogger(__name__)


class FieldFault(BaseModel):
    """What is wrong with one field."""

    field: Annotated[str, Field(description="Its name, with dots where it lies inside another.")]
    detail: str


class Problem(BaseModel):
    """Why a request failed. https://www.rfc-editor.org/rfc/rfc9457"""

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str = ""
    request_id: Annotated[str, Field(description="By which the log knows the request.")]
    errors: list[FieldFault] = []


def register(app: Flask) -> None:
    """Make every error of `app` a problem response."""
    app.register_error_handler(HTTPException, _refused)
    app.register_error_handler(Exception, _surprised)
    app.register_error_handler(ParseException, _malformed)
    app.register_error_handler(NoMoreData, _malformed)
    for refusal in REFUSALS:
        app.register_error_handler(refusal, _not_stored)
    app.register_error_handler(psycopg.errors.SerializationFailure, _collided)
    app.register_error_handler(psycopg.errors.DeadlockDetected, _collided)
    for unavailable in UNAVAILABLE:
        app.register_error_handler(unavailable, _unavailable)


def invalid(error: ValidationError, place: str) -> Response:
    """Return the response 400 for a request that is not valid: it names each field at fault.

    Args:
        error: What pydantic found.
        place: Where it looked: `body`, `query`, `path` or `header`.
    """
    faults = error.errors(include_url=False, include_input=False)
    for fault in faults:
        if fault["type"] == "json_invalid":
            return problem(400, f"The body is not JSON: {fault['ctx']['error']}.")
        if not fault["loc"]:
            return problem(400, f"The {place} is not valid: {fault['msg']}.")
    fields = [{"field": ".".join(map(str, fault["loc"])), "detail": fault["msg"]} for fault in faults]
    return problem(400, "Some fields are not valid.", errors=fields)


def problem(status: int, detail: str | None = None, **members: Any) -> Response:
    """Return the response to a request that failed. `members` are added to its body; a 503 says when to try again."""
    body = {
        "type": "about:blank",
        "title": HTTP_STATUS_CODES[status],  # as in the status line; the standard library's differ between Pythons
        "status": status,
        "detail": detail,
        "request_id": g.get("request_id"),
    }
    body = {name: value for name, value in {**body, **members}.items() if value is not None}
    response = Response(current_app.json.dumps(body), status, content_type="application/problem+json")
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _refused(error: HTTPException) -> Response:
    if error.response is not None:  # made by `abort(response)`
        return error.response  # type: ignore[return-value]  # a Response of ours, never another WSGI application
    # Werkzeug's default descriptions are written for people with a browser, so they are omitted.
    detail = None if error.description == type(error).description else error.description
    response = problem(error.code or 500, detail)
    response.headers.update({name: value for name, value in error.get_headers() if name in {"Allow", "Retry-After"}})
    return response


def _not_stored(error: psycopg.Error) -> Response:
    """Return the answer to what a constraint refused. It names the fields of the request, and nothing of the schema."""
    status, detail = next(answer for kind, answer in REFUSALS.items() if isinstance(error, kind))
    if isinstance(error, psycopg.errors.ForeignKeyViolation) and _is_of_parent(error.diag):
        status, detail = REFUSALS[psycopg.errors.RestrictViolation]
    g.log_context["db.constraint"] = error.diag.constraint_name or error.diag.column_name
    known: frozenset[str] = getattr(current_app.view_functions.get(request.endpoint or ""), "fields", frozenset())
    faults = [{"field": name, "detail": detail} for name in _columns(error.diag) if name in known]
    return problem(status, detail, **({"errors": faults} if faults else {}))


def _is_of_parent(diag: psycopg.errors.Diagnostic) -> bool:
    """Return whether a foreign key was violated at its other end, where a row is deleted that others refer to.

    All other fields are the same at both ends, and the message is in the server's language (`lc_messages`). But in
    every language it quotes two tables and the constraint at that end, and one table and the constraint at this one.
    """
    return len(re.findall('["«»„“”「」]', diag.message_primary or "")) > QUOTES_OF_TWO_NAMES


def _columns(diag: psycopg.errors.Diagnostic) -> list[str]:
    """Return the columns that a constraint is about, as far as PostgreSQL names them.

    It does so in the detail of a key, `Key (lower(name))=(x) …`, which holds values too, in the name that it gives to a
    constraint, `items_price_check`, and for a null as the column itself.
    """
    if diag.column_name:
        return [diag.column_name]
    if key := re.search(r"\((.+?)\)=\(", diag.message_detail or ""):
        return re.findall(r"\w+\b(?!\()", re.sub(r"::[\w ]+", "", key[1]))  # neither functions nor types
    name = (diag.constraint_name or "").removeprefix(f"{diag.table_name}_")
    return [re.sub(r"_check\d*$", "", name)]


def _collided(error: psycopg.Error) -> Response:
    log.info("transaction rolled back, it met another one", extra={"exception.type": type(error).__qualname__})
    return problem(503, "The request met another one that changes the same. Repeat it.")


def _malformed(_error: Exception) -> Response:
    return problem(400, "The body breaks off or is framed wrongly.")


def _unavailable(error: psycopg.Error) -> Response:
    # No stack trace: it would say nothing new, and cost more than the answer when many are refused at once.
    extra = {"exception.type": type(error).__qualname__, "exception.message": str(error)}
    log.warning("database unavailable", extra=extra)
    return problem(503, "The service cannot reach its database at the moment.")


def _surprised(error: Exception) -> Response:
    log.error("unexpected error", exc_info=error)
    return problem(500)
