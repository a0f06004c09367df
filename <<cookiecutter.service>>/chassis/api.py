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
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import quote, urlencode

import flask
import orjson
from flask import request
from pydantic import BaseModel, ConfigDict, Field, create_model

from chassis.views import Created, Operation, Page, T, refuse, view_of

Handler = TypeVar("Handler", bound=Callable[..., Any])


__all__ = ["Blueprint", "Created", "Model", "Operation", "Page", "PageQuery", "created", "page"]

PLACES = frozenset({"body", "query", "headers"})
"""The parameters of a handler that are not variables of its path."""


class Model(BaseModel):
    """The base of the models that requests hold. A field that is not declared is refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class PageQuery(Model):
    """The query of a list: derive from it to add filters."""

    limit: Annotated[int, Field(ge=1, le=100, description="The largest number of items on one page.")] = 20


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
            Sort by columns that are never null only: a link could not say where among nulls the next page begins.

    Raises:
        ValueError: One of `following` is `None` for the last item of the page.
    """
    items = found[: query.limit]
    if len(found) == len(items):
        return Page(items, None)
    places = {name: value(items[-1]) for name, value in following.items()}
    if missing := sorted(name for name, place in places.items() if place is None):
        raise ValueError(f"{', '.join(missing)} of the last item is None: sort by a column that is never null")
    changes = {"limit": query.limit} | places
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
            self.register_error_handler(refusal, partial(refuse, status))

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
            is_open: Whether the route needs no token, even if others do. Such a route has no `scopes`.

        Raises:
            TypeError: The route is open and has scopes, or the handler's parameters are not the path's variables.
        """
        if is_open and scopes:
            raise TypeError(f"{rule}: a route that is open cannot ask for scopes: no token tells them")

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
            view = view_of(handler, operation)
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
