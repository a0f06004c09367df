"""How a handler becomes a view of Flask: the request is validated, the handler called, and its result answered."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Generic, TypeVar

import orjson
from flask import Response, request
from pydantic import BaseModel, TypeAdapter, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from chassis import caller, errors, fast, schemas

T = TypeVar("T")


NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"


LITERALS = {"boolean": "true|false", "integer": NUMBER, "number": NUMBER}
"""How JSON writes what is not a string: a regular expression for each of its types."""


@dataclass(frozen=True, slots=True)
class Created(Generic[T]):
    """The answer 201: `value` is new, and is found at the path `location`."""

    value: T
    location: str


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list."""

    items: list[T]
    next: str | None
    """The path of the next page, or `null` on the last page."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path, as `contract.py` describes it."""

    method: str
    path: str
    name: str
    tag: str
    summary: str
    parameters: type[BaseModel] | None
    query: type[BaseModel] | None
    headers: type[BaseModel] | None
    body: Any
    answers: Mapping[int, Any]
    problems: Sequence[int]
    scopes: Sequence[str]
    is_open: bool


def view_of(handler: Callable[..., Any], operation: Operation) -> Callable[..., Response]:
    """Return the view function that validates a request, calls `handler` and writes its answer."""
    path_of = _validator(operation.parameters) if operation.parameters else None
    query_of = _validator(operation.query) if operation.query else None
    headers_of = _validator(operation.headers) if operation.headers else None
    body_of = partial(_validate, TypeAdapter(operation.body)) if operation.body else None
    fields_of_headers = operation.headers.model_fields if operation.headers else ()
    header_names = {name: schemas.header_name(name) for name in fields_of_headers}
    writers = {
        status: partial(TypeAdapter(kind).dump_json, by_alias=True)
        for status, kind in operation.answers.items()
        if kind is not None
    }
    scopes = operation.scopes

    @wraps(handler)
    def view(**path: str) -> Response:
        if scopes:
            caller.require(scopes)
        arguments: dict[str, Any] = {}
        place = "path"
        try:
            if path_of:
                arguments.update(vars(path_of(path)))
            if query_of:
                place = "query"
                arguments["query"] = query_of(request.args.to_dict(flat=False))
            if headers_of:
                place = "header"
                given = {name: request.headers.get(header) for name, header in header_names.items()}
                arguments["headers"] = headers_of({name: value for name, value in given.items() if value is not None})
            if body_of:
                place = "body"
                arguments["body"] = body_of(_json())
        except ValidationError as error:
            return errors.invalid(error, place)
        return _answer(handler(**arguments), writers)

    models = (operation.parameters, operation.query, operation.body)
    view.fields = frozenset(name for model in models for name in getattr(model, "model_fields", ()))  # type: ignore[attr-defined] # for `errors`
    return view


def _validator(model: type[BaseModel]) -> Callable[[Mapping[str, Any]], BaseModel]:
    """Return the function that validates what arrives as texts: path, query and header fields.

    It makes JSON of them, and lets pydantic be as strict as with a body. What is written like a number or a boolean
    becomes one if the field is no text.
    """
    adapter = TypeAdapter(model)
    kinds = schemas.kinds_of_fields(model)
    lists = {name for name, found in kinds.items() if "array" in found}
    literals = {
        name: re.compile("|".join(LITERALS[kind] for kind in sorted(found & LITERALS.keys())))
        for name, found in kinds.items()
        if "string" not in found
    }

    def convert(name: str, text: str) -> object:
        return orjson.Fragment(text) if name in literals and literals[name].fullmatch(text) else text

    def check(given: Mapping[str, str | list[str]]) -> BaseModel:
        values: dict[str, object] = {}
        for name, value in given.items():
            if isinstance(value, str):
                values[name] = convert(name, value)
            elif len(value) == 1 and name not in lists:
                values[name] = convert(name, value[0])
            else:  # also what is given twice and must not be: pydantic refuses the list
                values[name] = [convert(name, each) for each in value]
        return _validate(adapter, orjson.dumps(values))

    return check


def _validate(adapter: TypeAdapter[T], data: bytes) -> T:
    """Return the value of a JSON text, read strictly.

    To JSON Schema, and so to the contract, `1.0` is an integer; to pydantic it is not, so it is rewritten as `1`. That
    is done only after a refusal: nobody else waits for it.
    """
    try:
        return adapter.validate_json(data, strict=True)
    except ValidationError as error:
        if not any(fault["type"] == "int_type" and isinstance(fault["input"], float) for fault in error.errors()):
            raise
    return adapter.validate_json(json.dumps(json.loads(data, parse_float=_number)), strict=True)


def _number(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() else number


def _json() -> bytes:
    """Return the request's body.

    Raises:
        RequestEntityTooLarge: It is longer than `MAX_BODY_BYTES`.
        UnsupportedMediaType: Its type is not JSON.
    """
    asked: Any = request
    asked = fast.behind(asked)
    if not asked.is_json:
        raise UnsupportedMediaType
    data: bytes = asked.get_data(cache=False)
    # If a chunked body is too long, Werkzeug returns its beginning as if that were the whole body.
    if "CONTENT_LENGTH" not in asked.environ and data and asked.environ["wsgi.input"].read(1):
        raise RequestEntityTooLarge
    return data


def _answer(result: Any, writers: Mapping[int, Callable[[Any], bytes]]) -> Response:
    """Return the response that a handler's result stands for. `writers` make JSON of the bodies, by status."""
    if isinstance(result, Response):
        return result
    if result is None:
        response = Response(status=204)
        del response.headers["Content-Type"]  # there is no content
        return response
    if isinstance(result, Created):
        response = Response(writers[201](result.value), 201, content_type="application/json")
        response.headers["Location"] = result.location
        return response
    response = Response(writers[200](result), content_type="application/json")
    if isinstance(result, Page) and result.next:
        response.headers["Link"] = f'<{result.next}>; rel="next"'
    return response


def refuse(status: int, refusal: Exception) -> Response:
    """Return the answer to an exception of the domain."""
    return errors.problem(status, str(refusal) or None)
