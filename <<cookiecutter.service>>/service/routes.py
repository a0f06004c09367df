"""The notes over HTTP: parse, ask the domain, answer."""

from functools import cache
from typing import Annotated, Any
from uuid import UUID

from flask import Response, abort, jsonify, request
from flask_openapi3 import APIBlueprint, OpenAPI, Tag
from pydantic import BaseModel, ConfigDict, Field, RootModel

from service import db, notes
from service.errors import problems


class NotePath(BaseModel):
    """Where a note is."""

    note_id: UUID


class NoteBody(BaseModel):
    """What a client says of a note."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: Annotated[str, Field(min_length=1, max_length=notes.MAX_TEXT_CHARS, pattern=r"^[^\x00]*$")]


class Query(BaseModel):
    """Parameters of a query."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    @cache
    def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override] # a cached method
        """As pydantic makes it, but once: flask-openapi3 asks anew at each request, and it takes 0.2 ms."""
        return super().model_json_schema(*args, **options)


class PageQuery(Query):
    """Which part of the list."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    after: UUID | None = None


class Note(RootModel[notes.Note]):
    """A note, as the domain defines it."""


class Page(BaseModel):
    """A part of the list of notes, newest first."""

    items: list[notes.Note]
    next: Annotated[str | None, Field(description="Where the list goes on, if it does.")]


def register(app: OpenAPI, url_prefix: str) -> None:
    """Attach the notes to `app`, under `url_prefix`."""
    api = APIBlueprint(
        "notes",
        __name__,
        url_prefix=url_prefix,
        abp_tags=[Tag(name="notes")],
        abp_responses=problems(408, 414, 431, 500, 503),
    )
    api.abp_responses |= app.responses  # what any route may answer: 401, where tokens are asked for
    body_problems, path_problems = problems(400, 413, 415), problems(400)
    api.post("/notes", operation_id="createNote", responses={201: Note, **body_problems})(create)
    api.get("/notes", operation_id="listNotes", responses={200: Page, **path_problems})(page)
    api.put("/notes/<note_id>", operation_id="putNote", responses={200: Note, 201: Note, **body_problems})(put)
    api.get("/notes/<note_id>", operation_id="getNote", responses={200: Note, **path_problems, **problems(404)})(find)
    api.delete("/notes/<note_id>", operation_id="deleteNote", responses={204: None, **path_problems})(delete)
    app.register_api(api)
    app.add_url_rule(f"{url_prefix}/openapi.json", "contract", lambda: app.api_doc)


def create(body: NoteBody) -> Response:
    """Store a new note. 201 with its `Location`."""
    with db.connection() as conn:
        note = notes.create(conn, body.text)
    return created(note, at=f"{request.path}/{note.id}")


def put(path: NotePath, body: NoteBody) -> Response:
    """Store a note under the client's own id, 201 with its `Location`, or replace it, 200. May be repeated."""
    with db.connection() as conn:
        note, is_new = notes.put(conn, path.note_id, body.text)
    return created(note, at=request.path) if is_new else jsonify(note)


def find(path: NotePath) -> Response:
    """One note. 200, or 404."""
    note = db.read(notes.find, path.note_id)
    return jsonify(note) if note else abort(404, "There is no such note.")


def page(query: PageQuery) -> Response:
    """Notes, newest first. 200; `next`, also in the `Link` header, leads to those that follow."""
    found = db.read(notes.page, query.limit + 1, query.after)  # one more than asked for tells whether others follow
    items = found[: query.limit]
    if len(found) == len(items):
        return jsonify(items=items, next=None)
    following = f"{request.path}?limit={query.limit}&after={items[-1].id}"
    response = jsonify(items=items, next=following)
    response.headers["Link"] = f'<{following}>; rel="next"'
    return response


def delete(path: NotePath) -> Response:
    """Remove a note, if it is there. 204, also the second time."""
    with db.connection() as conn:
        notes.delete(conn, path.note_id)
    response = Response(status=204)
    del response.headers["Content-Type"]  # there is no content
    return response


def created(note: notes.Note, *, at: str) -> Response:
    """201: `note` is new, and found `at` a path."""
    response = jsonify(note)
    response.status_code = 201
    response.headers["Location"] = at
    return response
