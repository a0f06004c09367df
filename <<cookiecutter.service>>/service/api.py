"""The notes over HTTP: parse, ask the domain, answer."""

from typing import Annotated
from uuid import UUID

from flask import abort
from pydantic import Field

from chassis import db
from chassis.api import Blueprint, Created, Model, Page, PageQuery, created, page
from chassis.fields import Text
from service import notes as domain
from service.notes import Note


class NewNote(Model):
    """What a client says of a note."""

    text: Annotated[Text, Field(min_length=1, max_length=domain.MAX_TEXT_CHARS)]


class NotesQuery(PageQuery):
    """Which part of the list."""

    after: Annotated[UUID | None, Field(description="The ID of the note that the page follows; `next` has it.")] = None


notes = Blueprint(
    "notes",
    examples={
        NewNote: {"text": "hello"},
        Note: {
            "id": "01a213c1-cb69-7436-af07-03102b18614f",
            "text": "hello",
            "created_at": "2026-11-25T17:29:57.352756Z",
            "updated_at": "2026-11-25T17:29:57.352756Z",
        },
    },
)


@notes.post("/notes")
def create_note(body: NewNote) -> Created[Note]:
    """Store a new note."""
    with db.connection() as conn:
        note = domain.create(conn, body.text)
    return created(note, at=note.id)


@notes.get("/notes")
def list_notes(query: NotesQuery) -> Page[Note]:
    """Return the notes, newest first, one page at a time."""
    found = db.read(domain.page, query.limit + 1, query.after)
    return page(found, query, after=lambda note: note.id)


@notes.put("/notes/<note_id>")
def put_note(note_id: UUID, body: NewNote) -> Note | Created[Note]:
    """Store a note under an ID that the client chose, or replace it. Idempotent."""
    with db.connection() as conn:
        note, is_new = domain.put(conn, note_id, body.text)
    return created(note) if is_new else note


@notes.get("/notes/<note_id>", problems=[404])
def get_note(note_id: UUID) -> Note:
    """Return a note."""
    return db.read(domain.find, note_id) or abort(404, "There is no such note.")


@notes.delete("/notes/<note_id>")
def delete_note(note_id: UUID) -> None:
    """Remove a note. Idempotent: the answer is the same if there is none."""
    with db.connection() as conn:
        domain.delete(conn, note_id)
