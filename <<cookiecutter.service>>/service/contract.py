"""The contract: what clients may rely on, as OpenAPI at `/openapi.json`, and as a page to try it out on at `/docs`.

The models that validate requests describe them too. Here is what no model says: examples, headers, problems.
https://spec.openapis.org/oas/v3.1.0
"""

from importlib import resources
from typing import Any, Unpack, cast

from flask import Blueprint, Response
from flask_openapi3 import Info, OpenAPI, Tag
from pydantic import ConfigDict, RootModel
from werkzeug.http import HTTP_STATUS_CODES

from service.config import Config

VERSION = "1"
"""Of the contract, not of the code: it may only grow. What breaks clients is a new path beside the old one."""

DESCRIPTION = (
    "Errors are `application/problem+json` (RFC 9457). "
    "The log knows a request by the `request_id` of a problem and the `X-Request-ID` of an answer; "
    "a client may send one of its own. "
    "Fields of a body and parameters of a list that are not described here are refused."
)

PROBLEMS = {
    400: "The request is malformed or not valid; `errors` names the fields at fault.",
    401: "A valid token is needed; `WWW-Authenticate` says what is wrong with the one that came.",
    404: "It does not exist.",
    405: "The path does not know the method; `Allow` names those that it knows.",
    408: "The request took too long to arrive.",
    413: "The body is too long.",
    414: "The request line is too long.",
    415: "The body does not say that it is JSON.",
    417: "The request expects what the service does not do.",
    431: "The header fields are too long, or too many.",
    500: "The service failed. Its log says why.",
    501: "The body comes in a coding that the service does not know.",
    503: "The service cannot answer at the moment; `Retry-After` says when to try again.",
}
"""What each refusal means to a client."""

TO_ANY_REQUEST = (400, 405, 408, 414, 417, 431, 500, 501)
"""What a request may be answered before it is known what it asks for, or whatever it asks for."""

HEADERS = {
    401: {"WWW-Authenticate": {"description": "A challenge.", "required": True, "schema": {"type": "string"}}},
    405: {"Allow": {"description": "The methods of the path.", "required": True, "schema": {"type": "string"}}},
    503: {"Retry-After": {"description": "In seconds.", "required": True, "schema": {"type": "integer", "minimum": 1}}},
}

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>The contract</title>
<link rel="stylesheet" href="docs/assets/css/swagger-ui.css">
<link rel="icon" href="docs/assets/images/swagger.svg">
<div id="page"></div>
<script src="docs/assets/js/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
"""

START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null})\n'
"""A file of its own, so that the policy need not allow scripts in the page."""

POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; "  # its style sheet holds the icons
    "connect-src 'self'"  # for the contract, and for what is tried out
)
"""What a browser may do for the page. https://www.w3.org/TR/CSP3/"""


def info(settings: Config) -> Info:
    """What the contract says of itself."""
    return Info(title=settings.service, version=VERSION, description=DESCRIPTION)


def described(example: Any, headers: dict[str, Any] | None = None, **config: Unpack[ConfigDict]) -> ConfigDict:
    """The `config` of a model, with an example of the body that it describes and the headers that go with that."""
    extra = {"example": example} | ({"headers": headers} if headers else {})
    return cast("ConfigDict", {**config, "openapi_extra": extra})  # flask-openapi3 reads it there


def problems(*statuses: int) -> dict[Any, Any]:
    """How the contract describes an operation that refuses with `statuses`, beside those of any request."""
    return {
        status: {"description": PROBLEMS[status], "$ref": f"#/components/responses/{_name(status)}"}
        for status in sorted({*statuses, *TO_ANY_REQUEST})
    }


class Contract(RootModel[dict[str, Any]]):
    """What this is a part of."""

    model_config = described({"openapi": "3.1.0", "info": {"title": "orders", "version": VERSION}, "paths": {}})


def register(app: OpenAPI, settings: Config) -> None:
    """Publish the contract of `app`, and with `DOCS` its page."""
    app.components.responses = {_name(status): _problem(status) for status in PROBLEMS}

    @app.get(
        f"{settings.url_prefix}/openapi.json",
        operation_id="getContract",
        tags=[Tag(name="service")],
        responses={200: Contract, **problems()},
    )
    def contract() -> dict[str, Any]:
        """This contract. 200."""
        return app.api_doc

    if settings.docs:
        app.register_blueprint(_page(), url_prefix=f"{settings.url_prefix}/docs")


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
    answer = {"description": PROBLEMS[status], "content": {"application/problem+json": content}}
    return answer | ({"headers": HEADERS[status]} if status in HEADERS else {})


def _page() -> Blueprint:
    """Swagger UI, from the package that has it. Its addresses are relative: they hold under any prefix."""
    assets = resources.files("flask_openapi3_swagger") / "templates" / "swagger"  # imported here, only if it is wanted
    page = Blueprint("docs", __name__, static_folder=str(assets), static_url_path="/assets")

    @page.get("")
    def docs() -> Response:
        """The page. 200."""
        return Response(PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY})

    @page.get("/start.js")
    def start() -> Response:
        """What the page does first. 200."""
        return Response(START, content_type="text/javascript; charset=utf-8")

    return page
