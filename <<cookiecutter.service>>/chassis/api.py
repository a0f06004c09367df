"""The HTTP surface: a route and its handler stand together, and everything that all routes share is said here once.

A handler is a function with annotations. Its parameters say what a request must hold, its return type says how it is
answered, its docstring describes it in the contract:

    api = Blueprint("notes")

    @api.get("/notes/<note_id>", problems=[404])
    def get_note(note_id: UUID) -> Note:
        return db.read(notes.find, note_id) or abort(404, "There is no such note.")

| parameter           | comes from                                                                 |
|---------------------|----------------------------------------------------------------------------|
| `body: Model`       | the JSON body; any other type that pydantic knows will do, such as a list  |
| `query: Model`      | the query string; a field that is a list may be repeated                   |
| `headers: Model`    | header fields: `if_match` is `If-Match`                                    |
| any other           | the variable of that name in the route's path                              |

All of them are validated strictly, as JSON: `"1"` in a body is no number, `yes` in a query is no boolean.

| return type         | answer                                                                     |
|---------------------|----------------------------------------------------------------------------|
| `T`                 | 200, `T` as JSON: a dataclass, a pydantic model, or a list of them         |
| `Created[T]`        | 201 with `Location`; made by `created()`                                   |
| `Page[T]`           | 200 with `Link`, if the list goes on; made by `page()`                     |
| `None`              | 204                                                                        |
| a union of these    | whichever the handler returns                                              |
"""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import quote, urlencode

import flask
import orjson
from flask import Response, request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from chassis import caller, contract, errors

T = TypeVar("T")
Handler = TypeVar("Handler", bound=Callable[..., Any])


PLACES = frozenset({"body", "query", "headers"})
"""The parameters of a handler that are not variables of its path."""

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
LITERALS = {"boolean": re.compile("true|false"), "integer": NUMBER, "number": NUMBER}
"""How JSON writes what is no string."""


class Model(BaseModel):
    """The base of the models that requests hold. A field that is not declared is refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class PageQuery(Model):
    """The query of a list: derive from it to add filters."""

    limit: Annotated[int, Field(ge=1, le=100, description="The largest number of items on one page.")] = 20


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


def created(value: T, at: object | None = None) -> Created[T]:
    """Return a 201 response. Its `Location` is the request's path, plus the segment `at` if that is given."""
    path = quote(request.path)
    return Created(value, path if at is None else f"{path}/{quote(str(at), safe='')}")


def page(found: list[T], query: PageQuery, **following: Callable[[T], object]) -> Page[T]:
    """Return one page of a list, with the link to the next one.

    Args:
        found: The items, one more than `query.limit` if the list goes on: the domain is asked for `limit + 1`.
        query: The request's query; the link to the next page keeps its filters and its order.
        following: For each parameter that tells where the next page begins, how it is read from an item, such as
            `after=lambda note: note.id`. A list that is sorted by name needs `after_name=lambda item: item.name` too.
    """
    items = found[: query.limit]
    if len(found) == len(items):
        return Page(items, None)
    changes = {"limit": query.limit} | {name: value(items[-1]) for name, value in following.items()}
    values = query.model_copy(update=changes).model_dump_json(exclude_unset=True, exclude_none=True, by_alias=True)
    texts = {name: value if isinstance(value, list) else [value] for name, value in orjson.loads(values).items()}
    parameters = [
        (name, each if isinstance(each, str) else orjson.dumps(each)) for name in texts for each in texts[name]
    ]
    return Page(items, f"{quote(request.path)}?{urlencode(parameters)}")


