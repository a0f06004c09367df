"""The example domain: what a note is, and every SQL statement about it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import args_row

MAX_TEXT_CHARS = 10_000
"""As in the CHECK of `migrations/0001_notes.sql`."""


@dataclass(frozen=True, slots=True)
class Note:
    """A short text that a client stores."""

    id: UUID
    """A UUIDv7 when PostgreSQL made it, so that a larger id is a newer note."""
    text: str
    """1 to `MAX_TEXT_CHARS` characters, none of them NUL."""
    created_at: datetime
    """UTC."""
    updated_at: datetime
    """UTC; equals `created_at` until the note is replaced."""


def create(conn: Connection[Any], text: str) -> Note:
    """Insert a note under an ID that PostgreSQL generates. Return the note."""
    statement = "INSERT INTO notes (text) VALUES (%s) RETURNING id, text, created_at, updated_at"
    [note] = conn.cursor(row_factory=args_row(Note)).execute(statement, [text])
    return note


def put(conn: Connection[Any], note_id: UUID, text: str) -> tuple[Note, bool]:
    """Insert or replace a note under a client-supplied ID. Return it and whether it was created. Idempotent."""
    statement = """
        INSERT INTO notes (id, text) VALUES (%s, %s)
        ON CONFLICT (id) DO UPDATE SET text = excluded.text, updated_at = now()
        RETURNING new.id, new.text, new.created_at, new.updated_at, old.id IS NULL
    """
    [(*columns, is_new)] = conn.execute(statement, [note_id, text])
    return Note(*columns), is_new


def find(conn: Connection[Any], note_id: UUID) -> Note | None:
    """Return the note, or `None`."""
    statement = "SELECT id, text, created_at, updated_at FROM notes WHERE id = %s"
    return conn.cursor(row_factory=args_row(Note)).execute(statement, [note_id]).fetchone()


def page(conn: Connection[Any], limit: int, after: UUID | None) -> list[Note]:
    """Return at most `limit` notes, newest first: those that follow the note `after`, or the newest of all.

    The page is found by key and not by offset: it costs the same at any depth, and notes that are added or removed
    meanwhile neither repeat nor hide others. https://use-the-index-luke.com/no-offset
    """
    statement = """
        SELECT id, text, created_at, updated_at FROM notes
        WHERE id < coalesce(%s, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid) ORDER BY id DESC LIMIT %s
    """
    return conn.cursor(row_factory=args_row(Note)).execute(statement, [after, limit]).fetchall()


def delete(conn: Connection[Any], note_id: UUID) -> None:
    """Delete the note, if it exists. Idempotent."""
    conn.execute("DELETE FROM notes WHERE id = %s", [note_id])
