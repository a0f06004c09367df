"""The smoke test of a release, and what the rehearsal knows of the service. This file is yours: change it as you like.

It also runs in a Lambda function, so it imports nothing but the standard library and `deploy.client`. `check` writes
to production, and deletes what it wrote; if nothing may be written there, have it read a list instead.
"""

import uuid
from typing import Any

from deploy.client import CheckError, ask

PATH = "/notes"
"""Path of the resource. `GET` returns a list, newest first. The load of the rehearsal sends `PUT PATH/<id>`, with IDs
of its own, and `GET PATH/<id>`. It does not retry them, although both are idempotent: it counts every failure."""

LATENCY_PATH = f"{PATH}?limit=1"
"""Path that is requested to measure the latency of green."""

MARK = "a smoke test of"
"""Beginning of each text that `check` creates, by which it finds and deletes what an interrupted run has left."""

FAULTS = {
    # The hooks do not find this fault, since only users send PUT. The alarm finds it.
    "broken": ("service/api.py", "put_note", "assert note_id.int % 4"),
    # The hooks find this fault: every eighth list takes too long.
    "slow": (
        "service/api.py",
        "list_notes",
        'query.__class__.seen = getattr(query, "seen", 0) + 1; query.seen % 8 or __import__("time").sleep(1.5)',
    ),
}
"""Faults that `make rehearse GREEN=broken` and `GREEN=slow` build into green: a file, a function in it, and a line of
code to insert after the function's docstring."""


def body(text: str) -> dict[str, Any]:
    """Return the body of a POST or PUT that stores a text."""
    return {"text": text}


def text_of(found: dict[str, Any]) -> str:
    """Return the text of an item that the service has returned."""
    text: str = found["text"]
    return text


def check(base_url: str, url_prefix: str, release: str | None) -> dict[str, Any]:
    """Create a note, read it and delete it. This shows that the service and its database work together.

    Raises:
        CheckError: What was read differs from what was created, or a request failed.
    """
    path, location = f"{url_prefix}{PATH}", ""
    _clean(base_url, path)
    try:
        sent = body(f"{MARK} {release}, {uuid.uuid4()}")
        created, location = ask(base_url, "POST", path, 201, sent)
        found, _ = ask(base_url, "GET", location, 200)
        if found != created or text_of(found) != text_of(sent):
            raise CheckError(f"the note that was created is not the one that was read: {found}")
    finally:
        # First by its location, since with random IDs it may not be on the first page of the list.
        if location:
            ask(base_url, "DELETE", location, 204)
        # Then by its text, since the note may exist even if the response to the POST was lost.
        _clean(base_url, path)
    ask(base_url, "GET", location, 404)
    return {"stored": created["id"]}


def _clean(base_url: str, path: str) -> None:
    """Delete what this run has created, and what interrupted runs have left."""
    newest, _ = ask(base_url, "GET", f"{path}?limit=100", 200)
    for each in newest["items"]:
        if text_of(each).startswith(MARK):
            ask(base_url, "DELETE", f"{path}/{each['id']}", 204)