class Blueprint(flask.Blueprint):
    """A group of routes with one tag in the contract.

    Args:
        name: The tag.
        examples: For each model of a body, or some of them, an example.
        refusals: The statuses of exceptions that the domain raises, such as `{items.SoldOutError: 409}`. A client reads
            the exception's text as the `detail` of the problem.
    """

    def __init__(
        self,
        name: str,
        *,
        examples: Mapping[Any, Any] | None = None,
        refusals: Mapping[type[Exception], int] | None = None,
    ) -> None:
        super().__init__(name, __name__)
        self.examples: dict[Any, Any] = dict(examples or {})
        self.operations: list[Operation] = []
        for refusal, status in (refusals or {}).items():
            self.register_error_handler(refusal, partial(_refuse, status))

    def get(self, rule: str, **options: Any) -> Callable[[Handler], Handler]:
        """Register the handler of GET; the options are those of `operation`."""
        return self.operation("GET", rule, **options)

    def post(self, rule: str, **options: Any) -> Callable[[Handler], Handler]:
        """Register the handler of POST; the options are those of `operation`."""
        return self.operation("POST", rule, **options)

    def put(self, rule: str, **options: Any) -> Callable[[Handler], Handler]:
        """Register the handler of PUT; the options are those of `operation`."""
        return self.operation("PUT", rule, **options)

    def patch(self, rule: str, **options: Any) -> Callable[[Handler], Handler]:
        """Register the handler of PATCH; the options are those of `operation`."""
        return self.operation("PATCH", rule, **options)

    def delete(self, rule: str, **options: Any) -> Callable[[Handler], Handler]:
        """Register the handler of DELETE; the options are those of `operation`."""
        return self.operation("DELETE", rule, **options)

    def operation(
        self,
        method: str,
        rule: str,
        *,
        problems: Iterable[int] = (),
        scopes: Iterable[str] = (),
        is_open: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Register the handler of a method and a path.

        Args:
            method: The HTTP method.
            rule: The path, in Flask's notation: `/notes/<note_id>`. The variables' types come from the handler.
            problems: Statuses that the handler, the domain or the database refuses with, such as 404 and 409. Those
                that any request may meet are known: `contract.TO_ANY_REQUEST`.
            scopes: What the caller's token must allow, where tokens are asked for. Otherwise the answer is 403.
            is_open: Whether the route needs no token, even if others do.
        """

        def register(handler: Handler) -> Handler:
            hints = get_type_hints(handler, include_extras=True)
            names = [name for name in inspect.signature(handler).parameters if name not in PLACES]
            if names != re.findall(r"<(\w+)>", rule):
                raise TypeError(f"{handler.__name__}: its parameters {names} must be the variables of {rule}")
            fields: dict[str, Any] = {name: (hints[name], ...) for name in names}
            operation = Operation(
                method=method,
                path=re.sub(r"<(\w+)>", r"{\1}", rule),
                name=re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), handler.__name__),
                tag=self.name,
                summary=inspect.getdoc(handler) or "",
                parameters=create_model(f"{handler.__name__}_path", __base__=Model, **fields) if names else None,
                query=hints.get("query"),
                headers=hints.get("headers"),
                body=hints.get("body"),
                answers=_answers(hints.get("return", NoneType)),
                problems=tuple(problems),
                scopes=tuple(scopes),
                is_open=is_open,
            )
            self.operations.append(operation)
            view = _view(handler, operation)
            view.is_open = is_open  # type: ignore[attr-defined] # `tokens.py` asks
            self.add_url_rule(rule, endpoint=handler.__name__, view_func=view, methods=[method])
            return handler

        return register


def _answers(hint: Any) -> dict[int, Any]:
    """Return the statuses of a return type, each with the type of its body, or `None` if the body is empty."""
    options = get_args(hint) if get_origin(hint) in {Union, UnionType} else (hint,)
    answers: dict[int, Any] = {}
    for option in options:
        if option is NoneType:
            answers[204] = None
        elif get_origin(option) is Created:
            answers[201] = get_args(option)[0]
        else:
            answers[200] = answers[200] | option if 200 in answers else option  # noqa: PLR2004 - the status of success
    return answers


def _view(handler: Callable[..., Any], operation: Operation) -> Callable[..., Response]:
    """Return the view function that validates a request, calls `handler` and writes its answer."""
    path_of = _validator(operation.parameters) if operation.parameters else None
    query_of = _validator(operation.query) if operation.query else None
    headers_of = _validator(operation.headers) if operation.headers else None
    body_of = partial(_validate, TypeAdapter(operation.body)) if operation.body else None
    fields_of_headers = operation.headers.model_fields if operation.headers else ()
    header_names = {name: contract.header_name(name) for name in fields_of_headers}
    writers = {status: TypeAdapter(kind).dump_json for status, kind in operation.answers.items() if kind is not None}
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
    kinds = contract.kinds_of_fields(model)
    lists = {name for name, found in kinds.items() if "array" in found}
    literals = {name: LITERALS[kind] for name, found in kinds.items() for kind in found & LITERALS.keys()}

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
    if not request.is_json:
        raise UnsupportedMediaType
    data = request.get_data(cache=False)
    # If a chunked body is too long, Werkzeug returns its beginning as if that were the whole body.
    if "CONTENT_LENGTH" not in request.environ and data and request.environ["wsgi.input"].read(1):
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


def _refuse(status: int, refusal: Exception) -> Response:
    """Return the answer to an exception of the domain."""
    return errors.problem(status, str(refusal) or None)
