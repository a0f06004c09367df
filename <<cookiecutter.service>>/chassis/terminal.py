"""Events for a person at a terminal: one readable line each, with what an exception says below it.

Only `logs.py` uses it, and only if `LOG_FORMAT` is `text`, or stdout is a terminal: everything else gets JSON.
"""

from collections.abc import Mapping
from typing import Any

RESET, BOLD, DIM = "\x1b[0m", "\x1b[1m", "\x1b[2m"
COLOURS = {
    "DEBUG": "\x1b[36m",
    "INFO": "\x1b[32m",
    "WARNING": "\x1b[33m",
    "ERROR": "\x1b[31m",
    "CRITICAL": "\x1b[1;31m",
}

SHOWN_ELSEWHERE = {"timestamp", "severity_text", "logger", "body", "exception.stacktrace"}
SAID_BY_THE_BODY = {"http.request.method", "http.route", "http.response.status_code"}
NOT_NEEDED_HERE = {"service.name", "service.version", "process.pid", "trace_id", "span_id"}
HIDDEN = SHOWN_ELSEWHERE | SAID_BY_THE_BODY | NOT_NEEDED_HERE


def render(event: Mapping[str, Any], *, is_coloured: bool) -> str:
    """Return an event, whose values JSON can express, as text that ends a line."""
    severity = str(event.get("severity_text", ""))
    details = {name: value for name, value in event.items() if name not in HIDDEN and value is not None}
    parts = [
        (DIM, str(event.get("timestamp", ""))[11:23]),
        (COLOURS.get(severity, ""), f"{severity:<8}"),
        (BOLD, _plain(str(event.get("body", "")))),
        (DIM, " ".join(f"{name}={_plain(str(value))}" for name, value in details.items())),
        (DIM, f"[{event.get('logger', '')}]"),
    ]
    line = " ".join(f"{style}{text}{RESET}" if is_coloured and style else text for style, text in parts if text)
    stack = str(event.get("exception.stacktrace", ""))
    return "\n".join([line, *(_plain(text) for text in stack.splitlines())]) + "\n"


def _plain(text: str) -> str:
    """Return `text` without control characters: they could move the cursor, or make up further lines."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
