"""The probes over HTTP, with their SQL beside them: a text under an ID."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from flask import abort
from psycopg import Connection
from psycopg.rows import args_row
from pydantic import Field

from chassis import db
from chassis.api import Blueprint, Created, Model, Page, PageQuery, created, page
from chassis.fields import Text

MAX_TEXT_CHARS = 10_000


@dataclass(frozen=True, slots=True)
class Probe:
    """A text under an ID."""

    id: UUID
    text: str
    created_at: datetime
    updated_at: datetime


class NewProbe(Model):
    """What a client says of a probe."""

    text: Annotated[Text, Field(min_length=1, max_length=MAX_TEXT_CHARS)]


class ProbesQuery(PageQuery):
    """Which part of the list."""

    after: UUID | None = None


probes = Blueprint(
    "probes",
    examples={
        NewProbe: {"text": "hello"},
        Probe: {
            "id": "01a213c1-cb69-7436-af07-03102b18614f",
            "text": "hello",
            "created_at": "2026-11-25T17:29:57.352756Z",
            "updated_at": "2026-11-25T17:29:57.352756Z",
        },
    },
)


@probes.post("/probes")
def create_probe(body: NewProbe) -> Created[Probe]:
    """Store a new probe."""
    statement = "INSERT INTO probes (text) VALUES (%s) RETURNING id, text, created_at, updated_at"
    with db.connection() as conn:
        [probe] = conn.cursor(row_factory=args_row(Probe)).execute(statement, [body.text])
    return created(probe, at=probe.id)


@probes.get("/probes")
def list_probes(query: ProbesQuery) -> Page[Probe]:
    """Return the probes, newest first."""
    return page(db.read(select_page, query.limit + 1, query.after), query, after=lambda probe: probe.id)


@probes.put("/probes/<probe_id>")
def put_probe(probe_id: UUID, body: NewProbe) -> Probe | Created[Probe]:
    """Store a probe under an ID that the client chose, or replace it. Idempotent."""
    statement = """
        INSERT INTO probes (id, text) VALUES (%s, %s)
        ON CONFLICT (id) DO UPDATE SET text = excluded.text, updated_at = now()
        RETURNING new.id, new.text, new.created_at, new.updated_at, old.id IS NULL
    """
    with db.connection() as conn:
        [(*columns, is_new)] = conn.execute(statement, [probe_id, body.text])
    probe = Probe(*columns)
    return created(probe) if is_new else probe


@probes.get("/probes/<probe_id>", problems=[404])
def get_probe(probe_id: UUID) -> Probe:
    """Return a probe."""
    return db.read(select, probe_id) or abort(404, "There is no such probe.")


@probes.delete("/probes/<probe_id>")
def delete_probe(probe_id: UUID) -> None:
    """Remove a probe. Idempotent."""
    with db.connection() as conn:
        conn.execute("DELETE FROM probes WHERE id = %s", [probe_id])


def select(conn: Connection[Any], probe_id: UUID) -> Probe | None:
    """Return the probe, or `None`."""
    statement = "SELECT id, text, created_at, updated_at FROM probes WHERE id = %s"
    return conn.cursor(row_factory=args_row(Probe)).execute(statement, [probe_id]).fetchone()


def select_page(conn: Connection[Any], limit: int, after: UUID | None) -> list[Probe]:
    """Return at most `limit` probes, newest first."""
    statement = """
        SELECT id, text, created_at, updated_at FROM probes
        WHERE id < coalesce(%s, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid) ORDER BY id DESC LIMIT %s
    """
    return conn.cursor(row_factory=args_row(Probe)).execute(statement, [after, limit]).fetchall()
