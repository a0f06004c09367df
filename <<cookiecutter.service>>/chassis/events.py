"""An event as one line of JSON: what JSON cannot express becomes text, and long texts are cut."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

MAX_LINE_BYTES = 4096
"""Linux writes so much to a pipe in one piece (`PIPE_BUF`, pipe(7)); longer lines of several processes would mix."""


MAX_DEPTH = 5
"""Depth to which a value that orjson cannot serialize is converted: it may be recursive."""


def dump(value: Any) -> bytes:
    """Return a value as JSON."""
    return orjson.dumps(value, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)


def plain(value: Any, depth: int = 0) -> Any:
    """Return `value` with everything that JSON cannot express replaced by text."""
    if isinstance(value, Mapping) and depth < MAX_DEPTH:
        return {text(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth < MAX_DEPTH:
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, int) and -(2**63) <= value < 2**64:  # what orjson takes
        return value
    return value if value is None or isinstance(value, float | datetime) else text(value)


def text(value: object) -> str:
    """Return a value as text that JSON can express."""
    try:
        return str(value).encode("utf-8", "replace").decode()
    except Exception:  # noqa: BLE001 - a value that cannot even be shown must not cost the line
        return f"<{type(value).__qualname__}>"


def shorten(event: dict[str, Any]) -> bytes:
    """Return the event as JSON, with its longest texts cut in half until it fits: a stack trace keeps its end."""
    event = {key[:100]: value if isinstance(value, int | float | None) else text(value) for key, value in event.items()}
    while len(line := dump(event)) >= MAX_LINE_BYTES:
        key = max(event, key=lambda name: len(str(event[name])))
        found = str(event[key])
        half = len(found) // 2
        if half < 32:  # noqa: PLR2004 - many small attributes: the last ones go
            event.popitem()
        else:
            event[key] = f"…{found[-half:]}" if key == "exception.stacktrace" else f"{found[:half]}…"
    return line
