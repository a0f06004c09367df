"""The domain, on a real database and without HTTP."""

import re
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import Connection

from service import notes


def test_a_note_is_found_as_it_was_created(conn: Connection) -> None:
    note = notes.create(conn, "hello")
    assert notes.find(conn, note.id) == note
    assert note.id.version == 7
    assert note.created_at == note.updated_at


def test_an_unknown_note_is_none(conn: Connection) -> None:
    assert notes.find(conn, uuid4()) is None


def test_putting_twice_replaces_and_keeps_the_time_of_creation(conn: Connection) -> None:
    note_id = uuid4()
    first, is_new = notes.put(conn, note_id, "one")
    second, is_still_new = notes.put(conn, note_id, "two")
    assert (is_new, is_still_new) == (True, False)
    assert (second.id, second.text, second.created_at) == (note_id, "two", first.created_at)
    assert second.updated_at > first.updated_at


def test_pages_are_newest_first_and_complete(conn: Connection) -> None:
    made = [notes.create(conn, str(number)).id for number in range(5)]
    seen: list[UUID] = []
    while page := notes.page(conn, 2, seen[-1] if seen else None):
        seen += [note.id for note in page]
    assert seen == made[::-1]


def test_a_page_goes_on_where_a_deleted_note_was(conn: Connection) -> None:
    old, middle, _new = (notes.create(conn, text).id for text in "abc")
    notes.delete(conn, middle)
    assert [note.id for note in notes.page(conn, 10, middle)] == [old]


def test_deleting_twice_is_deleting_once(conn: Connection) -> None:
    note = notes.create(conn, "short-lived")
    notes.delete(conn, note.id)
    notes.delete(conn, note.id)
    assert notes.find(conn, note.id) is None


@pytest.mark.parametrize("text", ["", "x" * (notes.MAX_TEXT_CHARS + 1)])
def test_the_database_too_knows_how_long_a_text_may_be(conn: Connection, text: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        notes.create(conn, text)


def test_every_function_is_one_round_trip(conn: Connection, tmp_path: Path) -> None:
    note_id = uuid4()
    with (tmp_path / "trace").open("w+b") as trace:
        conn.pgconn.trace(trace.fileno())
        notes.put(conn, note_id, "counted")
        notes.create(conn, "counted")
        notes.find(conn, note_id)
        notes.page(conn, 10, None)
        notes.delete(conn, note_id)
        conn.pgconn.untrace()
        messages = (tmp_path / "trace").read_text()
    # The client waits once for each Sync (and for each Query, had there been a BEGIN or COMMIT).
    assert len(re.findall(r"\bF\s.*(?:Sync|Query)", messages)) == 5
