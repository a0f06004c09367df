"""The notes over HTTP: parse, ask the domain, answer."""

from functools import cache
from typing import Annotated, Any
from uuid import UUID

from flask import Response, abort, jsonify, request
from flask_openapi3 import APIBlueprint, OpenAPI, Tag
from pydantic import BaseModel, ConfigDict, Field, RootModel, WithJsonSchema

from service import contract, db, notes

EXAMPLE = {
    "id": "01a213c1-cb69-7436-af07-03102b18614f",
    "text": "hello",
    "created_at": "2026-11-25T17:29:57.352756Z",
    "updated_at": "2026-11-25T17:29:57.352756Z",
}
NEXT = f"/notes?limit=1&after={EXAMPLE['id']}"
LOCATION = {
    "Location": {"description": "Its path.", "required": True, "schema": {"type": "string", "format": "uri-reference"}}
}
LINK = {"Link": {"description": "Leads to `next`, if there is one.", "schema": {"type": "string"}}}


class NotePath(BaseModel):
    """Where a note is."""

    note_id: Annotated[UUID, Field(json_schema_extra={"example": EXAMPLE["id"]})]


class NoteBody(BaseModel):
    """What a client says of a note."""

    model_config = contract.described({"text": "hello"}, extra="forbid", strict=True)

    text: Annotated[str, Field(min_length=1, max_length=notes.MAX_TEXT_CHARS, pattern=r"^[^\x00]*$")]


class Query(BaseModel):
    """Parameters of a query."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    @cache
    def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override] # a cached method
        """As pydantic makes it, but once: flask-openapi3 asks at each request, and it takes longer than the rest."""
        return super().model_json_schema(*args, **options)


class PageQuery(Query):
    """Which part of the list."""

    limit: Annotated[int, Field(ge=1, le=100, description="The most that one page holds.")] = 20
    after: Annotated[
        UUID | None,
        WithJsonSchema({"type": "string", "format": "uuid"}),  # a query has no null
        Field(default_factory=lambda: None, description="The id of the note that the page follows; `next` has it."),
    ]


class Note(RootModel[notes.Note]):
    """A note, as the domain defines it."""

    model_config = contract.described(EXAMPLE)


class NewNote(Note):
    """A note, and where it is found."""

    model_config = contract.described(EXAMPLE, LOCATION, title="Note")


class Page(BaseModel):
    """A part of the list of notes, newest first."""

    model_config = contract.described({"items": [EXAMPLE], "next": NEXT}, LINK)

    items: list[notes.Note]
    next: Annotated[str | None, Field(description="Where the list goes on, if it does.")]


def register(app: OpenAPI, url_prefix: str) -> None:
    """Attach the notes to `app`, under `url_prefix`."""
    api = APIBlueprint("notes", __name__, url_prefix=url_prefix, abp_tags=[Tag(name="notes")])
    api.abp_responses |= app.responses  # what any route may answer: 401, where tokens are asked for
    reading, writing = contract.problems(503), contract.problems(413, 415, 503)
    api.post("/notes", operation_id="createNote", responses={201: NewNote, **writing})(create)
    api.get("/notes", operation_id="listNotes", responses={200: Page, **reading})(page)
    api.put("/notes/<note_id>", operation_id="putNote", responses={200: Note, 201: NewNote, **writing})(put)
    api.get("/notes/<note_id>", operation_id="getNote", responses={200: Note, **contract.problems(404, 503)})(find)
    api.delete("/notes/<note_id>", operation_id="deleteNote", responses={204: None, **reading})(delete)
    app.register_api(api)


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
