"""The HTTP surface: a route and its handler stand together, and everything that all routes share is said here once.

A handler is a function with annotations. Its parameters say what a request must hold, its return type says how it is
answered, its docstring describes it in the contract:

    api = Blueprint("notes")

    @api.get("/notes/<note_id>", problems=[404])
    def get_note(note_id: UUID) -> Note:
        ...

| parameter           | comes from                                                              |
|---------------------|-------------------------------------------------------------------------|
| `body: Model`       | the JSON body, validated strictly: a string is not a number             |
| `query: Model`      | the query string; unknown parameters are refused                        |
| any other           | the variable of that name in the route's path                           |

| return type         | answer                                                                  |
|---------------------|-------------------------------------------------------------------------|
| `T`                 | 200, `T` as JSON: a dataclass or a pydantic model                       |
| `Created[T]`        | 201 with `Location`; made by `created()`                                |
| `Page[T]`           | 200 with `Link`, if the list goes on; made by `page()`                  |
| `None`              | 204                                                                     |
| a union of these    | whichever the handler returns                                           |
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlencode

import flask
from flask import Response, request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from chassis import contract, errors

T = TypeVar("T")
Handler = TypeVar("Handler", bound=Callable[..., Any])


class Model(BaseModel):
    """The base of the models of request bodies and queries. A field that is not declared is refused."""

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
    body: type[BaseModel] | None
    answers: Mapping[int, Any]
    problems: Sequence[int]
    is_open: bool


def created(value: T, at: object | None = None) -> Created[T]:
    """Return the answer 201 for `value`, which is found `at` that segment below the request's path, or at the path."""
    return Created(value, request.path if at is None else f"{request.path}/{at}")


def page(found: list[T], query: PageQuery, **following: Callable[[T], object]) -> Page[T]:
    """Return one page of a list, with the link to the next one.

    Args:
        found: The items, one more than `query.limit` if the list goes on: the domain is asked for `limit + 1`.
        query: The request's query; the link to the next page keeps its filters and its order.
        following: For each parameter that tells where the next page begins, how it is read from an item, such as
            `after=lambda note: note.id`.
    """
    items = found[: query.limit]
    if len(found) == len(items):
        return Page(items, None)
    parameters = query.model_dump(mode="json", exclude_unset=True, by_alias=True) | {"limit": query.limit}
    parameters |= {name: key(items[-1]) for name, key in following.items()}
    return Page(items, f"{request.path}?{urlencode(parameters, doseq=True)}")


class Blueprint(flask.Blueprint):
    """A group of routes with one tag in the contract. `examples` has an example for each model of a body."""

    def __init__(self, name: str, *, examples: Mapping[Any, Any] | None = None) -> None:
        super().__init__(name, __name__)
        self.examples: dict[Any, Any] = dict(examples or {})
        self.operations: list[Operation] = []

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
        self, method: str, rule: str, *, problems: Iterable[int] = (), is_open: bool = False
    ) -> Callable[[Handler], Handler]:
        """Register the handler of a method and a path.

        Args:
            method: The HTTP method.
            rule: The path, in Flask's notation: `/notes/<note_id>`. The variables' types come from the handler.
            problems: Statuses that the handler itself refuses with, such as 404. Those that any request may meet are
                known: `contract.TO_ANY_REQUEST`.
            is_open: Whether no token is asked for, where others need one.
        """

        def register(handler: Handler) -> Handler:
            hints = get_type_hints(handler, include_extras=True)
            body, query = hints.get("body"), hints.get("query")
            answers = _answers(hints.get("return", NoneType))
            names = [name for name in inspect.signature(handler).parameters if name not in {"body", "query"}]
            if names != re.findall(r"<(\w+)>", rule):
                raise TypeError(f"{handler.__name__}: its parameters {names} must be the variables of {rule}")
            fields: dict[str, Any] = {name: (hints[name], ...) for name in names}
            parameters = create_model(f"{handler.__name__}_path", __base__=Model, **fields) if names else None
            self.operations.append(
                Operation(
                    method=method,
                    path=re.sub(r"<(\w+)>", r"{\1}", rule),
                    name=re.sub(r"_([a-z])", lambda match: match[1].upper(), handler.__name__),
                    tag=self.name,
                    summary=inspect.getdoc(handler) or "",
                    parameters=parameters,
                    query=query,
                    body=body,
                    answers=answers,
                    problems=tuple(problems),
                    is_open=is_open,
                )
            )
            view = _view(handler, parameters, query, body)
            self.add_url_rule(rule, endpoint=handler.__name__, view_func=view, methods=[method])
            return handler

        return register


def _answers(hint: Any) -> dict[int, Any]:
    """Return what a return type promises: for each status the type of its body, `None` for a body that is empty."""
    options = get_args(hint) if get_origin(hint) in {Union, UnionType} else (hint,)
    answers: dict[int, Any] = {}
    for option in options:
        if option is NoneType:
            answers[204] = None
        elif get_origin(option) is Created:
            answers[201] = get_args(option)[0]
        else:
            answers[200] = option
    return answers


def _view(
    handler: Callable[..., Any],
    parameters: type[BaseModel] | None,
    query: type[BaseModel] | None,
    body: type[BaseModel] | None,
) -> Callable[..., Response]:
    """Return the view function that validates a request, calls `handler` and writes its answer."""
    lists = [name for name, field in (query.model_fields if query else {}).items() if _is_list(field.annotation)]
    validate_body = TypeAdapter(body).validate_json if body else None

    @wraps(handler)
    def view(**path: Any) -> Response:
        arguments: dict[str, Any] = {}
        try:
            if parameters:
                arguments.update(parameters.model_validate(path))
            if query:
                given: dict[str, Any] = request.args.to_dict()
                given |= {name: request.args.getlist(name) for name in lists if name in given}
                arguments["query"] = query.model_validate(given)
            if validate_body:
                arguments["body"] = validate_body(_json(), strict=True)
        except ValidationError as error:
            return errors.invalid(error)
        return _answer(handler(**arguments))

    return view


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(_is_list(option) for option in get_args(annotation))


def _json() -> bytes:
    """Return the request's body.

    Raises:
        RequestEntityTooLarge: It is longer than `MAX_BODY_BYTES`.
        UnsupportedMediaType: Its type is not JSON.
    """
    if not request.is_json:
        raise UnsupportedMediaType
    data = request.get_data(cache=False)
    # Of a body without a length, a chunked one, that is too long, Werkzeug takes the start for the whole.
    if "CONTENT_LENGTH" not in request.environ and data and request.environ["wsgi.input"].read(1):
        raise RequestEntityTooLarge
    return data


def _answer(result: Any) -> Response:
    """Return the response that a handler's result stands for."""
    if isinstance(result, Response):
        return result
    if result is None:
        response = Response(status=204)
        del response.headers["Content-Type"]  # there is no content
        return response
    if isinstance(result, Created):
        response = Response(contract.dump(result.value), 201, content_type="application/json")
        response.headers["Location"] = result.location
        return response
    response = Response(contract.dump(result), content_type="application/json")
    if isinstance(result, Page) and result.next:
        response.headers["Link"] = f'<{result.next}>; rel="next"'
    return response
