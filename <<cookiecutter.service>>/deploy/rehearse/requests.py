"""The requests that the load makes of the service. Change this file if the service has no notes any more.

The load puts a text under an ID of its own, and gets it again: both are idempotent, so each failure is a failure.
"""

import http.client
import json
from typing import Any

from deploy.rehearse.settings import PREFIX

PATH = f"{PREFIX}/notes"
"""`PUT PATH/<id>` and `GET PATH/<id>` are the requests; `GET PATH` lists everything."""

PAGE = 100
"""Items on a page of the list."""


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
