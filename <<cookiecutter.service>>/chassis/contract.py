"""The contract: what clients may rely on, as OpenAPI at `/openapi.json`, and with `DOCS` as a page at `/docs`.

It is made of the blueprints' operations: the types that validate requests describe them too.
https://spec.openapis.org/oas/v3.1.0
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import orjson
from flask import Flask, Response
from pydantic import BaseModel
from werkzeug.http import HTTP_STATUS_CODES

from chassis import docs
from chassis.config import Config
from chassis.schemas import ContractError, Schemas, used

if TYPE_CHECKING:
    from chassis import api  # it imports this module

VERSION = "1"
"""The version of the contract, not of the code. Only compatible changes are made: a breaking one gets a new path."""

DESCRIPTION = (
    "Errors are `application/problem+json` (RFC 9457). "
    "The `request_id` of a problem and the `X-Request-ID` of a response identify the request in the log; "
    "a client may send an ID of its own. "
    "Fields of a body and parameters of a query that are not described here are refused."
)

PROBLEMS = {
    400: "The request is malformed or not valid; `errors` names the fields at fault.",
    401: "A valid token is needed; `WWW-Authenticate` says what is wrong with the one that came.",
    403: "The token does not allow this.",
    404: "It does not exist.",
    405: "The path does not know the method; `Allow` names those that it knows.",
    408: "The request took too long to arrive. Nothing was written, so it is safe to repeat.",
    409: "It contradicts what is stored; `errors` names the field at fault.",
    412: "It was changed in the meantime.",
    413: "The body is too long.",
    414: "The request line is too long.",
    415: "The body does not say that it is JSON.",
    417: "The request expects what the service does not do.",
    422: "What it refers to does not exist, or a rule forbids it; `errors` names the field at fault.",
    428: "The request must name the version that it changes, in `If-Match`.",
    431: "The header fields are too long, or too many.",
    500: "The service failed. Its log says why.",
    501: "The body comes in a coding that the service does not know.",
    503: "The service cannot answer at the moment. A write may have happened. `Retry-After` says when to try again.",
}
"""What each refusal means to a client."""

TO_ANY_REQUEST = (400, 405, 408, 414, 417, 431, 500, 501, 503)
"""Error statuses that any request may receive."""

TO_A_BODY = (413, 415)
"""Error statuses that a request with a body may receive in addition."""

HEADERS = {
    201: {"Location": {"description": "Its path.", "required": True, "schema": {"type": "string"}}},
    401: {"WWW-Authenticate": {"description": "A challenge.", "required": True, "schema": {"type": "string"}}},
    405: {"Allow": {"description": "The methods of the path.", "required": True, "schema": {"type": "string"}}},
    503: {"Retry-After": {"description": "In seconds.", "required": True, "schema": {"type": "integer", "minimum": 1}}},
}

LINK = {"Link": {"description": "Leads to `next`, if there is one.", "schema": {"type": "string"}}}


def dump(value: Any) -> bytes:
    """Return a value as JSON, as the contract describes it: times in RFC 3339, decimals and UUIDs as strings."""
    if isinstance(value, BaseModel):
        return value.model_dump_json(by_alias=True).encode()
    return orjson.dumps(value, default=_plain, option=orjson.OPT_UTC_Z)


def register(app: Flask, settings: Config, blueprints: Iterable["api.Blueprint"]) -> None:
    """Publish the contract of `blueprints` and, with `DOCS`, its page.

    Raises:
        ContractError: Two operations or two models have the same name.
    """
    document = describe(settings, list(blueprints))
    app.extensions["contract"] = document
    text = orjson.dumps(document)

    @app.get(f"{settings.url_prefix}/openapi.json")
    def contract() -> Response:
        """Return the contract."""
        return Response(text, content_type="application/json")

    if settings.docs:
        app.register_blueprint(docs.page(), url_prefix=f"{settings.url_prefix}/docs")


def describe(settings: Config, blueprints: list["api.Blueprint"]) -> dict[str, Any]:
    """Return the OpenAPI document of `blueprints`."""
    operations = [(blueprint, each) for blueprint in blueprints for each in blueprint.operations]
    schemas = Schemas(blueprints)
    paths: dict[str, dict[str, Any]] = {}
    names: set[str] = set()
    for blueprint, operation in operations:
        if operation.name in names:
            raise ContractError(f"two handlers are called {operation.name}: rename one of them")
        names.add(operation.name)
        item = paths.setdefault(f"{settings.url_prefix}{operation.path}", {})
        item[operation.method.lower()] = _operation(settings, blueprint, operation, schemas)
    paths[f"{settings.url_prefix}/openapi.json"] = {"get": _own_operation(settings)}
    refused = {*PROBLEMS, *(status for _, each in operations for status in each.problems)}
    components: dict[str, Any] = {
        "schemas": {},
        "responses": {_name(each): _problem(each) for each in sorted(refused)},
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": settings.service, "version": VERSION, "description": DESCRIPTION},
        "paths": paths,
        "components": components,
        "tags": [{"name": name} for name in dict.fromkeys([*(each.name for each in blueprints), "contract"])],
    }
    components["schemas"] = used(schemas.definitions, document)
    if settings.jwks_url:
        document["security"] = [{"token": []}]
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    return document


def _operation(settings: Config, blueprint: "api.Blueprint", operation: "api.Operation", schemas: Schemas) -> Any:
    summary, _, description = operation.summary.partition("\n")
    described: dict[str, Any] = {"operationId": operation.name, "summary": summary, "tags": [operation.tag]}
    if description.strip():
        described["description"] = description.strip()
    if settings.jwks_url and (operation.is_open or operation.scopes):
        described["security"] = [{"token": list(operation.scopes)}] if operation.scopes else []
    parameters = schemas.parameters(operation.parameters, "path") if operation.parameters else []
    parameters += schemas.parameters(operation.query, "query") if operation.query else []
    parameters += schemas.parameters(operation.headers, "header") if operation.headers else []
    if parameters:
        described["parameters"] = parameters
    if operation.body:
        content = _content(schemas.of(operation.body, "validation"), _example(blueprint, operation.body))
        described["requestBody"] = {"required": True, "content": content}
    described["responses"] = {
        str(status): _answer(status, model, blueprint, operation, schemas)
        for status, model in sorted(operation.answers.items())
    }
    refused = {*operation.problems, *TO_ANY_REQUEST, *(TO_A_BODY if operation.body else ())}
    if settings.jwks_url and not operation.is_open:
        refused |= {401, 403} if operation.scopes else {401}
    described["responses"] |= {str(each): {"$ref": f"#/components/responses/{_name(each)}"} for each in sorted(refused)}
    return described


def _answer(
    status: int, model: Any, blueprint: "api.Blueprint", operation: "api.Operation", schemas: Schemas
) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTP_STATUS_CODES[status]}
    if model is None:
        return described
    example = _example(blueprint, model)
    headers: dict[str, Any] = dict(HEADERS.get(status, {}))
    if _is_page(model):
        headers = LINK
        item = _example(blueprint, model.__args__[0])
        example = {"items": [item], "next": f"{operation.path}?limit=1&after={item.get('id', '')}"} if item else None
    if headers:
        described["headers"] = headers
    described["content"] = _content(schemas.of(model, "serialization"), example)
    return described


def _own_operation(settings: Config) -> dict[str, Any]:
    """Describe the operation that returns the contract."""
    schema = {"type": "object", "additionalProperties": True}
    example = {"openapi": "3.1.0", "info": {"title": settings.service, "version": VERSION}, "paths": {}}
    refused = {*TO_ANY_REQUEST, *({401} if settings.jwks_url else ())}
    return {
        "operationId": "getContract",
        "summary": "Return this contract.",
        "tags": ["contract"],
        "responses": {
            "200": {"description": "OK", "content": _content(schema, example)},
            **{str(each): {"$ref": f"#/components/responses/{_name(each)}"} for each in sorted(refused)},
        },
    }


def _content(schema: Any, example: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema, **({"example": example} if example is not None else {})}}


def _example(blueprint: "api.Blueprint", model: Any) -> Any:
    return blueprint.examples.get(model)


def _is_page(model: Any) -> bool:
    return getattr(getattr(model, "__origin__", None), "__name__", "") == "Page"


def _plain(value: Any) -> Any:
    """Return what orjson does not know as it stands in JSON."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    return str(value)  # decimals


def _name(status: int) -> str:
    return HTTP_STATUS_CODES[status].replace(" ", "")


def _problem(status: int) -> Any:
    example: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTP_STATUS_CODES[status],
        "status": status,
        "request_id": "6454fb4ba044b3b5577e9fd8bbe74655",
    }
    if status == 400:  # noqa: PLR2004 - the one whose body says more
        fault = {"field": "text", "detail": "String should have at least 1 character"}
        example |= {"detail": "Some fields are not valid.", "errors": [fault]}
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
    answer = {
        "description": PROBLEMS.get(status, HTTP_STATUS_CODES[status]),
        "content": {"application/problem+json": content},
    }
    return answer | ({"headers": HEADERS[status]} if status in HEADERS else {})
