"""What the rehearsal knows of the notes: its requests, and the faults that it builds into a green.

Change this file, and no other, if the service has no notes any more. The load puts a text under an ID of its own, and
gets it again: both are idempotent, so that a client could repeat them, but it does not, and every failure is counted.
"""

import http.client
import json
from typing import Any

from deploy.rehearse.settings import PREFIX

PATH = f"{PREFIX}/notes"
"""`PUT PATH/<id>` and `GET PATH/<id>` are the requests; `GET PATH` lists everything."""

PAGE = 100
"""Items on a page of the list."""

FAULTS = {
    # A fault that no hook meets: only users put notes.
    "broken": ("put_note", "assert note_id.int % 4"),
    # A fault that the hooks meet: every eighth list takes too long.
    "slow": (
        "list_notes",
        'query.__class__.seen = getattr(query, "seen", 0) + 1; query.seen % 8 or __import__("time").sleep(1.5)',
    ),
}
"""Greens with a fault: the function of `service/api.py`, and the line that is put into it."""


def body(text: str) -> dict[str, Any]:
    """Return the body of a PUT."""
    return {"text": text}


def text_of(found: dict[str, Any]) -> str:
    """Return the text in the body of a response."""
    text: str = found["text"]
    return text


def stored(port: int) -> dict[str, str]:
    """Return the text of everything that is stored, by ID, as the service at `port` lists it.

    Raises:
        OSError: There was no response, or not 200.
    """
    found: dict[str, str] = {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    path = f"{PATH}?limit={PAGE}"
    while path:
        connection.request("GET", path)
        response = connection.getresponse()
        content = response.read()
        if response.status != http.client.OK:
            raise OSError(f"GET {path}: {response.status}")
        page = json.loads(content)
        found |= {item["id"]: text_of(item) for item in page["items"]}
        path = page["next"]
    connection.close()
    return found
